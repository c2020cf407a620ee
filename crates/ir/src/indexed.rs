//! The indexed graph: values over loop ranges.
//!
//! Movement operations have become index arithmetic; a tensor is a [`Buffer`], and a [`Def`] says what each of its
//! elements is: `for all axes: buffer[axes] = value`. A value may read other buffers, whose definitions are
//! *stages* until scheduling decides where they live.
//!
//! Values are interned; dtype and free ranges are computed when a node is made. Ids carry no meaning.

use crate::dtype::{DType, Scalar};
use crate::int::{IntId, Ints, RangeId};
use crate::op::{BinaryOp, ReduceOp, SumOrder, UnaryOp, apply_fma};
use rustc_hash::FxHashMap;

/// A value in a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValId(pub u32);

/// A buffer of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufId(pub u32);

/// A constant table of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// What a load reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A buffer.
    Buffer(BufId),
    /// A constant table.
    Table(TableId),
}

/// A conjunction of conditions `e >= 0` in the canonical form of [`Ints::conjunction`]; empty means "always".
pub type Gate = Box<[IntId]>;

/// An operation on scalars; it may depend on ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Val {
    /// A constant.
    Const(Scalar),
    /// An integer expression as a value of an integer or float dtype.
    Index {
        /// The expression.
        value: IntId,
        /// Dtype of the value.
        dtype: DType,
    },
    /// An element of a buffer or table, or `fill` where the gate does not hold.
    Load {
        /// What is read.
        src: Source,
        /// One index per axis.
        index: Box<[IntId]>,
        /// When memory is read.
        gate: Gate,
        /// The value where it is not.
        fill: Scalar,
        /// An axis whose index is an integer value clamped into the axis; `index` holds 0 there.
        dynamic: Option<(u32, ValId)>,
    },
    /// An operation on one value.
    Unary {
        /// Operation.
        op: UnaryOp,
        /// Operand.
        x: ValId,
    },
    /// An operation on two values of one dtype.
    Binary {
        /// Operation.
        op: BinaryOp,
        /// First operand.
        a: ValId,
        /// Second operand.
        b: ValId,
    },
    /// `a * b + c`, rounded once.
    Fma {
        /// Factor.
        a: ValId,
        /// Factor.
        b: ValId,
        /// Addend.
        c: ValId,
    },
    /// `cond ? a : b`.
    Where {
        /// Condition, `bool`.
        cond: ValId,
        /// Value where it holds.
        a: ValId,
        /// Value where it does not.
        b: ValId,
    },
    /// Conversion, as [`Scalar::cast`].
    Cast {
        /// Operand.
        x: ValId,
        /// Dtype of the result.
        dtype: DType,
    },
    /// The same bits as another dtype of the same size.
    Bitcast {
        /// Operand.
        x: ValId,
        /// Dtype of the result.
        dtype: DType,
    },
    /// A choice by index: `a` where the gate holds, else `b`.
    Select {
        /// Condition on ranges.
        gate: Gate,
        /// Value where it holds.
        a: ValId,
        /// Value where it does not.
        b: ValId,
    },
    /// A reduction over ranges that it binds.
    Reduce {
        /// Operation.
        op: ReduceOp,
        /// Bound ranges, outermost first.
        ranges: Box<[RangeId]>,
        /// Permitted orders.
        order: SumOrder,
        /// Whether a product may be fused into the sum.
        fused: bool,
        /// The terms.
        x: ValId,
    },
}

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Registers of one thread.
    Register,
    /// One thread's cache-resident memory.
    Scratch,
    /// Memory of a workgroup, or of a kernel's threads on a CPU.
    Shared,
    /// Memory of the device; ends the kernel.
    Global,
}

/// Who owns a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Input number, another value at every run. The caller owns it; its layout is row-major.
    Argument(usize),
    /// Input number, the same value at every run. Row-major.
    Constant(usize),
    /// Output number. The caller owns it; its layout is row-major.
    Output(usize),
    /// The compiler's own; its layout is the compiler's to choose.
    Internal,
}

/// A factor of a buffer's axis in memory: `(index / div) % modulus * stride` elements, where no `modulus` means that
/// nothing is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayoutDim {
    /// The axis.
    pub axis: usize,
    /// Divisor of the index.
    pub div: i64,
    /// Number of values of this factor where a finer one follows outside of it.
    pub modulus: Option<i64>,
    /// Distance of neighbours in elements.
    pub stride: IntId,
}

