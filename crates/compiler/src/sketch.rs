//! What a pass leaves, as a picture: buffers, definitions and kernels with what flows between them.
//!
//! Sketches are for people. They are made after a pass, when the observer asks, and nothing reads them back.

use crate::kernel::{Kernel, Launch};
use crate::program::{Place, Program};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Buffer, Graph, Origin, Role, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, Ints, RangeId};
use winograph_ir::linear::{Code, Instr, Memory, Stmt};

/// A directed graph without cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Its nodes; none reads one that comes after it.
    pub nodes: Vec<Node>,
}

/// One box of a sketch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What the same thing is called after every pass: a buffer's name, or that of the buffer that a kernel writes.
    pub key: String,
    /// What it is.
    pub kind: NodeKind,
    /// Title.
    pub title: String,
    /// What there is to say about it, a few lines.
    pub lines: Vec<String>,
    /// Places of the nodes that it reads.
    pub reads: Vec<usize>,
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Memory of the caller's that is read.
    Argument,
    /// A constant of the program.
    Constant,
    /// A value with a definition that has no buffer yet, or keeps none.
    Stage,
    /// Memory of the compiler's own.
    Buffer,
    /// Memory of the caller's that is written.
    Output,
    /// A loop nest.
    Kernel,
}

impl NodeKind {
    /// Name in text.
    pub const fn name(self) -> &'static str {
        match self {
            NodeKind::Argument => "argument",
            NodeKind::Constant => "constant",
            NodeKind::Stage => "stage",
            NodeKind::Buffer => "buffer",
            NodeKind::Output => "output",
            NodeKind::Kernel => "kernel",
        }
    }

    fn of(buffer: &Buffer) -> NodeKind {
        match buffer.origin {
            Origin::Argument(_) => NodeKind::Argument,
            Origin::Constant(_) => NodeKind::Constant,
            Origin::Output(_) => NodeKind::Output,
            Origin::Internal => NodeKind::Buffer,
        }
    }
}

fn sizes(list: impl IntoIterator<Item = i64>) -> String {
    list.into_iter().map(|s| s.to_string()).collect::<Vec<_>>().join("×")
}

fn of_ranges(ints: &Ints, ranges: &[RangeId]) -> String {
    sizes(ranges.iter().map(|&r| ints.max_size(r)))
}

fn of_shape(ints: &Ints, shape: &[IntId]) -> String {
    sizes(shape.iter().map(|&s| ints.bounds(s).1))
}

/// Reductions of some values, and how much else they compute, as lines.
fn arithmetic(g: &Graph, roots: &[ValId]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut operations = 0;
    for v in g.topological(roots) {
        match g.val(v) {
            Val::Reduce { op, ranges, x, .. } => {
                let product = matches!(g.val(*x), Val::Binary { op, .. } if op.name() == "mul");
                let of = if product { "products" } else { "terms" };
                lines.push(format!("{} of {} {of}", op.name(), of_ranges(&g.ints, ranges)));
            }
            Val::Const(_) | Val::Index { .. } | Val::Load { .. } => {}
            _ => operations += 1,
        }
    }
    // Transforms unrolled by a rewrite have many nested sums: the first few say what it is.
    if lines.len() > 3 {
        let more = lines.len() - 2;
        lines.truncate(2);
        lines.push(format!("and {more} more reductions"));
    }
    if operations > 0 {
        lines.push(format!("{operations} operation{}", if operations == 1 { "" } else { "s" }));
    }
    lines
}

fn loaded(g: &Graph, roots: &[ValId]) -> Vec<BufId> {
    let mut out = Vec::new();
    for v in g.topological(roots) {
        if let Val::Load { src: Source::Buffer(b), .. } = g.val(v)
            && !out.contains(b)
        {
            out.push(*b);
        }
    }
    out
}

/// A buffer's place in memory as a line: axes from slowest to contiguous.
fn laid_out(buffer: &Buffer) -> Option<String> {
    let layout = buffer.layout.as_ref()?;
    let axes: Vec<String> = layout
        .dims
        .iter()
        .map(|d| match (d.div, d.modulus) {
            (1, None) => d.axis.to_string(),
            (1, Some(m)) => format!("{}%{m}", d.axis),
            (n, _) => format!("{}/{n}", d.axis),
        })
        .collect();
    Some(format!("axes {} in memory", axes.join(" ")))
}

