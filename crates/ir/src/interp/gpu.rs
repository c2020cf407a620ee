//! The virtual GPU: runs a kernel block by block with all threads of a block in lockstep, finds what a real one would
//! get wrong silently, and counts what each access moves.
//!
//! A kernel is one perfect nest of grid loops, thread loops and a body ([`Code::nest`]); without thread loops a block
//! has one thread. Blocks run in the order of the grid loops, the outermost one slowest. Within a block each statement
//! is run by all threads whose conditions hold, warp by warp, before the next one: an order that barriers allow and
//! that hides nothing, because accesses are checked against *all* orders that barriers allow:
//! - Two warps of a block may not touch the same element between two barriers if one of them writes it, whatever it
//!   writes. In one warp, which runs in lockstep, two threads may not store different values to an element by one
//!   statement at once; what different statements do is ordered.
//! - Two blocks may not touch the same element of an argument if one of them writes it.
//! - A barrier has to be reached by all threads of a block, and a matrix unit by all threads of a warp.
//! - What an asynchronous copy stores is written when its thread waits for it, as late as it may be, and nobody may touch
//!   the place in between: a wait that is missing is found like a barrier that is missing.
//! - Every access is in bounds, of its memory and of each axis.
//!
//! Arguments begin at addresses that are multiples of 256 bytes. Locals of scope `register` and `scratch` are each
//! thread's own, those of scope `shared` each block's; they hold NaN (0xCD bytes in integers) when a block begins.
//!
//! A matrix unit rounds its factors to [`MatrixUnit::factor_bits`](crate::linear::MatrixUnit::factor_bits) bits, to
//! nearest and even on a tie (NaN and infinities stay), and adds the products to the addend in order of rising k, each by
//! a fused multiply-add in f32, rounded once more where the result is a half float. That order is this model's alone:
//! real units promise none.

pub use super::requests::{AccessKind, GpuModel, Site, SiteCounts, Space, sites};

use super::linear::{Compiler, check_lengths};
use super::machine::{Machine, Op, Place, TileOps};
use super::races::{Cell, Clock};
use super::requests::Meter;
use super::threads::{Threads, warps};
use super::{InterpError, MAX_BYTES, malformed};
use crate::dtype::{DType, Scalar};
use crate::int::RangeId;
use crate::linear::{Code, MAX_THREADS, MatrixUnit, Memory, ROW_BYTES, ROW_COUNT, ROW_PART, ROWS_WARP, Stmt};
use std::collections::VecDeque;

/// What a launch moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that ran.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// One entry for each of [`sites`].
    pub sites: Vec<SiteCounts>,
}

/// Runs `code` on the model of a GPU. Arguments and parameters are those of [`linear::run`](super::linear::run); where
/// neither shared memory nor a matrix unit is used, the results are the same, bit for bit.
///
/// # Errors
/// Those of [`linear::run`](super::linear::run), an index beyond its axis, a race, a barrier or matrix unit that some
/// threads do not reach, code that is no nest of grid and thread loops, more than 1024 threads. Arguments are then left
/// as far as the run got.
pub fn run(code: &Code, args: &mut [Vec<u8>], params: &[i64], model: &GpuModel) -> Result<Counts, InterpError> {
    if !model.is_valid() {
        return Err(malformed(&code.name, format!("the model {model:?} has a size of 0 or above 4096")));
    }
    let (mut gpu, program) = prepare(code, args, params, model)?;
    for (arg, mem) in args.iter_mut().zip(&mut gpu.machine.mems) {
        std::mem::swap(arg, &mut mem.bytes);
    }
    let result = gpu.launch(&program);
    for (arg, mem) in args.iter_mut().zip(&mut gpu.machine.mems) {
        std::mem::swap(arg, &mut mem.bytes);
    }
    result?;
    Ok(Counts { blocks: gpu.clock.blocks() as u64, threads: gpu.threads.count as u32, sites: gpu.counts })
}

