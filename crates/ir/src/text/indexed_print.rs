//! Printer of the indexed level.
//!
//! The arena sorts the operands of commutative operations by id, so the printer finds an order of its own: values
//! are ranked by what they are made of ([`Ranks`]), with ranges told apart by where they are bound. Values that are
//! equal in that respect (copies under another name of the range) keep the arena's order.

use super::names::{Names, join, print_params, quote_name};
use super::value::{print_layout, print_origin, print_table, scope_name};
use crate::dtype::{DType, Scalar};
use crate::indexed::{BufId, Def, Graph, Origin, Role, Scope, Source, TableId, Val, ValId};
use crate::int::{IntId, RangeId, RangeRole};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt::Write;

/// Prints an indexed graph: parameters, buffers, tables, ranges, then each definition with one line a value.
pub fn print_indexed(graph: &Graph) -> String {
    let buffers = buffer_order(graph);
    let ranks = Ranks::new(graph, &buffers);
    let mut printer = Printer { graph, ranks, names: Names::new(&graph.ints), tables: Vec::new() };
    let orders: Vec<Vec<ValId>> = graph.defs.iter().map(|d| printer.number(d)).collect();

    let mut out = String::new();
    print_params(&mut out, &graph.ints);
    printer.print_declarations(&mut out, &buffers);
    for (def, order) in graph.defs.iter().zip(&orders) {
        printer.print_def(&mut out, def, order);
    }
    out
}

/// An element that a nest of loops writes, for [`print_nest`].
#[derive(Clone, Copy, Debug)]
pub struct NestStore<'a> {
    /// A buffer of the graph.
    pub buffer: BufId,
    /// One index per axis.
    pub index: &'a [IntId],
    /// When it is written.
    pub gate: &'a [IntId],
    /// What is written.
    pub value: ValId,
}