impl Sketch {
    /// An indexed graph: its buffers, those with a definition as stages.
    pub fn of_graph(g: &Graph) -> Sketch {
        let mut out = Sketch::default();
        let mut places: FxHashMap<BufId, usize> = FxHashMap::default();
        let is_defined = |b: BufId| g.defs.iter().any(|d| d.buffer == b);
        for i in (0..g.buffers.len()).map(|i| BufId(i as u32)).filter(|&b| !is_defined(b)) {
            let b = g.buffer(i);
            if matches!(b.origin, Origin::Internal) {
                continue;
            }
            let lines = vec![format!("{} {}", b.dtype, of_shape(&g.ints, &b.shape))];
            places.insert(i, out.push(b.name.clone(), NodeKind::of(b), b.name.clone(), lines, vec![]));
        }
        for d in &g.defs {
            let b = g.buffer(d.buffer);
            let kind = match NodeKind::of(b) {
                NodeKind::Buffer => NodeKind::Stage,
                kind => kind,
            };
            let mut lines = vec![format!("{} {}", b.dtype, of_shape(&g.ints, &b.shape))];
            if d.role != Role::Other {
                lines.push(d.role.name().replace('_', " "));
            }
            lines.extend(arithmetic(g, &[d.value]));
            if d.keep {
                lines.push("materialised".to_string());
            }
            let reads = loaded(g, &[d.value]).iter().filter_map(|b| places.get(b).copied()).collect();
            places.insert(d.buffer, out.push(b.name.clone(), kind, b.name.clone(), lines, reads));
        }
        out
    }

    /// Kernels and the buffers between them. `launches` says what runs together, `notes` adds a line or more to each
    /// kernel.
    pub fn of_kernels(kernels: &[Kernel], launches: Option<&[Launch]>, notes: &dyn Fn(usize) -> Vec<String>) -> Sketch {
        let mut out = Sketch::default();
        let mut places: FxHashMap<BufId, usize> = FxHashMap::default();
        let buffer = |out: &mut Sketch, k: &Kernel, at: BufId, reads: Vec<usize>| {
            let b = k.graph.buffer(at);
            let mut lines = vec![format!("{} {}", b.dtype, of_shape(&k.graph.ints, &b.shape))];
            if b.scope != Scope::Global {
                lines.push("memory of one work item".to_string());
            }
            // The caller's memory is as the caller has it.
            if matches!(b.origin, Origin::Internal) {
                lines.extend(laid_out(b));
            }
            out.push(b.name.clone(), NodeKind::of(b), b.name.clone(), lines, reads)
        };
        for (n, k) in kernels.iter().enumerate() {
            let written: Vec<BufId> = k.stores.iter().map(|s| s.buffer).collect();
            let mut reads = Vec::new();
            for at in loaded(&k.graph, &k.roots()).into_iter().filter(|b| !written.contains(b)) {
                let id = k.args[at.0 as usize];
                let place = *places.entry(id).or_insert_with(|| buffer(&mut out, k, at, vec![]));
                reads.push(place);
            }
            let ints = &k.graph.ints;
            let mut lines = vec![format!("for {}", of_ranges(ints, &k.loops))];
            lines.extend(arithmetic(&k.graph, &k.roots()));
            if !k.outer.is_empty() {
                lines.push(format!("under {}", of_ranges(ints, &k.outer)));
            }
            if let Some(l) = launches.and_then(|l| l.iter().position(|l| l.kernels.len() > 1 && l.kernels.contains(&n)))
            {
                lines.push(format!("in launch {l}"));
            }
            lines.extend(notes(n));
            let title = k.role.name().replace('_', " ");
            let kernel = out.push(format!("kernel {}", k.output_name()), NodeKind::Kernel, title, lines, reads);
            for at in written {
                let id = k.args[at.0 as usize];
                match places.get(&id) {
                    // Another region of it has been written before.
                    Some(&place) => out.nodes[place].reads.push(kernel),
                    None => {
                        let place = buffer(&mut out, k, at, vec![kernel]);
                        places.insert(id, place);
                    }
                }
            }
        }
        out.sorted()
    }

