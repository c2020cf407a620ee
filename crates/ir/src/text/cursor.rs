//! A place in a list of tokens, and the small things that every level reads: names, numbers, scalars.

use super::lexer::{ParseError, Tok, Token, clip, lex};
use crate::dtype::{DType, Scalar};

/// Greatest magnitude of an integer in a text; the arena's bounds saturate there.
pub(super) const MAX_INT: i64 = i64::MAX / 4;

/// Most axes of a tensor, buffer or table in a text.
pub(super) const MAX_RANK: usize = 64;

/// Greatest number of an input or output slot in a text.
pub(super) const MAX_SLOT: usize = 65_535;

/// Parses a scalar as `Scalar`'s `Display` prints it: `1.5f32`, `-3i64`, `true`, `-inff32`, `nan:7fc00000f32`.
pub fn parse_scalar(text: &str) -> Result<Scalar, ParseError> {
    let mut c = Cursor::new(text)?;
    let s = c.scalar()?;
    c.end_line()?;
    c.expect_end()?;
    Ok(s)
}

pub(super) struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Result<Cursor<'a>, ParseError> {
        Ok(Cursor { tokens: lex(text)?, at: 0 })
    }

    pub(super) fn peek(&self) -> &Tok<'a> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &Tok<'a> {
        self.tokens.get(self.at + ahead).map_or(&Tok::End, |t| &t.tok)
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// An error at the next token.
    pub(super) fn error(&self, expected: impl Into<String>) -> ParseError {
        let found = match self.peek() {
            Tok::Word(w) | Tok::Number(w) | Tok::Nan(w) => clip(w),
            Tok::Quoted(q) => clip(q),
            Tok::Sign(s) => clip(s),
            Tok::Newline => "the end of the line".to_string(),
            Tok::End => "the end of the text".to_string(),
        };
        self.error_here(found, expected)
    }

    /// An error at the next token about something else than the token.
    pub(super) fn error_here(&self, found: impl Into<String>, expected: impl Into<String>) -> ParseError {
        self.error_at(self.at, found, expected)
    }

    /// An error at a place that [`Cursor::place`] gave.
    pub(super) fn error_at(&self, place: usize, found: impl Into<String>, expected: impl Into<String>) -> ParseError {
        let (line, column) = match self.tokens.get(place).or(self.tokens.last()) {
            Some(t) => (t.line, t.column),
            None => (1, 1),
        };
        ParseError { line, column, found: found.into(), expected: expected.into() }
    }

    /// The next token's place, for errors that are noticed later.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Tok::Sign(s) if *s == sign)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Word(w) if *w == word)
    }

    pub(super) fn accept(&mut self, sign: &str) -> bool {
        let yes = self.is_sign(sign);
        self.at += yes as usize;
        yes
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let yes = self.is_word(word);
        self.at += yes as usize;
        yes
    }

    pub(super) fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.accept(sign) { Ok(()) } else { Err(self.error(format!("`{sign}`"))) }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), ParseError> {
        if self.accept_word(word) { Ok(()) } else { Err(self.error(format!("`{word}`"))) }
    }

    /// The end of a line or of the text.
    pub(super) fn end_line(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            Tok::Newline => {
                self.advance();
                Ok(())
            }
            Tok::End => Ok(()),
            _ => Err(self.error("the end of the line")),
        }
    }

    pub(super) fn is_end(&self) -> bool {
        *self.peek() == Tok::End
    }

    pub(super) fn expect_end(&self) -> Result<(), ParseError> {
        if self.is_end() { Ok(()) } else { Err(self.error("the end of the text")) }
    }

    pub(super) fn word(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        match *self.peek() {
            Tok::Word(w) => {
                self.advance();
                Ok(w)
            }
            _ => Err(self.error(expected)),
        }
    }

    /// The next word, if `f` knows it.
    pub(super) fn accept_known<T>(&mut self, f: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Tok::Word(w) = *self.peek() else { return None };
        let known = f(w);
        self.at += known.is_some() as usize;
        known
    }

    /// A word that `f` knows.
    pub(super) fn known<T>(&mut self, expected: &str, f: impl Fn(&str) -> Option<T>) -> Result<T, ParseError> {
        self.accept_known(f).ok_or_else(|| self.error(expected))
    }

    /// A name, and whether it stands in quotes.
    pub(super) fn name(&mut self, expected: &str) -> Result<(String, bool), ParseError> {
        let out = match self.peek() {
            Tok::Word(w) => (w.to_string(), false),
            Tok::Quoted(q) => (q.clone(), true),
            _ => return Err(self.error(expected)),
        };
        self.advance();
        Ok(out)
    }

    /// A whole number from 0 to `max`.
    pub(super) fn natural(&mut self, max: usize, what: &str) -> Result<usize, ParseError> {
        let value = match self.peek() {
            Tok::Number(n) => n.parse::<usize>().ok().filter(|&n| n <= max),
            _ => None,
        };
        match value {
            Some(n) => {
                self.advance();
                Ok(n)
            }
            None => Err(self.error(format!("{what}, a whole number up to {max}"))),
        }
    }

    /// A whole number, perhaps negative, of magnitude up to [`MAX_INT`].
    pub(super) fn integer(&mut self) -> Result<i64, ParseError> {
        let negative = self.accept("-");
        let n = self.natural(MAX_INT as usize, "an integer")? as i64;
        Ok(if negative { -n } else { n })
    }

    /// `%7`.
    pub(super) fn value_number(&mut self) -> Result<usize, ParseError> {
        self.expect("%")?;
        self.natural(u32::MAX as usize, "the number of a value")
    }

    /// Items between brackets, separated by commas; a comma may follow the last one.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.expect("[")?;
        let mut out = Vec::new();
        while !self.accept("]") {
            out.push(item(self)?);
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(out)
    }

    /// Items separated by commas, at least one.
    pub(super) fn items<T>(
        &mut self,
        mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut out = vec![item(self)?];
        while self.accept(",") {
            out.push(item(self)?);
        }
        Ok(out)
    }

    pub(super) fn dtype(&mut self) -> Result<DType, ParseError> {
        self.known("a dtype", DType::from_name)
    }

    /// A size that is known now: a whole number that fits into memory arithmetic.
    pub(super) fn const_size(&mut self) -> Result<usize, ParseError> {
        self.natural(i32::MAX as usize, "a constant size")
    }

    /// A shape whose sizes are known now, and its number of elements.
    pub(super) fn const_shape(&mut self) -> Result<(Vec<usize>, usize), ParseError> {
        let place = self.place();
        let shape = self.list(|c| c.const_size())?;
        if shape.len() > MAX_RANK {
            return Err(self.error_at(place, format!("{} axes", shape.len()), format!("at most {MAX_RANK}")));
        }
        match shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)) {
            Some(n) => Ok((shape, n)),
            None => Err(self.error_at(place, "a shape of very many elements", "one that fits into memory")),
        }
    }

    /// A table's elements in brackets, as many as the shape has.
    pub(super) fn elements(&mut self, dtype: DType, count: usize) -> Result<Vec<Scalar>, ParseError> {
        let place = self.place();
        let values = self.list(|c| c.element(dtype))?;
        if values.len() != count {
            let found = format!("{} elements", values.len());
            return Err(self.error_at(place, found, format!("{count}, as the shape says")));
        }
        Ok(values)
    }

    /// Whether a scalar may begin here.
    pub(super) fn is_scalar(&self) -> bool {
        match self.peek() {
            Tok::Number(_) | Tok::Nan(_) => true,
            Tok::Word(w) => matches!(*w, "true" | "false") || infinity_from(w).is_some(),
            Tok::Sign(s) => *s == "-",
            _ => false,
        }
    }

    /// A scalar with its dtype.
    pub(super) fn scalar(&mut self) -> Result<Scalar, ParseError> {
        let negative = self.accept("-");
        let value = match self.peek() {
            Tok::Word("true") if !negative => Some(Scalar::from_bool(true)),
            Tok::Word("false") if !negative => Some(Scalar::from_bool(false)),
            Tok::Word(w) => infinity_from(w).map(|d| infinity(d, negative)),
            Tok::Number(n) => split_dtype(n).and_then(|(body, d)| number_from(d, body, negative)),
            Tok::Nan(n) if !negative => n.strip_prefix("nan:").and_then(nan_from),
            _ => None,
        };
        match value {
            Some(v) => {
                self.advance();
                Ok(v)
            }
            None => Err(self.error("a value with its dtype, as `1.0f32`")),
        }
    }

    /// A scalar of a known dtype, which need not be written.
    pub(super) fn element(&mut self, dtype: DType) -> Result<Scalar, ParseError> {
        let place = self.place();
        let negative = self.is_sign("-");
        let bare = match self.peek_at(negative as usize) {
            Tok::Word("inf") if dtype.is_float() => Some(infinity(dtype, negative)),
            Tok::Number(n) => number_from(dtype, n, negative),
            _ => None,
        };
        if let Some(v) = bare {
            self.at += 1 + negative as usize;
            return Ok(v);
        }
        let v = self.scalar()?;
        if v.dtype() != dtype {
            return Err(self.error_at(place, format!("`{v}`"), format!("a value of {dtype}")));
        }
        Ok(v)
    }
}