/// Prints loops and what they store, in the words of the indexed level but for the body: `for [r0, r1] { .. }` with
/// `store %3, y[r0, 4*r1] if r1 <= 2` lines, after an `under [r2]` line where there are ranges around the loops. A graph's
/// definitions do not print.
pub fn print_nest(graph: &Graph, outer: &[RangeId], loops: &[RangeId], stores: &[NestStore<'_>]) -> String {
    // The structural order of values starts from definitions.
    let mut own = graph.clone();
    own.defs = stores
        .iter()
        .map(|s| Def {
            buffer: s.buffer,
            axes: [outer, loops].concat(),
            value: s.value,
            keep: false,
            repeat: false,
            role: Role::Other,
        })
        .collect();
    let buffers = buffer_order(&own);
    let ranks = Ranks::new(&own, &buffers);
    let mut printer = Printer { graph: &own, ranks, names: Names::new(&own.ints), tables: Vec::new() };
    let mut order: Vec<ValId> = Vec::new();
    for (def, store) in own.defs.iter().zip(stores) {
        let new = printer.number(def);
        order.extend(new.into_iter().filter(|v| !order.contains(v)).collect::<Vec<_>>());
        printer.introduce_store(store);
    }
    let mut out = String::new();
    print_params(&mut out, &own.ints);
    printer.print_declarations(&mut out, &buffers);
    if !outer.is_empty() {
        let _ = writeln!(out, "under [{}]", join(outer, |&r| printer.names.range(r)));
    }
    let _ = writeln!(out, "for [{}] {{", join(loops, |&r| printer.names.range(r)));
    let results: Vec<ValId> = stores.iter().map(|s| s.value).collect();
    let operands = printer.print_values(&mut out, &order, &results);
    for (s, value) in stores.iter().zip(operands) {
        let name = quote_name(&own.buffer(s.buffer).name);
        let _ = write!(out, "  store {value}, {name}{}", printer.names.list(s.index));
        if !s.gate.is_empty() {
            let _ = write!(out, " if {}", printer.names.gate(s.gate));
        }
        out.push('\n');
    }
    out.push_str("}\n");
    out
}

/// Arguments and constants by slot, outputs by slot, then the compiler's own by the first definition, then by name.
fn buffer_order(graph: &Graph) -> Vec<BufId> {
    let mut first_def: FxHashMap<BufId, usize> = FxHashMap::default();
    for (n, def) in graph.defs.iter().enumerate() {
        first_def.entry(def.buffer).or_insert(n);
    }
    let mut all: Vec<BufId> = (0..graph.buffers.len() as u32).map(BufId).collect();
    all.sort_by_key(|b| {
        let buffer = graph.buffer(*b);
        let (class, slot) = match buffer.origin {
            Origin::Argument(n) => (0, n),
            Origin::Constant(n) => (0, n),
            Origin::Output(n) => (1, n),
            Origin::Internal => (2, first_def.get(b).copied().unwrap_or(usize::MAX)),
        };
        (class, slot, buffer.name.clone())
    });
    all
}

/// Operands in an order that does not depend on ids.
fn ordered_children(graph: &Graph, ranks: &Ranks, id: ValId) -> Vec<ValId> {
    match graph.val(id) {
        Val::Binary { op, a, b } if op.is_commutative() => ranks.ordered(*a, *b).to_vec(),
        Val::Fma { a, b, c } => {
            let [a, b] = ranks.ordered(*a, *b);
            vec![a, b, *c]
        }
        _ => graph.children(id),
    }
}

/// A structural order of values: by height, then by what they are.
struct Ranks {
    values: FxHashMap<ValId, u32>,
    ranges: FxHashMap<RangeId, u32>,
}

impl Ranks {
    fn new(graph: &Graph, buffers: &[BufId]) -> Ranks {
        let roots: Vec<ValId> = graph.defs.iter().map(|d| d.value).collect();
        let order = graph.topological(&roots);
        let ranges = range_ranks(graph, &order);
        let mut ranks = Ranks { values: FxHashMap::default(), ranges: ranges.clone() };
        let names = Names::with_numbers(&graph.ints, ranges);
        let places: FxHashMap<BufId, usize> = buffers.iter().enumerate().map(|(n, &b)| (b, n)).collect();
        let mut heights: FxHashMap<ValId, usize> = FxHashMap::default();
        let mut levels: Vec<Vec<ValId>> = Vec::new();
        for &v in &order {
            let height = graph.children(v).iter().map(|c| heights[c] + 1).max().unwrap_or(0);
            heights.insert(v, height);
            if levels.len() <= height {
                levels.resize(height + 1, Vec::new());
            }
            levels[height].push(v);
        }
        let mut next = 0;
        for level in levels {
            let mut keyed: Vec<(String, ValId)> =
                level.into_iter().map(|v| (ranks.key(graph, &names, &places, v), v)).collect();
            keyed.sort();
            for (i, (key, v)) in keyed.iter().enumerate() {
                if i > 0 && keyed[i - 1].0 != *key {
                    next += 1;
                }
                // Constants stand after everything else.
                let constant = if graph.as_const(*v).is_some() { 1 << 31 } else { 0 };
                ranks.values.insert(*v, next | constant);
            }
            next += 1;
        }
        ranks
    }

    fn key(&self, graph: &Graph, names: &Names, places: &FxHashMap<BufId, usize>, id: ValId) -> String {
        let children = join(ordered_children(graph, self, id), |c| format!("{:010}", self.value(c)));
        match graph.val(id) {
            Val::Load { src, index, gate, fill, dynamic } => {
                let src = match src {
                    Source::Buffer(b) => format!("b{:06}", places[b]),
                    Source::Table(t) => {
                        let table = graph.table(*t);
                        format!("t{:?}{}{:?}", table.shape, table.dtype, table.values)
                    }
                };
                let axis = dynamic.map(|d| d.0);
                format!("a {src} {} {} {fill} {axis:?} {children}", names.list(index), names.gate(gate))
            }
            Val::Index { value, dtype } => format!("b {dtype} {}", names.int(*value)),
            Val::Unary { op, .. } => format!("c {} {children}", op.name()),
            Val::Binary { op, .. } => format!("d {} {children}", op.name()),
            Val::Fma { .. } => format!("e {children}"),
            Val::Where { .. } => format!("f {children}"),
            Val::Select { gate, .. } => format!("g {} {children}", names.gate(gate)),
            Val::Cast { dtype, .. } => format!("h {dtype} {children}"),
            Val::Bitcast { dtype, .. } => format!("i {dtype} {children}"),
            Val::Reduce { op, ranges, order, fused, .. } => {
                let ranges = join(ranges, |&r| names.range(r));
                format!("j {} {} {fused} {ranges} {children}", op.name(), order.name())
            }
            Val::Const(s) => format!("k {s}"),
        }
    }

    fn value(&self, id: ValId) -> u32 {
        self.values.get(&id).copied().unwrap_or(u32::MAX)
    }

    fn ordered(&self, a: ValId, b: ValId) -> [ValId; 2] {
        if self.value(b) < self.value(a) { [b, a] } else { [a, b] }
    }
}

/// Ranges by where they are bound: as an axis of which definition, at which place in a reduction, of which size.
fn range_ranks(graph: &Graph, values: &[ValId]) -> FxHashMap<RangeId, u32> {
    let mut axis: FxHashMap<RangeId, (usize, usize)> = FxHashMap::default();
    for (n, def) in graph.defs.iter().enumerate() {
        for (i, &r) in def.axes.iter().enumerate() {
            axis.entry(r).or_insert((n, i));
        }
    }
    let mut bound: FxHashMap<RangeId, (usize, usize)> = FxHashMap::default();
    let mut all: FxHashSet<RangeId> = axis.keys().copied().collect();
    for &v in values {
        all.extend(graph.free_ranges(v));
        if let Val::Reduce { ranges, .. } = graph.val(v) {
            for (i, &r) in ranges.iter().enumerate() {
                all.insert(r);
                let place = bound.entry(r).or_insert((i, ranges.len()));
                *place = (*place).min((i, ranges.len()));
            }
        }
    }
    for b in &graph.buffers {
        for &s in b.shape.iter().chain(b.layout.iter().flat_map(|l| l.dims.iter().map(|d| &d.stride).chain([&l.len]))) {
            all.extend(graph.ints.free_ranges(s));
        }
    }
    let never = (usize::MAX, usize::MAX);
    let names = Names::new(&graph.ints);
    let mut keyed: Vec<_> = all
        .into_iter()
        .map(|r| {
            let info = graph.ints.range_info(r);
            let place = (*axis.get(&r).unwrap_or(&never), *bound.get(&r).unwrap_or(&never));
            ((place, info.role, names.int(info.size)), r)
        })
        .collect();
    keyed.sort();
    let mut ranks = FxHashMap::default();
    let mut next = 0;
    for (i, (key, r)) in keyed.iter().enumerate() {
        if i > 0 && keyed[i - 1].0 != *key {
            next += 1;
        }
        ranks.insert(*r, next);
    }
    ranks
}

struct Printer<'a> {
    graph: &'a Graph,
    ranks: Ranks,
    names: Names<'a>,
    tables: Vec<TableId>,
}

