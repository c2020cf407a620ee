//! Addresses that one warp of a kernel touches.

use std::collections::BTreeMap;
use winograph_compiler::target::Gpu;
use winograph_compiler::{Program, Step};
use winograph_ir::int::RangeId;
use winograph_ir::interp::gpu::{AccessKind, Space, sites};
use winograph_ir::linear::{Access, Code, Memory};

/// One access of one warp: that of the middle of the launch, first iteration of its loops.
pub(crate) struct Picture {
    /// The buffer.
    pub(crate) buffer: String,
    /// `load` or `store`.
    pub(crate) kind: &'static str,
    /// Bytes of an element.
    pub(crate) size: i64,
    /// For each thread of the warp the addresses in bytes of the elements it touches; none where a condition keeps it
    /// out.
    pub(crate) lanes: Vec<Vec<i64>>,
    /// Accesses of the code that this one stands for.
    pub(crate) alike: usize,
}

/// The accesses of a step to global memory: of each buffer and kind the one with the most active lanes.
pub(crate) fn pictures(program: &Program, step: &Step, gpu: &Gpu) -> Vec<Picture> {
    let Some(code) = program.kernels.get(step.kernel) else { return vec![] };
    let Some(nest) = code.nest() else { return vec![] };
    let mut values: BTreeMap<RangeId, i64> = BTreeMap::new();
    for &r in &nest.grid {
        values.insert(r, (code.ints.max_size(r) - 1) / 2);
    }
    let threads: Vec<(RangeId, i64)> = nest.threads.iter().map(|&r| (r, code.ints.max_size(r))).collect();
    let all = sites(code);
    let mut site = 0;
    let mut out: Vec<Picture> = Vec::new();
    code.for_each_stmt(&mut |s| {
        let Some(access) = s.access() else { return };
        let Some(at) = all.get(site) else { return };
        site += 1;
        let Memory::Arg(arg) = access.mem else { return };
        if at.space != Space::Global || access.dynamic.is_some() {
            return;
        }
        let named = step.args.get(arg as usize).and_then(|&b| program.buffers.get(b));
        let Some(buffer) = named.map(|b| b.name.clone()) else { return };
        let kind = if at.kind == AccessKind::Load { "load" } else { "store" };
        let lanes = warp(code, access, at.lanes, &values, &threads, gpu.lanes as i64, at.dtype.size() as i64);
        let active = |lanes: &[Vec<i64>]| lanes.iter().filter(|l| !l.is_empty()).count();
        match out.iter_mut().find(|p| p.buffer == buffer && p.kind == kind) {
            Some(p) => {
                p.alike += 1;
                if active(&lanes) > active(&p.lanes) {
                    p.lanes = lanes;
                }
            }
            None => out.push(Picture { buffer, kind, size: at.dtype.size() as i64, lanes, alike: 1 }),
        }
    });
    out
}

/// Addresses of a middle warp.
fn warp(
    code: &Code,
    access: &Access,
    elements: u32,
    values: &BTreeMap<RangeId, i64>,
    threads: &[(RangeId, i64)],
    lanes: i64,
    size: i64,
) -> Vec<Vec<i64>> {
    let total: i64 = threads.iter().map(|t| t.1).product();
    let warps = (total + lanes - 1) / lanes;
    let first = (warps - 1) / 2 * lanes;
    let param = |p: winograph_ir::ParamId| code.ints.param_info(p).typical();
    (first..(first + lanes).min(total))
        .map(|thread| {
            let mut values = values.clone();
            let mut rest = thread;
            for &(r, n) in threads.iter().rev() {
                values.insert(r, rest % n.max(1));
                rest /= n.max(1);
            }
            (0..elements as i64)
                .filter_map(|e| {
                    let range = |r: RangeId| match access.lane {
                        Some(lane) if lane == r => e,
                        _ => values.get(&r).copied().unwrap_or(0),
                    };
                    let open = access.gate.iter().all(|&g| code.ints.eval(g, &range, &param).is_some_and(|v| v >= 0));
                    let at = code.ints.eval(access.addr, &range, &param)?;
                    open.then(|| at.saturating_mul(size))
                })
                .collect()
        })
        .collect()
}

impl Picture {
    /// Addresses touched, each once, in order.
    pub(crate) fn distinct(&self) -> Vec<i64> {
        let mut all: Vec<i64> = self.lanes.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How the addresses lie, in words.
    pub(crate) fn pattern(&self, sector: i64) -> String {
        let all = self.distinct();
        let Some(first) = all.first() else { return "no lane of a middle warp is active".to_string() };
        let (mut runs, mut length) = (Vec::new(), 1i64);
        for w in all.windows(2) {
            if w[1] - w[0] == self.size {
                length += 1;
            } else {
                runs.push(length);
                length = 1;
            }
        }
        runs.push(length);
        let (least, most) = (runs.iter().min().copied().unwrap_or(1), runs.iter().max().copied().unwrap_or(1));
        let gaps: Vec<i64> = all.windows(2).map(|w| w[1] - w[0]).filter(|g| *g != self.size).collect();
        let nearest = gaps.iter().min().copied().unwrap_or(0);
        match (runs.len(), least, most) {
            (1, ..) if first.rem_euclid(sector) != 0 => {
                "one run of neighbours that does not begin at a sector".to_string()
            }
            (1, ..) => "neighbours".to_string(),
            (_, 1, 1) => format!("elements {nearest} bytes apart"),
            (n, a, b) if a == b => format!("{n} runs of {a} neighbours"),
            (n, a, b) => format!("{n} runs of {a} to {b} neighbours"),
        }
    }
}