/// A loop around the body, with what its variable alone decides.
struct Level {
    var: u32,
    size: i64,
    ops: Box<[Op]>,
}

struct Program {
    /// What parameters alone decide.
    once: Box<[Op]>,
    grid: Vec<Level>,
    threads: Vec<Level>,
    body: Box<[Op]>,
}

/// Whose a memory is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Launch,
    Block,
    Thread,
}

/// A memory's owner, its elements (one thread's), and what is known about them where somebody writes them.
struct Home {
    owner: Owner,
    len: usize,
    cells: Vec<Cell>,
}

struct Gpu<'a> {
    machine: Machine,
    threads: Threads,
    model: GpuModel,
    meter: Meter,
    sites: Vec<Site>,
    counts: Vec<SiteCounts>,
    homes: Vec<Home>,
    units: &'a [MatrixUnit],
    clock: Clock,
    touched: Vec<(u32, i64)>,
    /// The threads that touch a place, for each step of lanes so far.
    lanes: Vec<Vec<(u32, i64)>>,
    /// Copies under way, the first one first.
    copies: VecDeque<Vec<Copied>>,
    /// Whether what is stored belongs to the last of them.
    copying: bool,
}

/// What a copy will store: memory, element, the thread that has begun it, bits.
type Copied = (u32, usize, u32, u64);

/// Most bytes of one workgroup's memory; real ones have some hundred thousand.
const MAX_SHARED: usize = 1 << 24;

fn prepare<'a>(
    code: &'a Code,
    args: &[Vec<u8>],
    params: &[i64],
    model: &GpuModel,
) -> Result<(Gpu<'a>, Program), InterpError> {
    let bad = |why: String| malformed(&code.name, why);
    let nest = code.nest().ok_or_else(|| bad("the code is no perfect nest of grid and thread loops".to_string()))?;
    let mut c = Compiler::new(code, params, true)?;
    let mut open = |ranges: &[RangeId]| -> Result<Vec<(u32, i64)>, InterpError> {
        let mut out = Vec::with_capacity(ranges.len());
        for &r in ranges {
            c.bindable(r)?;
            let size = c.e.known(c.e.ints.size(r))?;
            out.push((c.e.open_loop(r), size));
        }
        Ok(out)
    };
    let (grid, inner) = (open(&nest.grid)?, open(&nest.threads)?);
    let count = inner.iter().fold(1i64, |n, l| n.saturating_mul(l.1));
    if !(1..=MAX_THREADS as i64).contains(&count) {
        return Err(bad(format!("{count} threads in a workgroup, which may have 1 to {MAX_THREADS}")));
    }
    c.e.open();
    c.body(nest.body)?;
    let body = c.e.close();
    let mut close = |loops: Vec<(u32, i64)>| -> Vec<Level> {
        let mut out: Vec<Level> =
            loops.into_iter().rev().map(|(var, size)| Level { var, size, ops: c.e.close() }).collect();
        out.reverse();
        out
    };
    let threads = close(inner);
    let grid = close(grid);
    let once = c.e.close();
    let mut machine = std::mem::take(&mut c.e.machine);
    let count = count as usize;
    let lengths = std::mem::take(&mut c.lengths);
    check_lengths(&machine, &lengths[..code.args.len()], args)?;
    let homes = homes(code, &lengths, count, &mut machine)?;
    let regs = machine.regs.len().checked_mul(count).filter(|&n| n <= u32::MAX as usize / 2);
    machine.regs = vec![0; regs.ok_or_else(|| bad("very many registers".to_string()))?];
    let vars: Vec<u32> = threads.iter().map(|l| l.var).collect();
    let mut all: Vec<&[Op]> = vec![&once];
    all.extend(grid.iter().chain(&threads).map(|l| &*l.ops));
    all.push(&body);
    let ints = std::mem::take(&mut machine.ints);
    let ints = Threads::new(&code.name, &ints, count, &vars, &all).ok_or_else(|| bad("very many integers".into()))?;
    let sites = sites(code);
    let gpu = Gpu {
        machine,
        threads: ints,
        model: *model,
        meter: Meter::new(*model),
        counts: vec![SiteCounts::default(); sites.len()],
        sites,
        homes,
        units: &code.units,
        clock: Clock::new(model.lanes),
        touched: Vec::new(),
        lanes: Vec::new(),
        copies: VecDeque::new(),
        copying: false,
    };
    Ok((gpu, Program { once, grid, threads, body }))
}