/// A quasi-affine map from a buffer's axes to its memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Factors, slowest first.
    pub dims: Vec<LayoutDim>,
    /// Elements that the buffer takes, padding included.
    pub len: IntId,
}

impl Layout {
    /// The row-major layout of a shape.
    pub fn row_major(ints: &mut Ints, shape: &[IntId]) -> Layout {
        let mut stride = ints.constant(1);
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, &size) in shape.iter().enumerate().rev() {
            dims.push(LayoutDim { axis, div: 1, modulus: None, stride });
            stride = ints.mul(stride, size);
        }
        dims.reverse();
        Layout { dims, len: stride }
    }

    /// The flat element index of an access: the layout's image of one index per axis. A factor of an axis that
    /// `index` does not have counts as 0.
    pub fn flatten(&self, ints: &mut Ints, index: &[IntId]) -> IntId {
        let mut acc = ints.constant(0);
        for d in &self.dims {
            let Some(&i) = index.get(d.axis) else { continue };
            let mut i = ints.div_const(i, d.div);
            if let Some(m) = d.modulus {
                i = ints.rem_const(i, m);
            }
            let term = ints.mul(i, d.stride);
            acc = ints.add(acc, term);
        }
        acc
    }
}

/// A tensor in memory, or one that may come to be.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Name, unique in its graph, in the text form and in generated code.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Size per axis.
    pub shape: Vec<IntId>,
    /// Who owns it.
    pub origin: Origin,
    /// Where it lives.
    pub scope: Scope,
    /// How it lies in memory; `None` until `layout` has decided.
    pub layout: Option<Layout>,
}

/// What a definition computes, for people and figures alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// X̂ = Bᵀ·x.
    InputTransform,
    /// Ĝ = G·g.
    WeightTransform,
    /// M̂ = Σ X̂⊙Ĝ.
    Multiply,
    /// y = Aᵀ·M̂.
    OutputTransform,
    /// Several of these in one kernel.
    Fused,
    /// A sum of products in its direct form.
    Direct,
    /// Anything else.
    Other,
}

impl Role {
    /// Every role, in declaration order.
    pub const ALL: [Role; 7] = [
        Role::InputTransform,
        Role::WeightTransform,
        Role::Multiply,
        Role::OutputTransform,
        Role::Fused,
        Role::Direct,
        Role::Other,
    ];

    /// Name in the text form and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Role::InputTransform => "input_transform",
            Role::WeightTransform => "weight_transform",
            Role::Multiply => "multiply",
            Role::OutputTransform => "output_transform",
            Role::Fused => "fused",
            Role::Direct => "direct",
            Role::Other => "other",
        }
    }
}

/// What each element of a buffer is: `for all axes: buffer[axes] = value`. Ranges that the value uses beyond `axes`
/// (and beyond those its reductions bind) are the ones the definition sits under.
#[derive(Clone, Debug)]
pub struct Def {
    /// The buffer.
    pub buffer: BufId,
    /// One range per axis of the buffer.
    pub axes: Vec<RangeId>,
    /// The element at `axes`.
    pub value: ValId,
    /// Whether the buffer must exist: an output, or materialised by request.
    pub keep: bool,
    /// Whether the definition may be repeated under ranges that it does not use.
    pub repeat: bool,
    /// What it computes.
    pub role: Role,
}

/// A constant table, such as a transform matrix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Size per axis.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Elements in row-major order.
    pub values: Vec<Scalar>,
}

#[derive(Clone, Debug)]
struct Data {
    val: Val,
    dtype: DType,
    ranges: Box<[RangeId]>,
}