/// The dtype at the end of a number, and what stands before it. No name of a dtype ends in another one's, but for
/// `bf16`.
fn split_dtype(text: &str) -> Option<(&str, DType)> {
    let bf16 = text.strip_suffix("bf16").map(|body| (body, DType::BF16));
    bf16.or_else(|| DType::ALL.into_iter().find_map(|d| Some((text.strip_suffix(d.name())?, d))))
}

fn infinity_from(word: &str) -> Option<DType> {
    word.strip_prefix("inf").and_then(DType::from_name).filter(|d| d.is_float())
}

fn infinity(dtype: DType, negative: bool) -> Scalar {
    Scalar::from_f64(dtype, if negative { f64::NEG_INFINITY } else { f64::INFINITY })
}

/// A NaN from its bits and dtype, `7fc00000f32`. The number of digits tells `bf16` from `f16`.
pub(super) fn nan_from(text: &str) -> Option<Scalar> {
    DType::ALL.into_iter().filter(|d| d.is_float()).find_map(|d| {
        let digits = text.strip_suffix(d.name())?;
        if digits.len() != 2 * d.size() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        Some(Scalar::from_bits(d, u64::from_str_radix(digits, 16).ok()?)).filter(|s| s.is_nan())
    })
}

/// A number of a dtype; `None` where it is not one or lies beyond the dtype.
fn number_from(dtype: DType, body: &str, negative: bool) -> Option<Scalar> {
    let signed = if negative { format!("-{body}") } else { body.to_string() };
    match dtype {
        DType::Bool => None,
        DType::F32 => {
            let x: f32 = signed.parse().ok().filter(|x: &f32| x.is_finite())?;
            Some(Scalar::from_bits(dtype, x.to_bits() as u64))
        }
        d if d.is_float() => {
            let x: f64 = signed.parse().ok().filter(|x: &f64| x.is_finite())?;
            Some(Scalar::from_f64(dtype, x)).filter(|s| s.to_f64().is_finite())
        }
        _ => {
            let x: i64 = signed.parse().ok()?;
            Some(Scalar::from_i64(dtype, x)).filter(|s| s.to_i64() == x)
        }
    }
}
