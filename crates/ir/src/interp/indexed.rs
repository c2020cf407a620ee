//! Interprets an indexed graph: every definition in order, each value in the innermost loop that it depends on.
//!
//! A definition that sits under ranges is computed anew, as a whole, wherever those ranges change and it is read.
//! Loads are made whether a `Where` or `Select` needs them or not: each must be in bounds under its own gate.

use super::emit::Emitter;
use super::machine::{AxisIndex, DynamicIndex, Lin, Mem, Op, Place};
use super::{InterpError, MAX_BYTES, Value, check_params, element_count, malformed};
use crate::indexed::{BufId, Def, Graph, Origin, Source, Val, ValId};
use crate::int::{IntId, RangeId};
use crate::verify::sits_under::SitsUnder;
use crate::{BinaryOp, DType, ReduceOp, SumOrder};
use rustc_hash::{FxHashMap, FxHashSet};

/// Computes the graph's outputs, by slot, from its inputs (arguments and constants), by slot.
///
/// Sums run sequentially, ranges outermost first and from the identity, but for those that ask for a tree. Half
/// floats accumulate in `f32` and round at the end.
///
/// # Errors
/// A malformed graph, inputs or parameters that do not fit it, an index out of bounds where its gate holds.
pub fn run(graph: &Graph, inputs: &[Value], params: &[i64]) -> Result<Vec<Value>, InterpError> {
    let buffers = run_buffers(graph, inputs, params)?;
    let mut outputs: Vec<(usize, Value)> = Vec::new();
    for (buffer, value) in graph.buffers.iter().zip(buffers) {
        if let (Origin::Output(slot), Some(value)) = (buffer.origin, value) {
            outputs.push((slot, value));
        }
    }
    outputs.sort_by_key(|o| o.0);
    match outputs.iter().enumerate().find(|(i, o)| *i != o.0) {
        Some((slot, _)) => Err(malformed("outputs", format!("output {slot} is defined other than once"))),
        None => Ok(outputs.into_iter().map(|o| o.1).collect()),
    }
}

/// As [`run`], but gives the contents of every buffer by id: `None` for those that have no definition and are no
/// input, and for those that sit under ranges and so have no single value.
///
/// # Errors
/// As for [`run`].
pub fn run_buffers(graph: &Graph, inputs: &[Value], params: &[i64]) -> Result<Vec<Option<Value>>, InterpError> {
    check_params(&graph.ints, params)?;
    if let Some(def) = graph.defs.iter().find(|d| d.value.0 as usize >= graph.val_count()) {
        return Err(malformed("definitions", format!("{:?} does not exist", def.value)));
    }
    let mut c = Compiler {
        g: graph,
        e: Emitter::new("graph", &graph.ints, params),
        under: SitsUnder::new(graph),
        frames: vec![Frame::default()],
        shapes: Vec::new(),
        ready: vec![false; graph.buffers.len()],
        depth: 0,
    };
    c.memories(inputs)?;
    for def in &graph.defs {
        if c.ready.get(def.buffer.0 as usize) != Some(&false) {
            return Err(malformed("definitions", format!("{:?} is unknown or has a value already", def.buffer)));
        }
        if c.under.def(def.buffer).is_empty() {
            c.def(def, 0)?;
        } else if matches!(graph.buffer(def.buffer).origin, Origin::Output(_)) {
            return Err(malformed(&graph.buffer(def.buffer).name, "an output sits under ranges"));
        }
        c.ready[def.buffer.0 as usize] = true;
    }
    let ops = c.e.close();
    c.e.machine.run(&ops)?;
    let mut out = Vec::with_capacity(graph.buffers.len());
    for (i, b) in graph.buffers.iter().enumerate() {
        let whole = c.ready[i] && c.under.def(BufId(i as u32)).is_empty();
        out.push(whole.then(|| Value::from_bytes(b.dtype, &c.shapes[i], &c.e.machine.mems[i].bytes)));
    }
    Ok(out)
}

/// Deepest nesting of reductions and stages.
const MAX_DEPTH: usize = 64;

/// What is computed already in a frame of the emitter.
#[derive(Default)]
struct Frame {
    vals: FxHashMap<ValId, u32>,
    stages: FxHashSet<BufId>,
}