/// Allocates locals and decides which memories are watched for races.
fn homes(code: &Code, lengths: &[usize], threads: usize, machine: &mut Machine) -> Result<Vec<Home>, InterpError> {
    use crate::indexed::Scope;
    let mut stored = vec![false; machine.mems.len()];
    code.for_each_stmt(&mut |s| {
        let Stmt::Store { access, .. } = s else { return };
        let at = match access.mem {
            Memory::Arg(i) => i as usize,
            Memory::Local(i) => code.args.len() + i as usize,
            Memory::Table(_) => return,
        };
        if let Some(s) = stored.get_mut(at) {
            *s = true;
        }
    });
    let mut homes = Vec::with_capacity(machine.mems.len());
    for (i, mem) in machine.mems.iter_mut().enumerate() {
        let local = i.checked_sub(code.args.len()).and_then(|l| code.locals.get(l));
        let bytes = lengths.get(i).copied().unwrap_or(mem.bytes.len());
        let owner = match local.map(|l| l.scope) {
            None => Owner::Launch,
            Some(Scope::Shared) => Owner::Block,
            Some(Scope::Register | Scope::Scratch) => Owner::Thread,
            Some(Scope::Global) => return Err(malformed(&code.name, format!("local `{}` is global", mem.name))),
        };
        if local.is_some() {
            let (copies, most) = if owner == Owner::Thread { (threads, MAX_BYTES) } else { (1, MAX_SHARED) };
            let bytes = bytes.checked_mul(copies).filter(|&n| n <= most);
            let bytes = bytes.ok_or_else(|| malformed(&code.name, format!("local `{}` is very large", mem.name)))?;
            mem.bytes = vec![0; bytes];
        }
        let len = bytes / mem.dtype.size();
        let watched = owner != Owner::Thread && stored[i];
        homes.push(Home { owner, len, cells: vec![Cell::default(); if watched { len } else { 0 }] });
    }
    Ok(homes)
}