impl Printer<'_> {
    /// Numbers the ranges and tables of a definition, users before operands; gives its values, operands first.
    fn number(&mut self, def: &Def) -> Vec<ValId> {
        for &r in &def.axes {
            self.names.introduce(r);
        }
        let mut out = Vec::new();
        let mut seen = FxHashSet::default();
        let mut stack = vec![(def.value, false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                out.push(id);
                continue;
            }
            if !seen.insert(id) {
                continue;
            }
            self.introduce(id);
            stack.push((id, true));
            for c in ordered_children(self.graph, &self.ranks, id).into_iter().rev() {
                stack.push((c, false));
            }
        }
        out.retain(|&v| self.graph.as_const(v).is_none());
        out
    }

    fn introduce(&mut self, id: ValId) {
        let ranks = &self.ranks.ranges;
        let rank = |r: RangeId| ranks.get(&r).copied().unwrap_or(u32::MAX);
        match self.graph.val(id) {
            Val::Reduce { ranges, .. } => {
                for &r in ranges {
                    self.names.introduce(r);
                }
            }
            Val::Index { value, .. } => self.names.introduce_free(&[*value], &rank),
            Val::Load { src, index, gate, .. } => {
                for &i in index {
                    self.names.introduce_free(&[i], &rank);
                }
                self.names.introduce_free(gate, &rank);
                if let Source::Table(t) = src
                    && !self.tables.contains(t)
                {
                    self.tables.push(*t);
                }
            }
            Val::Select { gate, .. } => self.names.introduce_free(gate, &rank),
            _ => {}
        }
    }

    fn introduce_store(&mut self, store: &NestStore<'_>) {
        let ranks = &self.ranks.ranges;
        let rank = |r: RangeId| ranks.get(&r).copied().unwrap_or(u32::MAX);
        self.names.introduce_free(store.index, &rank);
        self.names.introduce_free(store.gate, &rank);
    }

    /// Buffers, tables and ranges.
    fn print_declarations(&self, out: &mut String, buffers: &[BufId]) {
        for &b in buffers {
            self.print_buffer(out, b);
        }
        for (n, &t) in self.tables.iter().enumerate() {
            let table = self.graph.table(t);
            let shape = join(&table.shape, |s| s.to_string());
            let values = print_table(table.dtype, &table.shape, &table.values, "");
            let _ = writeln!(out, "table t{n}: {}[{shape}] = {values}", table.dtype);
        }
        self.print_ranges(out);
    }

    /// One line a value; gives how the results print as operands.
    fn print_values(&self, out: &mut String, order: &[ValId], results: &[ValId]) -> Vec<String> {
        let numbers: FxHashMap<ValId, usize> = order.iter().enumerate().map(|(n, &v)| (v, n)).collect();
        let operand = |v: ValId| match (self.graph.as_const(v), numbers.get(&v)) {
            (Some(s), _) => s.to_string(),
            (None, Some(n)) => format!("%{n}"),
            (None, None) => "%?".to_string(),
        };
        for (n, &v) in order.iter().enumerate() {
            let _ = writeln!(out, "  %{n} = {}", self.print_val(v, &operand));
        }
        results.iter().map(|&v| operand(v)).collect()
    }

    fn print_buffer(&self, out: &mut String, id: BufId) {
        let b = self.graph.buffer(id);
        let shape = self.names.list(&b.shape);
        let _ = write!(out, "buffer {}: {}{shape} {}", quote_name(&b.name), b.dtype, print_origin(b.origin));
        if b.scope != Scope::Global {
            let _ = write!(out, " {}", scope_name(b.scope));
        }
        if let Some(layout) = &b.layout {
            let _ = write!(out, " {}", print_layout(&self.names, layout));
        }
        out.push('\n');
    }

    /// `map r0:16 r1:64` and `reduce r2:3` lines: a new one where the role changes.
    fn print_ranges(&self, out: &mut String) {
        let mut last: Option<RangeRole> = None;
        for &r in self.names.order() {
            let role = self.graph.ints.range_info(r).role;
            if last != Some(role) {
                if last.is_some() {
                    out.push('\n');
                }
                out.push_str(match role {
                    RangeRole::Map => "map",
                    RangeRole::Reduce => "reduce",
                });
                last = Some(role);
            }
            let _ = write!(out, " {}", self.names.declaration(r));
        }
        if last.is_some() {
            out.push('\n');
        }
    }

    fn print_def(&self, out: &mut String, def: &Def, order: &[ValId]) {
        let axes = join(&def.axes, |&r| self.names.range(r));
        let _ = write!(out, "def {}[{axes}]", quote_name(&self.graph.buffer(def.buffer).name));
        if def.keep {
            out.push_str(" keep");
        }
        if def.repeat {
            out.push_str(" repeat");
        }
        if def.role != Role::Other {
            let _ = write!(out, " {}", def.role.name());
        }
        out.push_str(" {\n");
        let operands = self.print_values(out, order, &[def.value]);
        let _ = writeln!(out, "  yield {}\n}}", operands.join(", "));
    }

    fn print_val(&self, id: ValId, v: &dyn Fn(ValId) -> String) -> String {
        let operands = || join(ordered_children(self.graph, &self.ranks, id), v);
        match self.graph.val(id) {
            Val::Const(s) => s.to_string(),
            Val::Index { value, dtype } => format!("index {dtype} {}", self.names.int(*value)),
            Val::Load { src, index, gate, fill, dynamic } => {
                let mut out = format!("load {}{}", self.print_source(*src), self.names.list(index));
                if let Some((axis, value)) = dynamic {
                    let _ = write!(out, " dynamic {axis} = {}", v(*value));
                }
                out.push_str(&print_gated(&self.names, gate, *fill, self.graph.source_dtype(*src)));
                out
            }
            Val::Unary { op, .. } => format!("{} {}", op.name(), operands()),
            Val::Binary { op, .. } => format!("{} {}", op.name(), operands()),
            Val::Fma { .. } => format!("fma {}", operands()),
            Val::Where { .. } => format!("where {}", operands()),
            Val::Cast { dtype, .. } => format!("cast {dtype} {}", operands()),
            Val::Bitcast { dtype, .. } => format!("bitcast {dtype} {}", operands()),
            Val::Select { gate, a, b } => {
                format!("select {} ? {} : {}", self.names.gate(gate), v(*a), v(*b))
            }
            Val::Reduce { op, ranges, order, fused, x } => {
                let fused = if *fused { "fused " } else { "" };
                let ranges = join(ranges, |&r| self.names.range(r));
                format!("reduce {} {} {fused}[{ranges}] {}", op.name(), order.name(), v(*x))
            }
        }
    }

    fn print_source(&self, src: Source) -> String {
        match src {
            Source::Buffer(b) => quote_name(&self.graph.buffer(b).name),
            Source::Table(t) => match self.tables.iter().position(|&x| x == t) {
                Some(n) => format!("t{n}"),
                None => "t?".to_string(),
            },
        }
    }
}

/// ` if GATE else FILL`; nothing where the gate is empty and the fill is zero.
pub(super) fn print_gated(names: &Names, gate: &[IntId], fill: Scalar, dtype: DType) -> String {
    if gate.is_empty() && fill == Scalar::zero(dtype) {
        String::new()
    } else {
        format!(" if {} else {fill}", names.gate(gate))
    }
}
