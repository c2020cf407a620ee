//! Linear code: ordered statements with explicit vectors, gates, registers and loops, ready for a renderer and
//! independent of any source language.
//!
//! Registers are typed and assigned once, but for the ones declared by [`Stmt::Var`], which [`Stmt::Set`] changes
//! (accumulators). Integer arithmetic of addresses and conditions stays symbolic in [`Code::ints`]; its ranges are the
//! variables of enclosing loops and, inside one access, the lane.

use crate::dtype::{DType, Scalar};
use crate::indexed::{Gate, Layout, Origin, Role, Scope, Table};
use crate::int::{IntId, Ints, RangeId};
use crate::op::{BinaryOp, ReduceOp, UnaryOp};

/// A register of a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

/// The type of a register: `lanes` values of a dtype; one lane is a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Number of lanes, at least 1.
    pub lanes: u32,
}

/// What an access touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// An argument of the kernel, by its place in [`Code::args`].
    Arg(u32),
    /// Memory of the kernel's own, by its place in [`Code::locals`].
    Local(u32),
    /// A constant table, by its place in [`Code::tables`].
    Table(u32),
}

/// A place in memory. With a `lane` it stands for one place per lane: index, address and gate are then expressions in
/// that range, each of them linear in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What is touched.
    pub mem: Memory,
    /// One index per axis, for the proof that it is in bounds.
    pub index: Box<[IntId]>,
    /// Element offset: the layout's image of `index`.
    pub addr: IntId,
    /// When it is touched, per lane.
    pub gate: Gate,
    /// The range that counts lanes.
    pub lane: Option<RangeId>,
    /// An axis whose index is not in `index` but the value of a scalar integer register clamped to `0..size`;
    /// its stride in elements.
    pub dynamic: Option<Dynamic>,
}

/// A data-dependent part of an address: `clamp(index, 0, size - 1) * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dynamic {
    /// The axis.
    pub axis: u32,
    /// Scalar integer register.
    pub index: Reg,
    /// Size of the axis.
    pub size: IntId,
    /// Elements between neighbours.
    pub stride: IntId,
}

/// What a register is computed from. Operands have the result's number of lanes, but for splats, packs, shuffles, folds
/// and matrix units; there is no implicit broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instr {
    /// A scalar constant.
    Const(Scalar),
    /// An integer expression converted to the register's dtype; with a lane, one value per lane.
    Index {
        /// The expression, linear in the lane.
        value: IntId,
        /// The range that counts lanes.
        lane: Option<RangeId>,
    },
    /// Elements of memory, or `fill` in lanes where the gate does not hold.
    Load {
        /// Where.
        access: Access,
        /// Value where the gate does not hold.
        fill: Scalar,
    },
    /// Small matrices of 8 rows of 16 bytes from shared memory, by all threads of a warp together, as operands of matrix
    /// units lie. Thread `8 i + r` says where row `r` of matrix `i` is: neighbouring elements, the first one at a multiple
    /// of 16 bytes. Each thread gets 4 bytes of each matrix, `p` elements: lanes `p i` to `p i + p - 1` are those of matrix
    /// `i`, in thread `t` elements `p (t % 4) ..` of row `t / 4`. There are 1, 2 or 4 matrices; threads beyond their rows
    /// name places that nobody reads.
    Rows {
        /// The thread's row. Its lanes are the row's elements; it has no gate.
        access: Access,
        /// Of elements of 2 bytes: thread `t` gets element `t / 4` of rows `p (t % 4) ..` instead.
        transposed: bool,
    },
    /// Lane-wise operation.
    Unary {
        /// Operation.
        op: UnaryOp,
        /// Operand.
        x: Reg,
    },
    /// Lane-wise operation. Comparisons give `bool` lanes.
    Binary {
        /// Operation.
        op: BinaryOp,
        /// First operand.
        a: Reg,
        /// Second operand.
        b: Reg,
    },
    /// Lane-wise `a * b + c`, rounded once.
    Fma {
        /// Factor.
        a: Reg,
        /// Factor.
        b: Reg,
        /// Addend.
        c: Reg,
    },
    /// Lane-wise `cond ? a : b`.
    Where {
        /// Condition, `bool` lanes.
        cond: Reg,
        /// Value where it holds.
        a: Reg,
        /// Value where it does not.
        b: Reg,
    },
    /// Lane-wise choice by index: `a` where the gate holds.
    Select {
        /// Condition, linear in the lane.
        gate: Gate,
        /// The range that counts lanes.
        lane: Option<RangeId>,
        /// Value where it holds.
        a: Reg,
        /// Value where it does not.
        b: Reg,
    },
    /// Lane-wise conversion.
    Cast {
        /// Operand.
        x: Reg,
    },
    /// The same bits as another dtype of the same size.
    Bitcast {
        /// Operand.
        x: Reg,
    },
    /// A scalar in every lane.
    Splat {
        /// Scalar.
        x: Reg,
    },
    /// Scalars as lanes.
    Pack {
        /// One scalar per lane.
        lanes: Box<[Reg]>,
    },
    /// Lanes picked from two registers of one type: lane `i` of the result is lane `pattern[i]` of `a` and `b` put one after
    /// the other. The result has as many lanes as the pattern has numbers.
    Shuffle {
        /// Lanes `0..lanes`.
        a: Reg,
        /// Lanes `lanes..2 * lanes`.
        b: Reg,
        /// Where each lane of the result comes from.
        pattern: Box<[u32]>,
    },
    /// A matrix unit's multiply-accumulate by all threads of a warp together: `c + a·b`. The operands and the result are
    /// fragments: one element per vector lane of a register, placed as the unit says.
    Matrix {
        /// Place in [`Code::units`].
        unit: u32,
        /// Fragment of the m × k matrix.
        a: Reg,
        /// Fragment of the k × n matrix.
        b: Reg,
        /// Fragment of the m × n matrix.
        c: Reg,
    },
    /// A matrix unit's multiply-accumulate of factors that lie in shared memory: `c + a·b` by all threads that share the
    /// unit's matrices. It is over, and the factors may be written again after a barrier, when the next statement begins.
    Tiles {
        /// Place in [`Code::units`].
        unit: u32,
        /// The rows of the m × k matrix and the columns of the k × n matrix.
        tiles: Box<[Tile; 2]>,
        /// Fragment of the m × n matrix.
        c: Reg,
    },
    /// Lanes combined into a scalar: the upper half onto the lower half until one is left. Lanes are a power of 2.
    Fold {
        /// Operation.
        op: ReduceOp,
        /// Vector.
        x: Reg,
    },
}