impl Gpu<'_> {
    fn launch(&mut self, p: &Program) -> Result<(), InterpError> {
        let (vars, sizes): (Vec<u32>, Vec<i64>) = p.threads.iter().map(|l| (l.var, l.size)).unzip();
        self.threads.number(&vars, &sizes);
        self.integers(&p.once);
        self.blocks(&p.grid, p)
    }

    fn integers(&mut self, ops: &[Op]) {
        for op in ops {
            if let Op::Int { dst, op } = op {
                self.threads.compute(*dst, op);
            }
        }
    }

    fn blocks(&mut self, grid: &[Level], p: &Program) -> Result<(), InterpError> {
        if let [level, inner @ ..] = grid {
            for i in 0..level.size {
                self.threads.set(level.var, i);
                self.integers(&level.ops);
                self.blocks(inner, p)?;
            }
            return Ok(());
        }
        self.clock.block();
        self.copies.clear();
        for (mem, home) in self.machine.mems.iter_mut().zip(&self.homes) {
            if home.owner != Owner::Launch {
                mem.poison();
            }
        }
        for level in &p.threads {
            self.integers(&level.ops);
        }
        let all: Vec<u32> = (0..self.threads.count as u32).collect();
        self.run(&p.body, &all)
    }

    /// Runs instructions by the threads `active`, which are in rising order.
    fn run(&mut self, ops: &[Op], active: &[u32]) -> Result<(), InterpError> {
        let n = self.threads.count as u32;
        for op in ops {
            self.clock.step();
            match op {
                Op::Int { dst, op } => self.threads.compute(*dst, op),
                Op::Loop { var, size, body, .. } => self.repeat(*var, *size, body, active)?,
                Op::If { gate, body } => {
                    let mut inside = Vec::with_capacity(active.len());
                    for &t in active {
                        let mut holds = true;
                        for &g in gate {
                            holds = holds && self.threads.int(g, t)? >= 0;
                        }
                        if holds {
                            inside.push(t);
                        }
                    }
                    if !inside.is_empty() {
                        self.run(body, &inside)?;
                    }
                }
                Op::Async { body } => {
                    self.copies.push_back(Vec::new());
                    self.copying = true;
                    let done = self.run(body, active);
                    self.copying = false;
                    done?;
                }
                Op::Wait { pending } => self.wait(*pending as usize),
                Op::Barrier => {
                    if active.len() != self.threads.count {
                        return Err(InterpError::BarrierDivergence {
                            kernel: self.machine.name.clone(),
                            waiting: active.len(),
                            threads: self.threads.count,
                        });
                    }
                    self.clock.barrier();
                }
                Op::Load { dst, lanes, place, fill } => {
                    for warp in warps(active, self.model.lanes) {
                        self.load(*dst, *lanes, place, *fill, warp)?;
                    }
                }
                Op::Store { src, lanes, place } => {
                    for warp in warps(active, self.model.lanes) {
                        self.store(*src, *lanes, place, warp)?;
                    }
                }
                Op::Tiles { unit, dst, c, tiles } => self.tiles(*unit, [*dst, *c], tiles, active)?,
                Op::Rows { dst, lanes, place, size, transposed } => {
                    for warp in warps(active, self.model.lanes) {
                        self.rows(*dst, *lanes, place, (*size, *transposed), warp)?;
                    }
                }
                Op::Matrix { unit, dst, a, b, c } => self.matrix(*unit, *dst, [*a, *b, *c], active)?,
                Op::Index { dst, lanes, value, dtype } => {
                    for l in 0..*lanes {
                        for &t in active {
                            let x = self.threads.lin(*value, t, l)?;
                            self.machine.regs[((dst + l) * n + t) as usize] = Scalar::from_i64(*dtype, x).bits();
                        }
                    }
                }
                Op::Select { dst, gate, a, b, lanes } => {
                    for l in 0..*lanes {
                        for &t in active {
                            let from = if self.threads.holds(gate, t, l)? { a } else { b };
                            self.machine.regs[((dst + l) * n + t) as usize] =
                                self.machine.regs[((from + l) * n + t) as usize];
                        }
                    }
                }
                // Variables keep what they hold in the threads that are not active.
                Op::Copy { dst, x, lanes } => {
                    for l in 0..*lanes {
                        for &t in active {
                            self.machine.regs[((dst + l) * n + t) as usize] =
                                self.machine.regs[((x + l) * n + t) as usize];
                        }
                    }
                }
                other => lanewise(&mut self.machine, other, n),
            }
        }
        Ok(())
    }

    fn repeat(&mut self, var: u32, size: u32, body: &[Op], active: &[u32]) -> Result<(), InterpError> {
        if self.threads.is_uniform(size) {
            for i in 0..self.threads.int(size, 0)? {
                self.threads.set(var, i);
                self.run(body, active)?;
            }
            return Ok(());
        }
        // Some threads leave earlier than others.
        let mut inside = active.to_vec();
        for i in 0.. {
            for &t in &inside {
                self.threads.int(size, t)?;
            }
            inside.retain(|&t| self.threads.get(size, t) > i);
            if inside.is_empty() {
                break;
            }
            self.threads.set(var, i);
            self.run(body, &inside)?;
        }
        Ok(())
    }

    /// Fills `touched` with the threads of a warp that touch a place in a lane, and counts their request.
    fn gather(&mut self, place: &Place, lane: u32, warp: &[u32]) -> Result<(), InterpError> {
        let n = self.threads.count as u32;
        self.threads.gather(place, warp, lane, &mut self.touched)?;
        for (t, at) in &mut self.touched {
            for (axis, a) in place.axes.iter().enumerate() {
                let index = self.threads.lin(a.index, *t, lane)?;
                if index < 0 || index >= a.size {
                    return Err(InterpError::AxisOutOfBounds {
                        kernel: self.machine.name.clone(),
                        memory: self.machine.mems[place.mem as usize].name.clone(),
                        axis,
                        index,
                        size: a.size,
                    });
                }
            }
            if let Some(d) = place.dynamic {
                let index = Scalar::from_bits(d.dtype, self.machine.regs[(d.reg * n + *t) as usize]).to_i64();
                let (size, stride) = (self.threads.int(d.size, *t)?, self.threads.int(d.stride, *t)?);
                let index = index.min(size.saturating_sub(1)).max(0);
                let moved = index.checked_mul(stride).and_then(|x| x.checked_add(*at));
                *at = moved.ok_or_else(|| self.threads.no_integer())?;
            }
        }
        let site = &self.sites[place.site as usize];
        if lane == 0 {
            self.lanes.clear();
        }
        if lane.is_multiple_of(site.step()) {
            self.lanes.push(self.touched.clone());
        }
        if lane + 1 == site.lanes {
            self.meter.access(site, &self.lanes, &[(0, 1)], 1, &mut self.counts[place.site as usize]);
        }
        Ok(())
    }

    /// Where an element of a thread's view of a memory is.
    fn element(&self, mem: u32, thread: u32, at: i64) -> Result<usize, InterpError> {
        let home = &self.homes[mem as usize];
        match usize::try_from(at).ok().filter(|&i| i < home.len) {
            Some(i) if home.owner == Owner::Thread => Ok(thread as usize * home.len + i),
            Some(i) => Ok(i),
            None => Err(InterpError::OutOfBounds {
                kernel: self.machine.name.clone(),
                memory: self.machine.mems[mem as usize].name.clone(),
                address: at,
                len: home.len,
            }),
        }
    }

    /// Notes who touches an element of a watched memory; `written` are the bits of a write.
    fn watch(&mut self, mem: u32, thread: u32, at: usize, written: Option<u64>) -> Result<(), InterpError> {
        let home = &mut self.homes[mem as usize];
        let global = home.owner == Owner::Launch;
        let Some(cell) = home.cells.get_mut(at) else { return Ok(()) };
        let found = match written {
            None => cell.read(&self.clock, thread, global),
            Some(bits) if self.copying => cell.begin(&self.clock, thread, bits, global),
            Some(bits) => cell.write(&self.clock, thread, bits, global),
        };
        match found {
            None => Ok(()),
            Some(between) => Err(InterpError::Race {
                kernel: self.machine.name.clone(),
                memory: self.machine.mems[mem as usize].name.clone(),
                address: at as i64,
                between,
            }),
        }
    }

    fn load(&mut self, dst: u32, lanes: u32, place: &Place, fill: u64, warp: &[u32]) -> Result<(), InterpError> {
        let n = self.threads.count as u32;
        for l in 0..lanes {
            self.gather(place, l, warp)?;
            for &t in warp {
                self.machine.regs[((dst + l) * n + t) as usize] = fill;
            }
            for i in 0..self.touched.len() {
                let (t, at) = self.touched[i];
                let element = self.element(place.mem, t, at)?;
                self.watch(place.mem, t, element, None)?;
                let bits = self.machine.mems[place.mem as usize].get(element as i64).unwrap_or(0);
                self.machine.regs[((dst + l) * n + t) as usize] = bits;
            }
        }
        Ok(())
    }

    /// Small matrices of which each thread of a warp names a row of `elements` and gets 4 bytes.
    fn rows(
        &mut self,
        dst: u32,
        lanes: u32,
        place: &Place,
        (size, transposed): (u32, bool),
        warp: &[u32],
    ) -> Result<(), InterpError> {
        if warp.len() != ROWS_WARP as usize || self.model.lanes != ROWS_WARP {
            let why = format!("{} threads of a warp of {} load rows together", warp.len(), self.model.lanes);
            return Err(malformed(&self.machine.name, why));
        }
        let (elements, part) = (ROW_BYTES as u32 / size, ROW_PART as u32 / size);
        let matrices = lanes / part;
        let named = (ROW_COUNT * matrices) as usize;
        let mut rows = vec![0u64; named * elements as usize];
        for l in 0..elements {
            self.gather(place, l, &warp[..named])?;
            for i in 0..self.touched.len() {
                let (t, at) = self.touched[i];
                if l == 0 && !at.rem_euclid(elements as i64).eq(&0) {
                    let why = format!("a row of 16 bytes begins at element {at}");
                    return Err(malformed(&self.machine.name, why));
                }
                let element = self.element(place.mem, t, at)?;
                self.watch(place.mem, t, element, None)?;
                let bits = self.machine.mems[place.mem as usize].get(element as i64).unwrap_or(0);
                rows[((t - warp[0]) * elements + l) as usize] = bits;
            }
        }
        let n = self.threads.count as u32;
        for t in 0..ROWS_WARP {
            for lane in 0..lanes {
                let (matrix, e) = (lane / part, lane % part);
                let along = part * (t % 4) + e;
                let (row, element) = if transposed { (along, t / 4) } else { (t / 4, along) };
                let bits = rows[((ROW_COUNT * matrix + row) * elements + element) as usize];
                self.machine.regs[((dst + lane) * n + warp[0] + t) as usize] = bits;
            }
        }
        Ok(())
    }

    fn store(&mut self, src: u32, lanes: u32, place: &Place, warp: &[u32]) -> Result<(), InterpError> {
        let n = self.threads.count as u32;
        for l in 0..lanes {
            self.gather(place, l, warp)?;
            for i in 0..self.touched.len() {
                let (t, at) = self.touched[i];
                let element = self.element(place.mem, t, at)?;
                let bits = self.machine.regs[((src + l) * n + t) as usize];
                self.watch(place.mem, t, element, Some(bits))?;
                match self.copies.back_mut().filter(|_| self.copying) {
                    Some(copy) => copy.push((place.mem, element, t, bits)),
                    None => {
                        self.machine.mems[place.mem as usize].set(element as i64, bits);
                    }
                }
            }
        }
        Ok(())
    }

    /// What was copied arrives, but for the last so many copies.
    fn wait(&mut self, pending: usize) {
        while self.copies.len() > pending {
            for (mem, element, thread, bits) in self.copies.pop_front().unwrap_or_default() {
                self.machine.mems[mem as usize].set(element as i64, bits);
                if let Some(cell) = self.homes[mem as usize].cells.get_mut(element) {
                    cell.arrive(&self.clock, thread);
                }
            }
        }
    }

    /// `c + a·b` with factors in shared memory, by each group of threads that share the unit's matrices.
    fn tiles(
        &mut self,
        unit: u32,
        [dst, c]: [u32; 2],
        tiles: &[TileOps; 2],
        active: &[u32],
    ) -> Result<(), InterpError> {
        let units: &[MatrixUnit] = self.units;
        let Some(u) = units.get(unit as usize) else {
            return Err(malformed(&self.machine.name, format!("there is no matrix unit {unit}")));
        };
        let threads = u.c.threads();
        for group in warps(active, threads) {
            if group.len() != threads as usize {
                let why = format!("{} of {threads} threads reach matrix unit `{}`", group.len(), u.name);
                return Err(malformed(&self.machine.name, why));
            }
            let mut factors = Vec::with_capacity(2);
            for (t, f) in tiles.iter().zip([&u.a, &u.b]) {
                let mut out = Vec::with_capacity((t.rows * u.k as i64) as usize);
                for row in 0..t.rows {
                    self.threads.set(t.var, row);
                    self.integers(&t.ops);
                    for k in 0..u.k {
                        let at = self.threads.lin(t.place.addr, group[0], k)?;
                        let element = self.element(t.place.mem, group[0], at)?;
                        // Whoever writes is of another warp than one of these.
                        for reader in [group[0], group[group.len() - 1]] {
                            self.watch(t.place.mem, reader, element, None)?;
                        }
                        let bits = self.machine.mems[t.place.mem as usize].get(element as i64).unwrap_or(0);
                        let x = Scalar::from_bits(f.dtype, bits).to_f64() as f32;
                        out.push(round_significand(x, u.factor_bits));
                    }
                }
                factors.push(out);
            }
            let n = self.threads.count as u32;
            let k = u.k as usize;
            for t in 0..threads {
                for e in 0..u.c.elements() {
                    let (row, col) = u.c.place(t, e);
                    let at = |reg: u32| ((reg + e) * n + group[0] + t) as usize;
                    let of = |f: &[f32], i: u32| f[i as usize * k..][..k].to_vec();
                    let sum = Scalar::from_bits(u.c.dtype, self.machine.regs[at(c)]).to_f64() as f32;
                    let pairs = of(&factors[0], row).into_iter().zip(of(&factors[1], col));
                    let sum = pairs.fold(sum, |sum, (a, b)| a.mul_add(b, sum));
                    self.machine.regs[at(dst)] = match u.c.dtype {
                        DType::F32 => sum.to_bits() as u64,
                        d => Scalar::from_f64(d, sum as f64).bits(),
                    };
                }
            }
        }
        Ok(())
    }

    fn matrix(&mut self, unit: u32, dst: u32, regs: [u32; 3], active: &[u32]) -> Result<(), InterpError> {
        let Some(u) = self.units.get(unit as usize) else {
            return Err(malformed(&self.machine.name, format!("there is no matrix unit {unit}")));
        };
        let lanes = u.c.threads();
        if lanes != self.model.lanes {
            let why = format!("matrix unit `{}` is of {lanes} threads, a warp of {}", u.name, self.model.lanes);
            return Err(malformed(&self.machine.name, why));
        }
        for warp in warps(active, lanes) {
            if warp.len() != lanes as usize {
                let why = format!("{} of {lanes} threads of a warp reach matrix unit `{}`", warp.len(), u.name);
                return Err(malformed(&self.machine.name, why));
            }
            let n = self.threads.count as u32;
            multiply(&mut self.machine.regs, u, dst, regs, n, warp[0]);
        }
        Ok(())
    }
}

