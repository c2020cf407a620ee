//! Words, numbers and signs of the text form.

/// A place in a text and what was wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: found {found}, expected {expected}")]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: usize,
    /// Character in the line, counted from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What could have stood there instead.
    pub expected: String,
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok<'a> {
    /// An identifier or keyword.
    Word(&'a str),
    /// A name in quotes, without them.
    Quoted(String),
    /// Digits with fraction, exponent and dtype where given: `3`, `1.5f32`, `1e-7bf16`.
    Number(&'a str),
    /// `nan:7fc00000f32`.
    Nan(&'a str),
    /// A sign.
    Sign(&'static str),
    /// The end of a line, outside of brackets and parentheses; empty lines give none.
    Newline,
    /// The end of the text.
    End,
}

/// A token and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub(super) tok: Tok<'a>,
    pub(super) line: usize,
    pub(super) column: usize,
}

const SIGNS: [&str; 22] =
    ["..", ">=", "<=", "[", "]", "(", ")", "{", "}", ":", ",", "=", "+", "-", "*", "/", "%", "@", "?", "<", ">", "."];

/// Splits a text into tokens, the last of which is [`Tok::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let mut lexer = Lexer { text, at: 0, line: 1, line_start: 0, depth: 0, out: Vec::new() };
    while lexer.step()? {}
    Ok(lexer.out)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    depth: usize,
    out: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn column(&self) -> usize {
        self.text.get(self.line_start..self.at).map_or(1, |s| s.chars().count() + 1)
    }

    fn push(&mut self, tok: Tok<'a>, bytes: usize) {
        self.out.push(Token { tok, line: self.line, column: self.column() });
        self.at += bytes;
    }

    fn fail(&self, found: String, expected: &str) -> ParseError {
        ParseError { line: self.line, column: self.column(), found, expected: expected.to_string() }
    }

    /// Reads one token or skips one blank; `false` after the end.
    fn step(&mut self) -> Result<bool, ParseError> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else {
            self.push(Tok::End, 0);
            return Ok(false);
        };
        if c == '\n' {
            let empty = matches!(self.out.last().map(|t| &t.tok), None | Some(Tok::Newline));
            if self.depth == 0 && !empty {
                self.push(Tok::Newline, 0);
            }
            self.at += 1;
            self.line += 1;
            self.line_start = self.at;
        } else if c == ' ' || c == '\t' || c == '\r' {
            self.at += 1;
        } else if c == ';' {
            self.at += rest.find('\n').unwrap_or(rest.len());
        } else if c.is_ascii_alphabetic() || c == '_' {
            let len = word_len(rest);
            let word = &rest[..len];
            match nan_len(rest) {
                Some(nan) => self.push(Tok::Nan(&rest[..nan]), nan),
                None => self.push(Tok::Word(word), len),
            }
        } else if c.is_ascii_digit() {
            let len = number_len(rest);
            self.push(Tok::Number(&rest[..len]), len);
        } else if c == '"' {
            let (name, len) = self.quoted(rest)?;
            self.push(Tok::Quoted(name), len);
        } else if let Some(sign) = SIGNS.into_iter().find(|s| rest.starts_with(s)) {
            match sign {
                "[" | "(" => self.depth += 1,
                "]" | ")" => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.push(Tok::Sign(sign), sign.len());
        } else {
            return Err(self.fail(format!("{c:?}"), "a word, a number or a sign"));
        }
        Ok(true)
    }

    /// A quoted name with Rust's escapes, and its length in bytes with the quotes.
    fn quoted(&self, rest: &str) -> Result<(String, usize), ParseError> {
        let mut name = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => return Ok((name, i + 1)),
                '\n' => break,
                '\\' => {
                    let escape = chars.next().map(|x| x.1);
                    name.push(match escape {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some('0') => '\0',
                        Some(c @ ('"' | '\\' | '\'')) => c,
                        Some('u') => {
                            let hex: String = chars.by_ref().map(|x| x.1).skip(1).take_while(|&c| c != '}').collect();
                            u32::from_str_radix(&hex, 16)
                                .ok()
                                .and_then(char::from_u32)
                                .ok_or_else(|| self.fail(clip(&hex), "a character's number in hexadecimal"))?
                        }
                        _ => return Err(self.fail("an escape".to_string(), r#"one of \n \t \r \0 \" \\ \u{..}"#)),
                    });
                }
                c => name.push(c),
            }
        }
        Err(self.fail("an open quote".to_string(), "a closing quote on the same line"))
    }
}

/// At most 40 characters of a text, for messages.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((i, _)) => format!("`{}…`", &text[..i]),
        None => format!("`{text}`"),
    }
}

fn word_len(s: &str) -> usize {
    s.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_')).unwrap_or(s.len())
}

/// Length of `nan:` with bits in hexadecimal and a dtype, where the text begins with that.
fn nan_len(s: &str) -> Option<usize> {
    let tail = s.strip_prefix("nan:")?;
    let len = word_len(tail);
    super::cursor::nan_from(&tail[..len]).map(|_| 4 + len)
}

fn number_len(s: &str) -> usize {
    let b = s.as_bytes();
    let digits = |mut i: usize| {
        while b.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    let is_digit = |i: usize| b.get(i).is_some_and(u8::is_ascii_digit);
    let mut i = digits(0);
    if b.get(i) == Some(&b'.') && is_digit(i + 1) {
        i = digits(i + 1);
    }
    if matches!(b.get(i), Some(b'e' | b'E')) {
        if is_digit(i + 1) {
            i = digits(i + 1);
        } else if matches!(b.get(i + 1), Some(b'+' | b'-')) && is_digit(i + 2) {
            i = digits(i + 2);
        }
    }
    i + word_len(&s[i..])
}