/// A factor of [`Instr::Tiles`]: rows of [`TILE_ROW`] bytes of k terms each, one after the other in memory that is
/// swizzled for them, the first one at a multiple of [`SWIZZLE_BYTES`]. The threads that share it agree where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The elements of a row, which its lanes count.
    pub access: Access,
    /// Counts the rows: those of the first factor, the columns of the second one.
    pub row: RangeId,
    /// Where the first element of the first row is.
    pub base: IntId,
}

/// Bytes of a row of a [`Tile`].
pub const TILE_ROW: usize = 128;

/// Threads of a warp that load the rows of matrices together.
pub const ROWS_WARP: u32 = 32;
/// Bytes of a row of [`Instr::Rows`].
pub const ROW_BYTES: usize = 16;
/// Rows of one matrix of [`Instr::Rows`].
pub const ROW_COUNT: u32 = 8;
/// Bytes of a matrix of [`Instr::Rows`] that each thread gets.
pub const ROW_PART: usize = 4;

impl Instr {
    /// What it reads of memory, if it does.
    pub fn access(&self) -> Option<&Access> {
        match self {
            Instr::Load { access, .. } | Instr::Rows { access, .. } => Some(access),
            _ => None,
        }
    }

    /// The factors that it reads from shared memory as a whole.
    pub fn tiles(&self) -> &[Tile] {
        match self {
            Instr::Tiles { tiles, .. } => &tiles[..],
            _ => &[],
        }
    }

    /// All accesses in it, to be changed.
    pub fn accesses_mut(&mut self) -> Vec<&mut Access> {
        match self {
            Instr::Load { access, .. } | Instr::Rows { access, .. } => vec![access],
            Instr::Tiles { tiles, .. } => tiles.iter_mut().map(|t| &mut t.access).collect(),
            _ => vec![],
        }
    }
}

/// A matrix unit: a product of small matrices that the threads of one warp compute together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatrixUnit {
    /// Name, as the target calls it: `8x8x8` or `m16n8k8.tf32`.
    pub name: String,
    /// Rows of the first factor and of the result.
    pub m: u32,
    /// Columns of the second factor and of the result.
    pub n: u32,
    /// Columns of the first factor and rows of the second.
    pub k: u32,
    /// Where the elements of the first factor are, m × k.
    pub a: Fragment,
    /// Where the elements of the second factor are, k × n.
    pub b: Fragment,
    /// Where the elements of the addend and the result are, m × n.
    pub c: Fragment,
    /// Significand bits, the hidden one included, to which factors are rounded before they are multiplied: 11 for tf32,
    /// 24 where nothing is rounded.
    pub factor_bits: u32,
}