    /// A whole program: its launches and their memory.
    pub fn of_program(program: &Program) -> Sketch {
        let mut out = Sketch::default();
        let mut places: FxHashMap<usize, usize> = FxHashMap::default();
        let buffer = |out: &mut Sketch, at: usize, reads: Vec<usize>| {
            let b = &program.buffers[at];
            let (kind, place) = match b.place {
                Place::Argument(n) => (NodeKind::Argument, format!("argument {n}")),
                Place::Constant(n) => (NodeKind::Constant, format!("constant {n}")),
                Place::Output(n) => (NodeKind::Output, format!("output {n}")),
                Place::Prepared(at) => (NodeKind::Buffer, format!("prepared, at byte {at}")),
                Place::Arena(at) => (NodeKind::Buffer, format!("arena, at byte {at}")),
            };
            out.push(b.name.clone(), kind, b.name.clone(), vec![format!("{} × {}", b.len, b.dtype), place], reads)
        };
        for (n, step) in program.prepare.iter().chain(&program.run).enumerate() {
            let Some(code) = program.kernels.get(step.kernel) else { continue };
            let mut reads = Vec::new();
            // What a result takes the place of is read, and another value of the buffer is written.
            let mut in_place = Vec::new();
            for (arg, (decl, &at)) in code.args.iter().zip(&step.args).enumerate() {
                if decl.written && code.loads(Memory::Arg(arg as u32)) {
                    in_place.push(at);
                }
                if !decl.written || places.contains_key(&at) && in_place.contains(&at) {
                    let place = *places.entry(at).or_insert_with(|| buffer(&mut out, at, vec![]));
                    reads.push(place);
                }
            }
            let mut lines = of_code(code);
            if n < program.prepare.len() {
                lines.push("once, in prepare".to_string());
            }
            let written: Vec<usize> =
                code.args.iter().zip(&step.args).filter(|(d, _)| d.written).map(|(_, &at)| at).collect();
            let names: Vec<&str> = written.iter().map(|&at| program.buffers[at].name.as_str()).collect();
            let key = format!("kernel {}", names.join(" "));
            let kernel = out.push(key, NodeKind::Kernel, code.name.clone(), lines, reads);
            for at in written {
                match places.get(&at) {
                    Some(&place) if !in_place.contains(&at) => out.nodes[place].reads.push(kernel),
                    _ => {
                        let place = buffer(&mut out, at, vec![kernel]);
                        places.insert(at, place);
                    }
                }
            }
        }
        out.sorted()
    }

    fn push(&mut self, key: String, kind: NodeKind, title: String, lines: Vec<String>, reads: Vec<usize>) -> usize {
        self.nodes.push(Node { key, kind, title, lines, reads });
        self.nodes.len() - 1
    }

    /// Nodes behind all that they read; a buffer written twice may have come too early.
    fn sorted(self) -> Sketch {
        let mut new: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let mut out = Sketch::default();
        while out.nodes.len() < self.nodes.len() {
            let before = out.nodes.len();
            for (i, n) in self.nodes.iter().enumerate() {
                if new[i].is_some() {
                    continue;
                }
                let reads: Option<Vec<usize>> = n.reads.iter().map(|&r| new.get(r).copied().flatten()).collect();
                if let Some(reads) = reads {
                    new[i] = Some(out.nodes.len());
                    out.nodes.push(Node { reads, ..n.clone() });
                }
            }
            // Nothing to be done about a cycle, which kernels in order cannot have.
            if out.nodes.len() == before {
                break;
            }
        }
        out
    }
}

/// What there is to say of linear code.
pub(crate) fn of_code(code: &Code) -> Vec<String> {
    let (mut loads, mut stores, mut barriers, mut instructions) = (0, 0, 0, 0);
    code.for_each_stmt(&mut |s| match s {
        Stmt::Let { instr: Instr::Load { .. } | Instr::Rows { .. }, .. } => loads += 1,
        Stmt::Let { .. } => instructions += 1,
        Stmt::Store { .. } => stores += 1,
        Stmt::Barrier(_) => barriers += 1,
        _ => {}
    });
    let mut out = vec![format!("{loads} loads, {stores} stores"), format!("{instructions} other instructions")];
    if barriers > 0 {
        out.push(format!("{barriers} barriers"));
    }
    for l in &code.locals {
        let bytes = code.ints.bounds(l.layout.len).1.saturating_mul(l.dtype.size() as i64);
        let scope = if l.scope == Scope::Shared { "shared" } else { "of its own" };
        out.push(format!("{bytes} bytes {scope}"));
    }
    out
}
