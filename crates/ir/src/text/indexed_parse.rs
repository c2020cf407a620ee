//! Parser of the indexed level.

use super::cursor::{Cursor, MAX_RANK};
use super::ints::Scope;
use super::lexer::{ParseError, Tok};
use super::tensor_parse::{reduce_op, sum_order};
use super::value::{parse_origin, parse_table, role_from, scope_from};
use crate::dtype::Scalar;
use crate::indexed::{BufId, Buffer, Def, Graph, Role, Scope as BufferScope, Source, TableId, Val, ValId};
use crate::int::RangeRole;
use crate::op::{BinaryOp, UnaryOp};
use rustc_hash::{FxHashMap, FxHashSet};

/// Parses an indexed graph.
///
/// Values go through the arena, so what it simplifies is simplified. What it cannot hold is refused: unknown names,
/// lists that do not fit a rank, operands of different dtypes. In-bounds, other rules about dtypes and the binding of ranges are the verifier's.
pub fn parse_indexed(text: &str) -> Result<Graph, ParseError> {
    let mut p = Parser {
        c: Cursor::new(text)?,
        scope: Scope::default(),
        graph: Graph::new(),
        buffers: FxHashMap::default(),
        tables: FxHashMap::default(),
        plain: FxHashSet::default(),
        values: FxHashMap::default(),
    };
    while !p.c.is_end() {
        p.line()?;
        p.c.end_line()?;
    }
    Ok(p.graph)
}

struct Parser<'a> {
    c: Cursor<'a>,
    scope: Scope,
    graph: Graph,
    buffers: FxHashMap<String, BufId>,
    tables: FxHashMap<String, TableId>,
    values: FxHashMap<usize, ValId>,
    /// Names declared without quotes, which tables cannot have.
    plain: FxHashSet<String>,
}