/// `c + a·b` of the warp that begins at a thread, with `n` threads in the block.
fn multiply(regs: &mut [u64], u: &MatrixUnit, dst: u32, [a, b, c]: [u32; 3], n: u32, first: u32) {
    let at = |reg: u32, t: u32, e: u32| ((reg + e) * n + first + t) as usize;
    let float = |dtype: DType, bits: u64| Scalar::from_bits(dtype, bits).to_f64() as f32;
    let mut factors = [(&u.a, a, u.k), (&u.b, b, u.n)].map(|(f, reg, cols)| {
        let mut out = vec![0f32; (f.threads() * f.elements()) as usize];
        for t in 0..f.threads() {
            for e in 0..f.elements() {
                let (row, col) = f.place(t, e);
                let x = float(f.dtype, regs[at(reg, t, e)]);
                out[(row * cols + col) as usize] = round_significand(x, u.factor_bits);
            }
        }
        out
    });
    let [fa, fb] = &mut factors;
    for t in 0..u.c.threads() {
        for e in 0..u.c.elements() {
            let (row, col) = u.c.place(t, e);
            let mut sum = float(u.c.dtype, regs[at(c, t, e)]);
            for k in 0..u.k {
                sum = fa[(row * u.k + k) as usize].mul_add(fb[(k * u.n + col) as usize], sum);
            }
            regs[at(dst, t, e)] = match u.c.dtype {
                DType::F32 => sum.to_bits() as u64,
                d => Scalar::from_f64(d, sum as f64).bits(),
            };
        }
    }
}