/// An interned graph of values with its integers, buffers, tables and definitions.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Index arithmetic.
    pub ints: Ints,
    vals: Vec<Data>,
    ids: FxHashMap<Val, ValId>,
    /// Buffers by id.
    pub buffers: Vec<Buffer>,
    /// Tables by id.
    pub tables: Vec<Table>,
    table_ids: FxHashMap<Table, TableId>,
    /// Definitions; each comes after those of the buffers it reads.
    pub defs: Vec<Def>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// The node behind an id.
    pub fn val(&self, id: ValId) -> &Val {
        &self.vals[id.0 as usize].val
    }

    /// Dtype of a value.
    pub fn dtype(&self, id: ValId) -> DType {
        self.vals[id.0 as usize].dtype
    }

    /// The ranges a value depends on and does not bind, sorted by id.
    pub fn free_ranges(&self, id: ValId) -> &[RangeId] {
        &self.vals[id.0 as usize].ranges
    }

    /// Whether a value depends on a range.
    pub fn depends_on(&self, id: ValId, range: RangeId) -> bool {
        self.vals[id.0 as usize].ranges.binary_search(&range).is_ok()
    }

    /// Number of values in the arena.
    pub fn val_count(&self) -> usize {
        self.vals.len()
    }

    /// One buffer.
    pub fn buffer(&self, id: BufId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// One table.
    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[id.0 as usize]
    }

    /// Adds a buffer.
    pub fn add_buffer(&mut self, buffer: Buffer) -> BufId {
        self.buffers.push(buffer);
        BufId(self.buffers.len() as u32 - 1)
    }

    /// Adds a table, or finds it.
    pub fn add_table(&mut self, table: Table) -> TableId {
        if let Some(&id) = self.table_ids.get(&table) {
            return id;
        }
        let id = TableId(self.tables.len() as u32);
        self.tables.push(table.clone());
        self.table_ids.insert(table, id);
        id
    }

    /// The definition of a buffer, if it has one.
    pub fn def_of(&self, buffer: BufId) -> Option<&Def> {
        self.defs.iter().find(|d| d.buffer == buffer)
    }

    /// The dtype of what a load reads.
    pub fn source_dtype(&self, src: Source) -> DType {
        match src {
            Source::Buffer(b) => self.buffer(b).dtype,
            Source::Table(t) => self.table(t).dtype,
        }
    }

    /// The values that a value reads directly.
    pub fn children(&self, id: ValId) -> Vec<ValId> {
        self.operands(id).collect()
    }

    /// The values that a value reads directly, in order.
    pub fn operands(&self, id: ValId) -> impl DoubleEndedIterator<Item = ValId> + use<> {
        let three = match *self.val(id) {
            Val::Const(_) | Val::Index { .. } => [None; 3],
            Val::Load { dynamic, .. } => [dynamic.map(|d| d.1), None, None],
            Val::Unary { x, .. } | Val::Cast { x, .. } | Val::Bitcast { x, .. } | Val::Reduce { x, .. } => {
                [Some(x), None, None]
            }
            Val::Binary { a, b, .. } | Val::Select { a, b, .. } => [Some(a), Some(b), None],
            Val::Fma { a, b, c } => [Some(a), Some(b), Some(c)],
            Val::Where { cond, a, b } => [Some(cond), Some(a), Some(b)],
        };
        three.into_iter().flatten()
    }

    /// All values that the given ones are made of, each once, operands first. Does not recurse.
    pub fn topological(&self, roots: &[ValId]) -> Vec<ValId> {
        let mut out = Vec::new();
        let mut seen = vec![false; self.vals.len()];
        let mut stack: Vec<(ValId, bool)> = roots.iter().rev().map(|&r| (r, false)).collect();
        while let Some((id, done)) = stack.pop() {
            if done {
                out.push(id);
            } else if !std::mem::replace(&mut seen[id.0 as usize], true) {
                stack.push((id, true));
                for c in self.operands(id).rev() {
                    if !seen[c.0 as usize] {
                        stack.push((c, false));
                    }
                }
            }
        }
        out
    }

    fn intern(&mut self, val: Val) -> ValId {
        if let Some(&id) = self.ids.get(&val) {
            return id;
        }
        let dtype = match &val {
            Val::Const(s) => s.dtype(),
            Val::Index { dtype, .. } | Val::Cast { dtype, .. } | Val::Bitcast { dtype, .. } => *dtype,
            Val::Load { src, .. } => self.source_dtype(*src),
            Val::Unary { x, .. } | Val::Reduce { x, .. } => self.dtype(*x),
            Val::Binary { op, a, .. } => op.result(self.dtype(*a)),
            Val::Fma { a, .. } | Val::Where { a, .. } | Val::Select { a, .. } => self.dtype(*a),
        };
        let mut ranges: Vec<RangeId> = Vec::new();
        match &val {
            Val::Index { value, .. } => ranges.extend(self.ints.free_ranges(*value)),
            Val::Load { index, gate, .. } => {
                for &e in index.iter().chain(gate.iter()) {
                    ranges.extend(self.ints.free_ranges(e));
                }
            }
            Val::Select { gate, .. } => {
                for &e in gate.iter() {
                    ranges.extend(self.ints.free_ranges(e));
                }
            }
            _ => {}
        }
        let id = ValId(self.vals.len() as u32);
        self.vals.push(Data { val: val.clone(), dtype, ranges: Box::new([]) });
        for c in self.operands(id) {
            ranges.extend(self.free_ranges(c));
        }
        if let Val::Reduce { ranges: bound, .. } = &val {
            ranges.retain(|r| !bound.contains(r));
        }
        ranges.sort_unstable();
        ranges.dedup();
        self.vals[id.0 as usize].ranges = ranges.into();
        self.ids.insert(val, id);
        id
    }

    /// Adds a value, or finds it: simplified where that changes no bit of any result.
    pub fn add(&mut self, val: Val) -> ValId {
        match &val {
            Val::Index { value, dtype } => {
                if let Some(c) = self.ints.as_const(*value) {
                    return self.constant(Scalar::from_i64(*dtype, c));
                }
            }
            Val::Load { src: Source::Table(t), index, gate, dynamic: None, .. } if gate.is_empty() => {
                let table = self.table(*t);
                let mut flat = 0usize;
                let mut known = true;
                for (&i, &size) in index.iter().zip(&table.shape) {
                    match self.ints.as_const(i) {
                        Some(c) if c >= 0 && (c as usize) < size => flat = flat * size + c as usize,
                        _ => known = false,
                    }
                }
                if let (Some(&s), true) = (table.values.get(flat), known && index.len() == table.shape.len()) {
                    return self.constant(s);
                }
            }
            Val::Unary { op, x } => {
                if let (Some(s), false) = (self.as_const(*x), op.is_transcendental()) {
                    return self.constant(op.apply(s));
                }
            }
            Val::Binary { op, a, b } => {
                let (op, a, b) = (*op, *a, *b);
                if let (Some(x), Some(y)) = (self.as_const(a), self.as_const(b))
                    && op != BinaryOp::Pow
                {
                    return self.constant(op.apply(x, y));
                }
                let one = |g: &Graph, v: ValId| g.as_const(v) == Some(Scalar::one(g.dtype(v)));
                match op {
                    BinaryOp::Mul if one(self, b) => return a,
                    BinaryOp::Mul if one(self, a) => return b,
                    BinaryOp::Div if one(self, b) => return a,
                    BinaryOp::Add if self.is_add_identity(b) => return a,
                    BinaryOp::Add if self.is_add_identity(a) => return b,
                    BinaryOp::Sub if self.as_const(b) == Some(Scalar::zero(self.dtype(b))) => return a,
                    _ => {}
                }
                if op.is_commutative() && b < a {
                    return self.intern(Val::Binary { op, a: b, b: a });
                }
            }
            Val::Fma { a, b, c } => {
                let (a, b, c) = (*a, *b, *c);
                if let (Some(x), Some(y), Some(z)) = (self.as_const(a), self.as_const(b), self.as_const(c)) {
                    return self.constant(apply_fma(x, y, z));
                }
                for (x, y) in [(a, b), (b, a)] {
                    if let Some(s) = self.as_const(x) {
                        let one = Scalar::one(s.dtype());
                        if s == one {
                            return self.binary(BinaryOp::Add, c, y);
                        }
                        if s == UnaryOp::Neg.apply(one) {
                            return self.binary(BinaryOp::Sub, c, y);
                        }
                    }
                }
                if b < a {
                    return self.intern(Val::Fma { a: b, b: a, c });
                }
            }
            Val::Where { cond, a, b } => {
                if let Some(s) = self.as_const(*cond) {
                    return if s.to_bool() { *a } else { *b };
                }
                if a == b {
                    return *a;
                }
            }
            Val::Cast { x, dtype } => {
                if self.dtype(*x) == *dtype {
                    return *x;
                }
                if let Some(s) = self.as_const(*x) {
                    return self.constant(s.cast(*dtype));
                }
            }
            Val::Bitcast { x, dtype } => {
                if self.dtype(*x) == *dtype {
                    return *x;
                }
                if let Some(s) = self.as_const(*x) {
                    return self.constant(Scalar::from_bits(*dtype, s.bits()));
                }
            }
            Val::Select { gate, a, b } if gate.is_empty() || a == b => return if gate.is_empty() { *a } else { *b },
            _ => {}
        }
        self.intern(val)
    }

    fn is_add_identity(&self, v: ValId) -> bool {
        self.as_const(v).is_some_and(|s| {
            let d = s.dtype();
            // x + 0.0 is not x for x = -0.0, but x + -0.0 is.
            if d.is_float() { s == Scalar::from_f64(d, -0.0) } else { s == Scalar::zero(d) }
        })
    }

    /// The value of a constant.
    pub fn as_const(&self, id: ValId) -> Option<Scalar> {
        match self.val(id) {
            Val::Const(s) => Some(*s),
            _ => None,
        }
    }

    /// A constant.
    pub fn constant(&mut self, s: Scalar) -> ValId {
        self.intern(Val::Const(s))
    }

    /// An elementwise operation on one value.
    pub fn unary(&mut self, op: UnaryOp, x: ValId) -> ValId {
        self.add(Val::Unary { op, x })
    }

    /// An elementwise operation on two values.
    pub fn binary(&mut self, op: BinaryOp, a: ValId, b: ValId) -> ValId {
        self.add(Val::Binary { op, a, b })
    }

    /// A load; where the gate can never hold, its fill value.
    pub fn load(&mut self, src: Source, index: &[IntId], gate: &[IntId], fill: Scalar) -> ValId {
        match self.ints.conjunction(gate) {
            None => self.constant(fill),
            Some(gate) => self.add(Val::Load { src, index: index.into(), gate, fill, dynamic: None }),
        }
    }

    /// A choice by index.
    pub fn select(&mut self, gate: &[IntId], a: ValId, b: ValId) -> ValId {
        match self.ints.conjunction(gate) {
            None => b,
            Some(gate) => self.add(Val::Select { gate, a, b }),
        }
    }

    /// Replaces ranges by expressions in a value; a range for which `f` gives `None` stays. Bound ranges are not
    /// to be replaced.
    pub fn substitute(&mut self, id: ValId, f: &dyn Fn(RangeId) -> Option<IntId>) -> ValId {
        let mut memo = FxHashMap::default();
        let mut ints = FxHashMap::default();
        self.rebuild(id, &mut memo, &mut |g, val| match val {
            Val::Index { value, dtype } => {
                let value = g.ints.substitute_memo(value, f, &mut ints);
                g.add(Val::Index { value, dtype })
            }
            Val::Load { src, index, gate, fill, dynamic } => {
                let index: Box<[IntId]> = index.iter().map(|&i| g.ints.substitute_memo(i, f, &mut ints)).collect();
                let gate: Vec<IntId> = gate.iter().map(|&i| g.ints.substitute_memo(i, f, &mut ints)).collect();
                match g.ints.conjunction(&gate) {
                    None => g.constant(fill),
                    Some(gate) => g.add(Val::Load { src, index, gate, fill, dynamic }),
                }
            }
            Val::Select { gate, a, b } => {
                let gate: Vec<IntId> = gate.iter().map(|&i| g.ints.substitute_memo(i, f, &mut ints)).collect();
                g.select(&gate, a, b)
            }
            other => g.add(other),
        })
    }

    /// Rebuilds a value bottom-up: `f` sees each node with its operands already rebuilt. `memo` may be shared by
    /// calls with the same `f`.
    pub fn rebuild(
        &mut self,
        id: ValId,
        memo: &mut FxHashMap<ValId, ValId>,
        f: &mut dyn FnMut(&mut Graph, Val) -> ValId,
    ) -> ValId {
        for v in self.topological(&[id]) {
            if memo.contains_key(&v) {
                continue;
            }
            let mut val = self.val(v).clone();
            match &mut val {
                Val::Const(_) | Val::Index { .. } => {}
                Val::Load { dynamic, .. } => {
                    if let Some((_, d)) = dynamic {
                        *d = memo[d];
                    }
                }
                Val::Unary { x, .. } | Val::Cast { x, .. } | Val::Bitcast { x, .. } | Val::Reduce { x, .. } => {
                    *x = memo[x]
                }
                Val::Binary { a, b, .. } | Val::Select { a, b, .. } => {
                    *a = memo[a];
                    *b = memo[b];
                }
                Val::Fma { a, b, c } => {
                    *a = memo[a];
                    *b = memo[b];
                    *c = memo[c];
                }
                Val::Where { cond, a, b } => {
                    *cond = memo[cond];
                    *a = memo[a];
                    *b = memo[b];
                }
            }
            let new = f(self, val);
            memo.insert(v, new);
        }
        memo[&id]
    }

    /// The row-major layout of a shape.
    pub fn row_major(&mut self, shape: &[IntId]) -> Layout {
        Layout::row_major(&mut self.ints, shape)
    }

    /// The flat element index of an access under a layout.
    pub fn flatten(&mut self, layout: &Layout, index: &[IntId]) -> IntId {
        layout.flatten(&mut self.ints, index)
    }
}