impl Parser<'_> {
    fn line(&mut self) -> Result<(), ParseError> {
        let word = self.c.word("`param`, `buffer`, `table`, `map`, `reduce` or `def`")?;
        match word {
            "param" => self.scope.param(&mut self.c, &mut self.graph.ints),
            "buffer" => self.buffer(),
            "table" => {
                let place = self.c.place();
                let name = self.c.word("the name of a table")?.to_string();
                if self.tables.contains_key(&name) || self.plain.contains(&name) {
                    return Err(self.c.error_at(place, format!("`{name}` again"), "another name"));
                }
                let table = parse_table(&mut self.c)?;
                let id = self.graph.add_table(table);
                self.tables.insert(name, id);
                Ok(())
            }
            "map" | "reduce" => {
                let role = if word == "map" { RangeRole::Map } else { RangeRole::Reduce };
                loop {
                    self.scope.new_range(&mut self.c, &mut self.graph.ints, role)?;
                    if matches!(self.c.peek(), Tok::Newline | Tok::End) {
                        return Ok(());
                    }
                }
            }
            "def" => self.def(),
            _ => {
                let place = self.c.place().saturating_sub(1);
                let expected = "`param`, `buffer`, `table`, `map`, `reduce` or `def`";
                Err(self.c.error_at(place, format!("`{word}`"), expected))
            }
        }
    }

    fn buffer(&mut self) -> Result<(), ParseError> {
        let place = self.c.place();
        let (name, quoted) = self.c.name("the name of a buffer")?;
        if self.buffers.contains_key(&name) || !quoted && self.tables.contains_key(&name) {
            return Err(self.c.error_at(place, format!("`{name}` again"), "another name"));
        }
        self.c.expect(":")?;
        let (dtype, shape) = self.scope.tensor_type(&mut self.c, &mut self.graph.ints)?;
        let origin = parse_origin(&mut self.c)?;
        let scope = self.c.accept_known(scope_from).unwrap_or(BufferScope::Global);
        let layout = match self.c.accept_word("layout") {
            true => Some(self.scope.layout(&mut self.c, &mut self.graph.ints, shape.len())?),
            false => None,
        };
        let id = self.graph.add_buffer(Buffer { name: name.clone(), dtype, shape, origin, scope, layout });
        if !quoted {
            self.plain.insert(name.clone());
        }
        self.buffers.insert(name, id);
        Ok(())
    }

    fn def(&mut self) -> Result<(), ParseError> {
        let place = self.c.place();
        let (name, _) = self.c.name("the name of a buffer")?;
        let Some(&buffer) = self.buffers.get(&name) else {
            return Err(self.c.error_at(place, format!("`{name}`"), "a buffer declared before"));
        };
        let place = self.c.place();
        let axes = self.c.list(|c| self.scope.range(c))?;
        let rank = self.graph.buffer(buffer).shape.len();
        if axes.len() != rank {
            let expected = format!("{rank}, one for each axis of `{name}`");
            return Err(self.c.error_at(place, format!("{} ranges", axes.len()), expected));
        }
        let keep = self.c.accept_word("keep");
        let repeat = self.c.accept_word("repeat");
        let role = self.c.accept_known(role_from).unwrap_or(Role::Other);
        self.c.expect("{")?;
        self.c.end_line()?;
        self.values.clear();
        while self.c.is_sign("%") {
            let place = self.c.place();
            let number = self.c.value_number()?;
            if self.values.contains_key(&number) {
                return Err(self.c.error_at(place, format!("`%{number}` again"), "another number"));
            }
            self.c.expect("=")?;
            let value = self.val()?;
            self.scope.check(&self.c, &self.graph.ints)?;
            self.values.insert(number, value);
            self.c.end_line()?;
        }
        self.c.expect_word("yield")?;
        let value = self.operand()?;
        self.c.end_line()?;
        self.c.expect("}")?;
        self.graph.defs.push(Def { buffer, axes, value, keep, repeat, role });
        Ok(())
    }

    /// `%3`, or a constant.
    fn operand(&mut self) -> Result<ValId, ParseError> {
        if self.c.is_scalar() {
            let s = self.c.scalar()?;
            return Ok(self.graph.constant(s));
        }
        let place = self.c.place();
        let number = self.c.value_number()?;
        let known = self.values.get(&number).copied();
        known.ok_or_else(|| self.c.error_at(place, format!("`%{number}`"), "a value declared before"))
    }

    /// Another operand of the dtype that `like` has: the arena exchanges operands and takes the dtype of one.
    fn next_operand(&mut self, like: ValId) -> Result<ValId, ParseError> {
        self.c.expect(",")?;
        self.operand_like(like)
    }

    fn operand_like(&mut self, like: ValId) -> Result<ValId, ParseError> {
        let place = self.c.place();
        let id = self.operand()?;
        let (found, expected) = (self.graph.dtype(id), self.graph.dtype(like));
        if found != expected {
            return Err(self.c.error_at(place, format!("an operand of {found}"), format!("one of {expected}")));
        }
        Ok(id)
    }

    fn val(&mut self) -> Result<ValId, ParseError> {
        let word = match *self.c.peek() {
            Tok::Word(w) if !self.c.is_scalar() => w,
            _ => return self.operand(),
        };
        if let Some(op) = UnaryOp::ALL.into_iter().find(|o| o.name() == word) {
            self.c.advance();
            let x = self.operand()?;
            return Ok(self.graph.unary(op, x));
        }
        if let Some(op) = BinaryOp::ALL.into_iter().find(|o| o.name() == word) {
            self.c.advance();
            let a = self.operand()?;
            let b = self.next_operand(a)?;
            return Ok(self.graph.binary(op, a, b));
        }
        if !matches!(word, "load" | "index" | "fma" | "where" | "cast" | "bitcast" | "select" | "reduce") {
            return Err(self.c.error("an operation"));
        }
        self.c.advance();
        let val = match word {
            "load" => return self.load(),
            "index" => {
                let dtype = self.c.dtype()?;
                Val::Index { value: self.scope.int(&mut self.c, &mut self.graph.ints)?, dtype }
            }
            "fma" => {
                let a = self.operand()?;
                Val::Fma { a, b: self.next_operand(a)?, c: self.next_operand(a)? }
            }
            "where" => {
                let cond = self.operand()?;
                self.c.expect(",")?;
                let a = self.operand()?;
                Val::Where { cond, a, b: self.next_operand(a)? }
            }
            "cast" => Val::Cast { dtype: self.c.dtype()?, x: self.operand()? },
            "bitcast" => Val::Bitcast { dtype: self.c.dtype()?, x: self.operand()? },
            "select" => {
                let gate = self.scope.gate(&mut self.c, &mut self.graph.ints)?;
                self.c.expect("?")?;
                let a = self.operand()?;
                self.c.expect(":")?;
                let b = self.operand_like(a)?;
                return Ok(self.graph.select(&gate, a, b));
            }
            _ => {
                let op = self.c.known("the operation of a reduction", reduce_op)?;
                let order = self.c.known("`sequential`, `tree` or `any`", sum_order)?;
                let fused = self.c.accept_word("fused");
                let ranges = self.c.list(|c| self.scope.range(c))?.into();
                Val::Reduce { op, ranges, order, fused, x: self.operand()? }
            }
        };
        Ok(self.graph.add(val))
    }

    fn load(&mut self) -> Result<ValId, ParseError> {
        let place = self.c.place();
        let (name, quoted) = self.c.name("the name of a buffer or table")?;
        let table = self.tables.get(&name).filter(|_| !quoted).map(|&t| Source::Table(t));
        let Some(src) = table.or_else(|| self.buffers.get(&name).map(|&b| Source::Buffer(b))) else {
            return Err(self.c.error_at(place, format!("`{name}`"), "a buffer or table declared before"));
        };
        let rank = match src {
            Source::Buffer(b) => self.graph.buffer(b).shape.len(),
            Source::Table(t) => self.graph.table(t).shape.len(),
        };
        let place = self.c.place();
        let index = self.scope.list(&mut self.c, &mut self.graph.ints)?;
        if index.len() != rank {
            let found = format!("{} indices", index.len());
            return Err(self.c.error_at(place, found, format!("{rank}, one for each axis of `{name}`")));
        }
        let mut dynamic = None;
        if self.c.accept_word("dynamic") {
            let place = self.c.place();
            let axis = self.c.natural(MAX_RANK, "an axis")?;
            if axis >= rank {
                return Err(self.c.error_at(place, format!("axis {axis}"), format!("one of {rank}")));
            }
            self.c.expect("=")?;
            dynamic = Some((axis as u32, self.operand()?));
        }
        let (gate, fill) = if self.c.accept_word("if") {
            let gate = self.scope.gate(&mut self.c, &mut self.graph.ints)?;
            self.c.expect_word("else")?;
            let place = self.c.place();
            let (fill, dtype) = (self.c.scalar()?, self.graph.source_dtype(src));
            if fill.dtype() != dtype {
                return Err(self.c.error_at(place, format!("`{fill}`"), format!("a value of {dtype}")));
            }
            (gate, fill)
        } else {
            (Vec::new(), Scalar::zero(self.graph.source_dtype(src)))
        };
        match self.graph.ints.conjunction(&gate) {
            None => Ok(self.graph.constant(fill)),
            Some(gate) => Ok(self.graph.add(Val::Load { src, index: index.into(), gate, fill, dynamic })),
        }
    }
}
