//! Parser of the tensor level.

use super::cursor::{Cursor, MAX_RANK, MAX_SLOT};
use super::ints::Scope;
use super::lexer::{ParseError, Tok};
use super::names::Names;
use super::tensor_print::input_kind_name;
use crate::dtype::DType;
use crate::int::IntId;
use crate::op::{BinaryOp, ReduceOp, SumOrder, UnaryOp};
use crate::rule::{Algorithm, AxisTile, Tolerance, WindowRule};
use crate::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use rustc_hash::FxHashMap;

/// Largest tile that the text form knows; which tiles there are is the rewrite's to say.
const MAX_TILE: usize = 1 << 16;

/// Parses a tensor graph.
///
/// What the arena cannot hold is refused: unknown operands, axes out of range, lists that do not fit a rank. Whether
/// shapes and dtypes of operands fit each other is the verifier's to say.
pub fn parse_tensor(text: &str) -> Result<TensorGraph, ParseError> {
    let mut p = Parser {
        c: Cursor::new(text)?,
        scope: Scope::default(),
        graph: TensorGraph::new(),
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
    graph: TensorGraph,
    values: FxHashMap<usize, NodeId>,
}

type Type = (DType, Vec<IntId>);

impl Parser<'_> {
    fn line(&mut self) -> Result<(), ParseError> {
        if self.c.accept_word("param") {
            self.scope.param(&mut self.c, &mut self.graph.ints)
        } else if self.c.accept_word("inputs") {
            let kinds = self.c.items(|c| {
                c.known("`argument` or `constant`", |w| {
                    [InputKind::Argument, InputKind::Constant].into_iter().find(|k| input_kind_name(*k) == w)
                })
            })?;
            self.graph.inputs = kinds;
            Ok(())
        } else if self.c.accept_word("output") {
            loop {
                let value = self.value()?;
                self.graph.outputs.push(value);
                if !self.c.accept(",") {
                    return Ok(());
                }
            }
        } else if self.c.is_sign("%") {
            let place = self.c.place();
            let number = self.c.value_number()?;
            if self.values.contains_key(&number) {
                return Err(self.c.error_at(place, format!("`%{number}` again"), "another number"));
            }
            self.c.expect("=")?;
            let node = self.node()?;
            self.values.insert(number, node);
            Ok(())
        } else {
            Err(self.c.error("`param`, `inputs`, `output` or `%`"))
        }
    }

    fn value(&mut self) -> Result<NodeId, ParseError> {
        let place = self.c.place();
        let number = self.c.value_number()?;
        let known = self.values.get(&number).copied();
        known.ok_or_else(|| self.c.error_at(place, format!("`%{number}`"), "a value declared before"))
    }

    fn rank(&self, x: NodeId) -> usize {
        self.graph.node(x).shape.len()
    }

    fn axis(&mut self, rank: usize) -> Result<usize, ParseError> {
        let place = self.c.place();
        let axis = self.c.natural(MAX_RANK, "an axis")?;
        if axis < rank {
            Ok(axis)
        } else {
            Err(self.c.error_at(place, format!("axis {axis}"), format!("one of {rank}")))
        }
    }

    fn word_axis(&mut self, rank: usize) -> Result<usize, ParseError> {
        self.c.expect_word("axis")?;
        self.axis(rank)
    }

    fn per_axis(&mut self, word: &str, rank: usize) -> Result<Vec<IntId>, ParseError> {
        self.c.expect_word(word)?;
        let place = self.c.place();
        let list = self.scope.list(&mut self.c, &mut self.graph.ints)?;
        self.fits(place, list, rank)
    }

    fn fits<T>(&self, place: usize, list: Vec<T>, rank: usize) -> Result<Vec<T>, ParseError> {
        if list.len() == rank {
            return Ok(list);
        }
        Err(self.c.error_at(place, format!("a list of {}", list.len()), format!("one entry for each of {rank} axes")))
    }

    /// `: f32[1, 16]`.
    fn type_(&mut self) -> Result<Type, ParseError> {
        self.c.expect(":")?;
        self.scope.tensor_type(&mut self.c, &mut self.graph.ints)
    }

    fn node(&mut self) -> Result<NodeId, ParseError> {
        let start = self.c.place();
        let (op, mut given) = self.op()?;
        let place = self.c.place();
        if given.is_none() && self.c.is_sign(":") {
            given = Some(self.type_()?);
        }
        let id = self.graph.add(op);
        self.scope.check(&self.c, &self.graph.ints)?;
        let node = self.graph.node(id);
        if node.shape.len() > MAX_RANK {
            return Err(self.c.error_at(start, "a result of many axes", format!("at most {MAX_RANK}")));
        }
        match given {
            Some((dtype, shape)) if dtype != node.dtype || shape != node.shape => {
                let names = Names::new(&self.graph.ints);
                let found = format!("{dtype}{}", names.list(&shape));
                Err(self.c.error_at(place, found, format!("{}{}", node.dtype, names.list(&node.shape))))
            }
            _ => Ok(id),
        }
    }

    /// An operation, and its type where that had to be read.
    fn op(&mut self) -> Result<(TensorOp<NodeId>, Option<Type>), ParseError> {
        let word = match *self.c.peek() {
            Tok::Word(w) => w,
            _ => return Err(self.c.error("an operation")),
        };
        if let Some(op) = UnaryOp::ALL.into_iter().find(|o| o.name() == word) {
            self.c.advance();
            return Ok((TensorOp::Unary { op, x: self.value()? }, None));
        }
        if let Some(op) = BinaryOp::ALL.into_iter().find(|o| o.name() == word) {
            self.c.advance();
            let a = self.value()?;
            self.c.expect(",")?;
            return Ok((TensorOp::Binary { op, a, b: self.value()? }, None));
        }
        match word {
            "input" | "full" | "table" | "iota" => self.source(word),
            "cast" | "reshape" | "expand" => {
                self.c.advance();
                let x = self.value()?;
                let (dtype, shape) = self.type_()?;
                let op = match word {
                    "cast" => TensorOp::Cast { x, dtype },
                    "reshape" => TensorOp::Reshape { x, shape: shape.clone() },
                    _ => TensorOp::Expand { x, shape: shape.clone() },
                };
                Ok((op, Some((dtype, shape))))
            }
            "permute" | "pad" | "slice" | "unfold" => self.movement(word).map(|op| (op, None)),
            "where" | "cat" | "gather" | "reduce" | "contiguous" => self.other(word).map(|op| (op, None)),
            _ => Err(self.c.error("an operation")),
        }
    }

    fn source(&mut self, word: &str) -> Result<(TensorOp<NodeId>, Option<Type>), ParseError> {
        self.c.advance();
        match word {
            "input" => {
                let slot = self.c.natural(MAX_SLOT, "a slot")?;
                let (dtype, shape) = self.type_()?;
                Ok((TensorOp::Input { slot, dtype, shape: shape.clone() }, Some((dtype, shape))))
            }
            "full" => {
                let value = self.c.scalar()?;
                let (dtype, shape) = self.type_()?;
                Ok((TensorOp::Full { value, shape: shape.clone() }, Some((dtype, shape))))
            }
            "iota" => {
                self.c.expect_word("axis")?;
                let place = self.c.place();
                let axis = self.c.natural(MAX_RANK, "an axis")?;
                let (dtype, shape) = self.type_()?;
                if axis >= shape.len() {
                    let expected = format!("one of {}", shape.len());
                    return Err(self.c.error_at(place, format!("axis {axis}"), expected));
                }
                Ok((TensorOp::Iota { dtype, shape: shape.clone(), axis }, Some((dtype, shape))))
            }
            _ => {
                let dtype = self.c.dtype()?;
                let (shape, count) = self.c.const_shape()?;
                let values = self.c.elements(dtype, count)?;
                Ok((TensorOp::Table { values, dtype, shape }, None))
            }
        }
    }

    fn movement(&mut self, word: &str) -> Result<TensorOp<NodeId>, ParseError> {
        self.c.advance();
        let x = self.value()?;
        let rank = self.rank(x);
        Ok(match word {
            "permute" => {
                let place = self.c.place();
                let order = self.c.list(|c| c.natural(MAX_RANK, "an axis"))?;
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..rank) {
                    return Err(self.c.error_at(place, "this order", format!("a permutation of {rank} axes")));
                }
                TensorOp::Permute { x, order }
            }
            "pad" => {
                let before = self.per_axis("before", rank)?;
                let after = self.per_axis("after", rank)?;
                self.c.expect_word("value")?;
                TensorOp::Pad { x, before, after, value: self.c.scalar()? }
            }
            "slice" => {
                let start = self.per_axis("start", rank)?;
                self.c.expect_word("step")?;
                let place = self.c.place();
                let step = self.c.list(|c| c.integer())?;
                let step = self.fits(place, step, rank)?;
                TensorOp::Slice { x, start, step, size: self.per_axis("size", rank)? }
            }
            _ => {
                let axis = self.word_axis(rank)?;
                let mut at_least_one = |word: &str| {
                    self.c.expect_word(word)?;
                    let place = self.c.place();
                    match self.c.const_size()? {
                        0 => Err(self.c.error_at(place, "`0`", "a positive number")),
                        n => Ok(n),
                    }
                };
                let size = at_least_one("size")?;
                let stride = at_least_one("stride")?;
                TensorOp::Unfold { x, axis, size, stride, dilation: at_least_one("dilation")? }
            }
        })
    }

    fn other(&mut self, word: &str) -> Result<TensorOp<NodeId>, ParseError> {
        self.c.advance();
        Ok(match word {
            "where" => {
                let cond = self.value()?;
                self.c.expect(",")?;
                let a = self.value()?;
                self.c.expect(",")?;
                TensorOp::Where { cond, a, b: self.value()? }
            }
            "cat" => {
                self.c.expect_word("axis")?;
                let place = self.c.place();
                let axis = self.c.natural(MAX_RANK, "an axis")?;
                let mut parts = vec![self.value()?];
                let rank = self.rank(parts[0]);
                if axis >= rank {
                    return Err(self.c.error_at(place, format!("axis {axis}"), format!("one of {rank}")));
                }
                while self.c.accept(",") {
                    let place = self.c.place();
                    let part = self.value()?;
                    if self.rank(part) != rank {
                        let found = format!("a part of {} axes", self.rank(part));
                        return Err(self.c.error_at(place, found, format!("{rank} axes")));
                    }
                    parts.push(part);
                }
                TensorOp::Cat { parts, axis }
            }
            "gather" => {
                let x = self.value()?;
                self.c.expect(",")?;
                let place = self.c.place();
                let index = self.value()?;
                let rank = self.rank(x);
                if self.rank(index) != rank {
                    let found = format!("an index of {} axes", self.rank(index));
                    return Err(self.c.error_at(place, found, format!("{rank} axes")));
                }
                TensorOp::Gather { x, axis: self.word_axis(rank)?, index }
            }
            "reduce" => {
                let op = self.c.known("the operation of a reduction", reduce_op)?;
                let order = self.c.known("`sequential`, `tree` or `any`", sum_order)?;
                let fused = self.c.accept_word("fused");
                let place = self.c.place();
                let axes = self.c.list(|c| c.natural(MAX_RANK, "an axis"))?;
                let x = self.value()?;
                let rank = self.rank(x);
                if !axes.is_sorted_by(|a, b| a < b) || axes.last().is_some_and(|&a| a >= rank) {
                    return Err(self.c.error_at(place, "these axes", format!("some of {rank} axes, in order")));
                }
                let rule = self.c.accept_word("rule").then(|| self.rule().map(Box::new)).transpose()?;
                TensorOp::Reduce { op, x, axes, order, fused, rule }
            }
            _ => TensorOp::Contiguous { x: self.value()? },
        })
    }

    /// What is asked of a window: the words behind `rule`, each of which may be missing.
    fn rule(&mut self) -> Result<WindowRule, ParseError> {
        let mut rule = WindowRule::default();
        if self.c.accept_word("algorithm") {
            let known = |word: &str| Algorithm::ALL.into_iter().find(|a| a.name() == word);
            rule.algorithm = Some(self.c.known("`auto`, `direct` or `winograd`", known)?);
        }
        if self.c.accept_word("tile") {
            rule.tile = self.c.list(axis_tile)?;
        }
        if self.c.accept_word("tolerance") {
            let place = self.c.place();
            let times = self.c.scalar()?.to_f64();
            let wrong = |e| self.c.error_at(place, format!("{e}"), "a tolerance");
            rule.tolerance = Some(Tolerance::new(times).map_err(wrong)?);
        }
        rule.exact_nonfinite = self.c.accept_word("exact_nonfinite");
        Ok(rule)
    }
}

/// The tile of an axis: a size, or several with `+` between them.
fn axis_tile(c: &mut Cursor<'_>) -> Result<AxisTile, ParseError> {
    let place = c.place();
    let mut sizes = vec![c.natural(MAX_TILE, "a tile")?];
    while sizes.len() <= AxisTile::MOST && c.accept("+") {
        sizes.push(c.natural(MAX_TILE, "a tile")?);
    }
    let wrong = || c.error_at(place, "so many tiles", format!("at most {} of an axis", AxisTile::MOST));
    AxisTile::of(&sizes).ok_or_else(wrong)
}

pub(super) fn reduce_op(word: &str) -> Option<ReduceOp> {
    ReduceOp::ALL.into_iter().find(|o| o.name() == word)
}

pub(super) fn sum_order(word: &str) -> Option<SumOrder> {
    SumOrder::ALL.into_iter().find(|o| o.name() == word)
}