/// Where the elements of a small matrix are among the threads of a warp. Places are linear in the bits of the thread's
/// number and of the element's number: element `e` of thread `t` is at row `sum of thread_row[i] over set bits i of t
/// plus sum of element_row[i] over set bits i of e`, and at the column likewise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Element type of the registers.
    pub dtype: DType,
    /// Row distance of each bit of the thread's number in its warp.
    pub thread_row: Vec<u32>,
    /// Column distance of each bit of the thread's number.
    pub thread_col: Vec<u32>,
    /// Row distance of each bit of the element's number; its length says how many elements a thread holds.
    pub element_row: Vec<u32>,
    /// Column distance of each bit of the element's number.
    pub element_col: Vec<u32>,
}

impl Fragment {
    /// Elements that each thread holds; 0 where there are more than a `u32` can say.
    pub fn elements(&self) -> u32 {
        power_of_two(self.element_row.len())
    }

    /// Threads that share the matrix; 0 where there are more than a `u32` can say.
    pub fn threads(&self) -> u32 {
        power_of_two(self.thread_row.len())
    }

    /// Row and column of an element of a thread; they saturate.
    pub fn place(&self, thread: u32, element: u32) -> (u32, u32) {
        let sum = |weights: &[u32], bits: u32| -> u32 {
            let set = weights.iter().take(32).enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            set.fold(0, |sum, (_, w)| sum.saturating_add(*w))
        };
        (
            sum(&self.thread_row, thread).saturating_add(sum(&self.element_row, element)),
            sum(&self.thread_col, thread).saturating_add(sum(&self.element_col, element)),
        )
    }
}

fn power_of_two(bits: usize) -> u32 {
    u32::try_from(bits).ok().and_then(|b| 1u32.checked_shl(b)).unwrap_or(0)
}

/// Most threads of a workgroup.
pub const MAX_THREADS: u32 = 1024;

/// What a loop becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LoopKind {
    /// Iterations are independent and may run anywhere at any time: blocks on a GPU, work items of the pool on a CPU.
    /// Grid loops are outermost.
    Grid,
    /// Iterations are threads of a workgroup. Thread loops are directly inside of the grid loops, the outermost one first
    /// in the thread's number: with thread loops of sizes s0, s1 the number is `i0 * s1 + i1`, and threads of one warp
    /// are neighbours in it. Everything in a workgroup's body, barriers included, is inside of them.
    Thread,
    /// Iterations run one after another.
    Serial,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Computes a register, once.
    Let {
        /// The register.
        reg: Reg,
        /// Its value.
        instr: Instr,
    },
    /// Declares a register that may be set again, with its first value.
    Var {
        /// The register.
        reg: Reg,
        /// A register of the same type.
        init: Reg,
    },
    /// Gives a declared register another value.
    Set {
        /// The register.
        reg: Reg,
        /// A register of the same type.
        value: Reg,
    },
    /// Writes lanes whose gate holds.
    Store {
        /// Where.
        access: Access,
        /// What.
        value: Reg,
    },
    /// Runs a body for each value of a range.
    Loop {
        /// The variable.
        range: RangeId,
        /// How iterations are run.
        kind: LoopKind,
        /// The body.
        body: Vec<Stmt>,
    },
    /// Runs a body where a condition holds.
    If {
        /// The condition.
        gate: Gate,
        /// The body.
        body: Vec<Stmt>,
    },
    /// Begins copies and goes on: a body of loads, stores and conditions, reached by all threads of a workgroup. A load
    /// directly followed by a store of what it loaded is one copy. What it loads may be read, and what it stores is there, at any time until the thread has waited for it; until then
    /// nobody may touch the places that it stores to.
    Async {
        /// The copies.
        body: Vec<Stmt>,
    },
    /// Waits until no more than the last so many of the copies that this thread has begun are under way, each
    /// [`Stmt::Async`] being one. Other threads need a barrier after it.
    Wait(u32),
    /// Asks for the cache line of an element, which is read soon, or of the last element where memory ends before it.
    /// A hint: no value depends on it.
    Prefetch {
        /// What is read soon.
        mem: Memory,
        /// Element offset, not negative.
        addr: IntId,
    },
    /// Waits for all threads that share memory of this scope. Between the threads of a workgroup it orders accesses to
    /// shared and to global memory.
    Barrier(Scope),
}

/// Memory that code works on.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryDecl {
    /// Name in generated code.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Size per axis.
    pub shape: Vec<IntId>,
    /// How it lies in memory.
    pub layout: Layout,
    /// Where it lives.
    pub scope: Scope,
    /// Who owns it.
    pub origin: Origin,
    /// Whether this code writes it.
    pub written: bool,
    /// How shared memory is permuted, so that rows of so many bytes (32, 64 or 128) lie in different banks; 0 where it is
    /// not. Nobody but [`swizzled`] and hardware knows: every access is at the place that the layout says, permuted.
    pub swizzle: u32,
    /// Whether this code is soon done with what lies there: nobody reads soon what it writes, or each workgroup copies from it once
    /// what it reads. Stores may go past the caches, copies past the first-level cache. It changes nothing but speed.
    pub streamed: bool,
}