struct Compiler<'a> {
    g: &'a Graph,
    e: Emitter,
    under: SitsUnder,
    frames: Vec<Frame>,
    /// Sizes of buffers, then of tables.
    shapes: Vec<Vec<usize>>,
    ready: Vec<bool>,
    depth: usize,
}

impl Compiler<'_> {
    fn memories(&mut self, inputs: &[Value]) -> Result<(), InterpError> {
        for (i, b) in self.g.buffers.iter().enumerate() {
            let mut shape = Vec::with_capacity(b.shape.len());
            for &s in &b.shape {
                let size = self.e.known(s)?;
                shape.push(usize::try_from(size).map_err(|_| malformed(&b.name, format!("has a size of {size}")))?);
            }
            let bytes = element_count(&shape).and_then(|n| n.checked_mul(b.dtype.size())).filter(|&n| n <= MAX_BYTES);
            let bytes = bytes.ok_or_else(|| malformed(&b.name, format!("shape {shape:?} is too large")))?;
            let mut mem = Mem { name: b.name.clone(), dtype: b.dtype, bytes: Vec::new() };
            match b.origin {
                Origin::Argument(slot) | Origin::Constant(slot) => {
                    let what = format!("input {slot} (`{}`)", b.name);
                    let value = inputs.get(slot).ok_or_else(|| malformed(&what, "is missing"))?;
                    value.check(&what)?;
                    if value.dtype != b.dtype || value.shape != shape {
                        let found = format!("is {}{:?}, not {}{shape:?}", value.dtype, value.shape, b.dtype);
                        return Err(malformed(&what, found));
                    }
                    mem.bytes = value.to_bytes();
                    self.ready[i] = true;
                }
                Origin::Output(_) | Origin::Internal => {
                    mem.bytes = vec![0; bytes];
                    mem.poison();
                }
            }
            self.shapes.push(shape);
            self.e.machine.mems.push(mem);
        }
        for (i, t) in self.g.tables.iter().enumerate() {
            let value = Value { dtype: t.dtype, shape: t.shape.clone(), data: t.values.clone() };
            let name = format!("table {i}");
            value.check(&name)?;
            self.e.machine.mems.push(Mem { name, dtype: t.dtype, bytes: value.to_bytes() });
            self.shapes.push(t.shape.clone());
        }
        Ok(())
    }

    fn open(&mut self, ranges: &[RangeId]) -> Result<Vec<(u32, u32)>, InterpError> {
        let mut loops = Vec::with_capacity(ranges.len());
        for &r in ranges {
            if r.0 as usize >= self.e.ints.range_count() {
                return Err(malformed(self.e.name(), format!("range {} does not exist", r.0)));
            }
            let size = self.e.ints.size(r);
            let size = self.e.known(size)?;
            let size = self.e.constant(size);
            loops.push((self.e.open_loop(r), size));
            self.frames.push(Frame::default());
        }
        Ok(loops)
    }

    /// Closes the loops that `open` gave; the outermost goes to the frame at `depth`.
    fn close(&mut self, loops: &[(u32, u32)], depth: usize) {
        for (i, &(var, size)) in loops.iter().enumerate().rev() {
            let body = self.e.close();
            self.frames.pop();
            let op = Op::Loop { var, size, poison: Box::new([]), body };
            if i == 0 { self.e.push_at(depth, op) } else { self.e.push(op) }
        }
    }

    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, InterpError>) -> Result<T, InterpError> {
        if self.depth >= MAX_DEPTH {
            return Err(malformed(self.e.name(), format!("reductions nest deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    /// Computes a whole buffer in the frame at `depth`.
    fn def(&mut self, def: &Def, depth: usize) -> Result<(), InterpError> {
        let mem = def.buffer.0;
        let buffer = self.g.buffer(def.buffer);
        if self.g.dtype(def.value) != buffer.dtype {
            return Err(malformed(&buffer.name, format!("is {} but defined as other", buffer.dtype)));
        }
        let loops = self.open(&def.axes)?;
        let src = self.val(def.value)?;
        let mut index = Vec::with_capacity(def.axes.len());
        for &r in &def.axes {
            index.push(self.e.ints.range(r));
        }
        let axes = self.axes(mem, &index)?;
        let place = Place { mem, addr: Lin { base: 0, step: 0 }, axes, gate: Box::new([]), dynamic: None, site: 0 };
        let op = Op::Store { src, lanes: 1, place: Box::new(place) };
        if loops.is_empty() {
            self.e.push_at(depth, op)
        } else {
            self.e.push(op)
        }
        self.close(&loops, depth);
        Ok(())
    }

    fn axes(&mut self, mem: u32, index: &[IntId]) -> Result<Box<[AxisIndex]>, InterpError> {
        let shape = self.shapes.get(mem as usize).cloned().unwrap_or_default();
        if index.len() != shape.len() {
            let name = &self.e.machine.mems[mem as usize].name;
            return Err(malformed(name, format!("{} indices for {} axes", index.len(), shape.len())));
        }
        let mut axes = Vec::with_capacity(shape.len());
        let mut stride = 1i64;
        for (&i, &size) in index.iter().zip(&shape).rev() {
            axes.push(AxisIndex { index: Lin { base: self.e.int(i)?, step: 0 }, size: size as i64, stride });
            stride = stride.saturating_mul(size as i64);
        }
        axes.reverse();
        Ok(axes.into())
    }

    fn depth_of(&self, v: ValId) -> Result<usize, InterpError> {
        self.e.depth_of(self.under.val(v))
    }

    fn done(&self, v: ValId) -> Result<Option<u32>, InterpError> {
        Ok(self.frames[self.depth_of(v)?].vals.get(&v).copied())
    }

    /// The register of a value that is computed already.
    fn get(&self, v: ValId) -> Result<u32, InterpError> {
        self.done(v)?.ok_or_else(|| malformed(self.e.name(), format!("{v:?} is not computed")))
    }

    /// Computes a value and all that it is made of. Recurses at reductions and stages alone.
    fn val(&mut self, root: ValId) -> Result<u32, InterpError> {
        let mut stack = vec![(root, false)];
        while let Some((v, operands_done)) = stack.pop() {
            if self.done(v)?.is_some() {
                continue;
            }
            if operands_done {
                let depth = self.depth_of(v)?;
                let dst = self.emit(v, depth)?;
                self.frames[depth].vals.insert(v, dst);
            } else {
                stack.push((v, true));
                if !matches!(self.g.val(v), Val::Reduce { .. }) {
                    stack.extend(self.g.operands(v).map(|c| (c, false)));
                }
            }
        }
        self.get(root)
    }

    fn emit(&mut self, v: ValId, depth: usize) -> Result<u32, InterpError> {
        let dst = self.e.regs(1);
        let dtype = self.g.dtype(v);
        let lanes = 1;
        let op = match self.g.val(v) {
            Val::Const(s) => Op::Const { dst, bits: s.bits() },
            Val::Index { value, dtype } => {
                Op::Index { dst, lanes, value: Lin { base: self.e.int(*value)?, step: 0 }, dtype: *dtype }
            }
            Val::Load { src, index, gate, fill, dynamic } => {
                let place = self.place(*src, index, gate, *dynamic)?;
                Op::Load { dst, lanes, place: Box::new(place), fill: fill.bits() }
            }
            Val::Unary { op, x } => Op::Unary { op: *op, dtype, dst, x: self.get(*x)?, lanes },
            Val::Binary { op, a, b } => {
                let dtype = self.g.dtype(*a);
                Op::Binary { op: *op, dtype, dst, a: self.get(*a)?, b: self.get(*b)?, lanes }
            }
            Val::Fma { a, b, c } => Op::Fma { dtype, dst, a: self.get(*a)?, b: self.get(*b)?, c: self.get(*c)?, lanes },
            Val::Where { cond, a, b } => {
                Op::Where { dst, cond: self.get(*cond)?, a: self.get(*a)?, b: self.get(*b)?, lanes }
            }
            Val::Select { gate, a, b } => {
                Op::Select { dst, gate: self.gate(gate)?, a: self.get(*a)?, b: self.get(*b)?, lanes }
            }
            Val::Cast { x, dtype } => Op::Cast { from: self.g.dtype(*x), to: *dtype, dst, x: self.get(*x)?, lanes },
            Val::Bitcast { x, dtype } => Op::Bitcast { to: *dtype, dst, x: self.get(*x)?, lanes },
            Val::Reduce { op, ranges, order, fused, x } => {
                let how = (*op, *order, *fused);
                return self.nested(|c| c.reduce(how, ranges, *x, depth));
            }
        };
        self.e.push_at(depth, op);
        Ok(dst)
    }

    fn gate(&mut self, gate: &[IntId]) -> Result<Box<[Lin]>, InterpError> {
        gate.iter().map(|&g| Ok(Lin { base: self.e.int(g)?, step: 0 })).collect()
    }

    fn place(
        &mut self,
        src: Source,
        index: &[IntId],
        gate: &[IntId],
        dynamic: Option<(u32, ValId)>,
    ) -> Result<Place, InterpError> {
        let mem = match src {
            Source::Buffer(b) => {
                if self.ready.get(b.0 as usize) != Some(&true) {
                    return Err(malformed(self.e.name(), format!("{b:?} is read before its definition")));
                }
                self.stage(b)?;
                b.0
            }
            Source::Table(t) => self.g.buffers.len() as u32 + t.0,
        };
        let axes = self.axes(mem, index)?;
        let gate = self.gate(gate)?;
        let dynamic = match dynamic {
            None => None,
            Some((axis, v)) => {
                let Some(a) = axes.get(axis as usize) else {
                    return Err(malformed(self.e.name(), format!("dynamic axis {axis} does not exist")));
                };
                let (size, stride) = (self.e.constant(a.size), self.e.constant(a.stride));
                Some(DynamicIndex { reg: self.get(v)?, dtype: self.g.dtype(v), size, stride })
            }
        };
        Ok(Place { mem, addr: Lin { base: 0, step: 0 }, axes, gate, dynamic, site: 0 })
    }

    /// Makes sure that a definition that sits under ranges is computed for their current values.
    fn stage(&mut self, b: BufId) -> Result<(), InterpError> {
        if self.under.def(b).is_empty() {
            return Ok(());
        }
        let depth = self.e.depth_of(self.under.def(b))?;
        if !self.frames[depth].stages.insert(b) {
            return Ok(());
        }
        let g = self.g;
        match g.def_of(b) {
            Some(def) => self.nested(|c| c.def(def, depth)),
            None => Ok(()),
        }
    }

    fn reduce(
        &mut self,
        (op, order, fused): (ReduceOp, SumOrder, bool),
        ranges: &[RangeId],
        x: ValId,
        depth: usize,
    ) -> Result<u32, InterpError> {
        let of = self.g.dtype(x);
        let dtype = of.compute();
        let acc = self.e.regs(1);
        let list = self.e.machine.lists.len() as u32;
        let tree = order == SumOrder::Tree;
        if tree {
            self.e.machine.lists.push(Vec::new());
            self.e.push_at(depth, Op::ListClear { list });
        } else {
            self.e.push_at(depth, Op::Const { dst: acc, bits: op.identity(dtype).bits() });
        }
        let loops = self.open(ranges)?;
        let at = if loops.is_empty() { depth } else { self.frames.len() - 1 };
        match self.g.val(x) {
            Val::Binary { op: BinaryOp::Mul, a, b } if fused && op == ReduceOp::Add && !tree => {
                let (a, b) = (self.val(*a)?, self.val(*b)?);
                let (a, b) = (self.widen(a, of, at), self.widen(b, of, at));
                self.e.push_at(at, Op::Fma { dtype, dst: acc, a, b, c: acc, lanes: 1 });
            }
            _ => {
                let x = self.val(x)?;
                let x = self.widen(x, of, at);
                self.e.push_at(
                    at,
                    if tree {
                        Op::ListPush { list, x }
                    } else {
                        Op::Binary { op: op.combine(), dtype, dst: acc, a: acc, b: x, lanes: 1 }
                    },
                );
            }
        }
        self.close(&loops, depth);
        if tree {
            self.e.push_at(depth, Op::ListTree { list, dst: acc, op, dtype });
        }
        if of == dtype {
            return Ok(acc);
        }
        let dst = self.e.regs(1);
        self.e.push_at(depth, Op::Cast { from: dtype, to: of, dst, x: acc, lanes: 1 });
        Ok(dst)
    }

    /// A register in the type that its dtype computes in.
    fn widen(&mut self, x: u32, of: DType, depth: usize) -> u32 {
        let to = of.compute();
        if to == of {
            return x;
        }
        let dst = self.e.regs(1);
        self.e.push_at(depth, Op::Cast { from: of, to, dst, x, lanes: 1 });
        dst
    }
}