/// Rounds to `bits` significand bits, the hidden one included, to nearest and even on a tie. NaN and infinities stay.
fn round_significand(x: f32, bits: u32) -> f32 {
    let drop = 24u32.saturating_sub(bits).min(23);
    if drop == 0 || !x.is_finite() {
        return x;
    }
    let raw = x.to_bits();
    let half = (1u32 << (drop - 1)) - 1 + (raw >> drop & 1);
    f32::from_bits(raw.wrapping_add(half) & !((1u32 << drop) - 1))
}

/// Runs an instruction that cannot fail in all of `n` threads, active or not: the registers that it sets are seen by
/// nobody else. A register's lane takes `n` neighbouring places, one a thread.
fn lanewise(machine: &mut Machine, op: &Op, n: u32) {
    let range = |at: u32, lanes: u32| (at * n) as usize..((at + lanes) * n) as usize;
    let scaled = match *op {
        Op::Const { dst, bits } => return machine.regs[range(dst, 1)].fill(bits),
        Op::Splat { dst, x, lanes } => {
            return (0..lanes).for_each(|l| machine.regs.copy_within(range(x, 1), range(dst + l, 1).start));
        }
        Op::Pack { dst, ref lanes } => {
            for (l, &x) in lanes.iter().enumerate() {
                machine.regs.copy_within(range(x, 1), range(dst + l as u32, 1).start);
            }
            return;
        }
        Op::Fold { op, dtype, dst, x, lanes } => {
            let mut v = machine.regs[range(x, lanes)].to_vec();
            while v.len() > n as usize {
                let upper = v.split_off(v.len() / 2);
                for (a, b) in v.iter_mut().zip(upper) {
                    *a = op.combine().apply(Scalar::from_bits(dtype, *a), Scalar::from_bits(dtype, b)).bits();
                }
            }
            return machine.regs[range(dst, 1)].copy_from_slice(&v);
        }
        Op::Unary { op, dtype, dst, x, lanes } => Op::Unary { op, dtype, dst: dst * n, x: x * n, lanes: lanes * n },
        Op::Binary { op, dtype, dst, a, b, lanes } => {
            Op::Binary { op, dtype, dst: dst * n, a: a * n, b: b * n, lanes: lanes * n }
        }
        Op::Fma { dtype, dst, a, b, c, lanes } => {
            Op::Fma { dtype, dst: dst * n, a: a * n, b: b * n, c: c * n, lanes: lanes * n }
        }
        Op::Where { dst, cond, a, b, lanes } => {
            Op::Where { dst: dst * n, cond: cond * n, a: a * n, b: b * n, lanes: lanes * n }
        }
        Op::Cast { from, to, dst, x, lanes } => Op::Cast { from, to, dst: dst * n, x: x * n, lanes: lanes * n },
        Op::Bitcast { to, dst, x, lanes } => Op::Bitcast { to, dst: dst * n, x: x * n, lanes: lanes * n },
        // Lists are the indexed level's; the rest is run by `Gpu::run`.
        Op::ListClear { .. }
        | Op::ListPush { .. }
        | Op::ListTree { .. }
        | Op::Int { .. }
        | Op::Loop { .. }
        | Op::If { .. }
        | Op::Copy { .. }
        | Op::Index { .. }
        | Op::Load { .. }
        | Op::Store { .. }
        | Op::Select { .. }
        | Op::Barrier
        | Op::Wait { .. }
        | Op::Async { .. }
        | Op::Rows { .. }
        | Op::Tiles { .. }
        | Op::Matrix { .. } => return,
    };
    machine.lanewise(&scaled);
}