/// Bytes within which [`swizzled`] permutes.
pub const SWIZZLE_BYTES: u32 = 1024;

/// Where a byte of memory that is swizzled for rows of `swizzle` bytes lies: pieces of 16 bytes change places within each
/// 128 bytes by the number of these, `piece xor number mod (swizzle / 16)`.
pub fn swizzled(at: i64, swizzle: u32) -> i64 {
    let pieces = (swizzle / ROW_BYTES as u32).max(1) as i64;
    at ^ ((at >> 7 & (pieces - 1)) << 4)
}

impl Stmt {
    /// What it reads or writes of memory itself, if it does.
    pub fn access(&self) -> Option<&Access> {
        match self {
            Stmt::Let { instr, .. } => instr.access(),
            Stmt::Store { access, .. } => Some(access),
            _ => None,
        }
    }
}

/// One kernel's code.
#[derive(Clone, Debug)]
pub struct Code {
    /// Name, as tinygrad names kernels: `r_` or `E_` and the sizes of the axes.
    pub name: String,
    /// What it computes.
    pub role: Role,
    /// Index arithmetic, ranges and parameters.
    pub ints: Ints,
    /// Buffers passed by the caller.
    pub args: Vec<MemoryDecl>,
    /// Memory of one thread or of a workgroup.
    pub locals: Vec<MemoryDecl>,
    /// Constant tables.
    pub tables: Vec<Table>,
    /// Matrix units that the code uses.
    pub units: Vec<MatrixUnit>,
    /// Types of the registers.
    pub regs: Vec<Type>,
    /// The statements. Those at the top are grid loops or, where nothing is parallel, anything else.
    pub body: Vec<Stmt>,
}

impl Code {
    /// Code of nothing yet.
    pub fn new(name: String, role: Role, ints: Ints) -> Code {
        Code {
            name,
            role,
            ints,
            args: Vec::new(),
            locals: Vec::new(),
            tables: Vec::new(),
            units: Vec::new(),
            regs: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Type of a register.
    pub fn ty(&self, reg: Reg) -> Type {
        self.regs[reg.0 as usize]
    }

    /// The sizes of the grid loops at the top, outermost first; empty where nothing is parallel. Where the body has
    /// several nests, those of the first.
    pub fn grid(&self) -> Vec<IntId> {
        let mut out = Vec::new();
        let mut body = &self.body;
        while let Some(Stmt::Loop { range, kind: LoopKind::Grid, body: inner }) = body.first() {
            out.push(self.ints.size(*range));
            body = inner;
        }
        out
    }

    /// The grid loops and the thread loops around everything else, outermost first, and the body inside of them: one
    /// perfect nest, as a workgroup runs it. `None` where there is other code beside the nest, or a grid or thread loop
    /// inside of the body.
    pub fn nest(&self) -> Option<Nest<'_>> {
        let mut nest = Nest { grid: Vec::new(), threads: Vec::new(), body: &self.body };
        while let [Stmt::Loop { range, kind, body }] = nest.body {
            match kind {
                LoopKind::Grid if nest.threads.is_empty() => nest.grid.push(*range),
                LoopKind::Thread => nest.threads.push(*range),
                _ => break,
            }
            nest.body = body;
        }
        let mut plain = true;
        walk(nest.body, &mut |s| plain &= !matches!(s, Stmt::Loop { kind: LoopKind::Grid | LoopKind::Thread, .. }));
        plain.then_some(nest)
    }

    /// Whether it loads from a memory.
    pub fn loads(&self, mem: Memory) -> bool {
        let mut found = false;
        self.for_each_stmt(&mut |s| {
            if let Stmt::Let { instr, .. } = s {
                found |=
                    instr.access().is_some_and(|a| a.mem == mem) || instr.tiles().iter().any(|t| t.access.mem == mem);
            }
        });
        found
    }

    /// Calls `f` for every statement, outer ones first.
    pub fn for_each_stmt<'a>(&'a self, f: &mut dyn FnMut(&'a Stmt)) {
        walk(&self.body, f);
    }
}

/// The loops around a workgroup's body; see [`Code::nest`].
#[derive(Clone, Debug)]
pub struct Nest<'a> {
    /// Grid loops, outermost first.
    pub grid: Vec<RangeId>,
    /// Thread loops, outermost first.
    pub threads: Vec<RangeId>,
    /// What each thread runs.
    pub body: &'a [Stmt],
}

fn walk<'a>(body: &'a [Stmt], f: &mut dyn FnMut(&'a Stmt)) {
    for s in body {
        f(s);
        if let Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } = s {
            walk(body, f);
        }
    }
}
