//! What the accesses of a warp cost: requests, sectors, bank conflicts. The virtual GPU and the counting without a run
//! share this, so that they agree by construction.

use crate::dtype::DType;
use crate::indexed::Scope;
use crate::int::{IntNode, Ints, RangeId};
use crate::linear::{Access, Code, Instr, Memory, ROW_BYTES, ROW_COUNT, ROW_PART, Reg, Stmt, swizzled};

/// What a GPU's memory system looks like to a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpuModel {
    /// Threads of a warp.
    pub lanes: u32,
    /// Bytes of an aligned segment of global memory.
    pub sector_bytes: u32,
    /// Banks of shared memory.
    pub banks: u32,
    /// Bytes of one word of a bank.
    pub bank_bytes: u32,
}

impl Default for GpuModel {
    /// 32 lanes, sectors of 32 bytes, 32 banks of 4 bytes: NVIDIA's GPUs, and near enough for others.
    fn default() -> GpuModel {
        GpuModel { lanes: 32, sector_bytes: 32, banks: 32, bank_bytes: 4 }
    }
}

/// Greatest size of a model: its bytes and lanes fit small tables.
const MAX_MODEL: u32 = 4096;

impl GpuModel {
    /// Whether every size is at least 1 and at most 4096.
    pub(super) fn is_valid(&self) -> bool {
        [self.lanes, self.sector_bytes, self.banks, self.bank_bytes].iter().all(|n| (1..=MAX_MODEL).contains(n))
    }
}

/// Whether an access reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessKind {
    /// It reads.
    Load,
    /// It writes.
    Store,
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Arguments: sectors are counted. The elements of a thread that are next to each other make one request of up to
    /// 16 bytes; others make one each.
    Global,
    /// A workgroup's memory: bank conflicts are counted. Requests of 8 and 16 bytes a thread go by halves and quarters
    /// of a warp.
    Shared,
    /// Memory of one thread, and constant tables: requests and bytes alone are counted.
    Private,
}

/// A load or store of a [`Code`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What is touched.
    pub memory: Memory,
    /// What kind of memory that is.
    pub space: Space,
    /// Whether it reads or writes.
    pub kind: AccessKind,
    /// Element type.
    pub dtype: DType,
    /// Elements that each thread moves.
    pub lanes: u32,
    /// Elements that lie next to each other and move together: as many lanes of the register as the address is a
    /// multiple of where it grows by one element a lane, else 1. What is copied asynchronously lies next to each other
    /// on both sides.
    pub width: u32,
    /// Whether the gate depends on the lane: what moves together then does so in threads whose gate holds for all of it;
    /// others move their elements one by one.
    pub ragged: bool,
    /// Threads of a warp that take part, the first ones: all of them, but for rows of fewer than four small matrices.
    pub threads: u32,
    /// How the memory is swizzled; see [`MemoryDecl::swizzle`](crate::linear::MemoryDecl::swizzle).
    pub swizzle: u32,
}

/// Bytes of the widest access of one thread.
const MAX_ACCESS: u32 = 16;
/// Bytes of the smallest asynchronous copy.
const MIN_COPY: u32 = 4;

impl Site {
    /// Elements of a thread in one request: contiguous ones up to 16 bytes.
    pub(super) fn together(&self) -> u32 {
        self.width.min((MAX_ACCESS / self.dtype.size() as u32).max(1))
    }

    /// Lanes from one to the next at which threads are gathered: each one where the gate depends on it.
    pub(super) fn step(&self) -> u32 {
        if self.ragged { 1 } else { self.width.max(1) }
    }
}

/// What one load or store moves in a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Warp-wide requests with at least one active thread.
    pub requests: u64,
    /// Bytes asked for, by each active thread.
    pub bytes: u64,
    /// Sectors of global memory moved.
    pub sectors: u64,
    /// The least sectors that could hold the distinct bytes of each request.
    pub least_sectors: u64,
    /// Cycles beyond the first that the banks of shared memory need.
    pub bank_conflicts: u64,
}

/// The loads and stores of a kernel in the order of its statements, outer ones first. A place in this list is the
/// access's number in every count.
pub fn sites(code: &Code) -> Vec<Site> {
    let mut out = Vec::new();
    body_sites(code, &code.body, false, &mut out);
    out
}

fn body_sites(code: &Code, body: &[Stmt], copying: bool, out: &mut Vec<Site>) {
    for (n, s) in body.iter().enumerate() {
        match s {
            Stmt::Let { reg, instr: Instr::Load { access, .. } } => {
                out.push(site(code, access, AccessKind::Load, *reg));
            }
            Stmt::Let { reg, instr: Instr::Rows { access, .. } } => out.push(rows(code, access, *reg)),
            Stmt::Store { access, value } => {
                out.push(site(code, access, AccessKind::Store, *value));
                let loaded = matches!(n.checked_sub(1).and_then(|n| body.get(n)),
                    Some(Stmt::Let { reg, instr: Instr::Load { fill, .. } }) if reg == value && fill.bits() == 0);
                if let ([.., load, store], true) = (&mut out[..], copying && loaded) {
                    copied(load, store);
                }
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => body_sites(code, body, copying, out),
            Stmt::Async { body } => body_sites(code, body, true, out),
            _ => {}
        }
    }
}

/// A load and a store that are one asynchronous copy go by elements that are neighbours on both sides, where such a copy
/// is possible; else they are a load and a store.
fn copied(load: &mut Site, store: &mut Site) {
    let pieces = load.together().min(store.together());
    let possible = (load.space, store.space) == (Space::Global, Space::Shared)
        && load.dtype == store.dtype
        && !load.ragged
        && !store.ragged
        && pieces * load.dtype.size() as u32 >= MIN_COPY;
    if possible {
        (load.width, store.width) = (pieces, pieces);
    }
}

/// Rows of small matrices: each is one access of 16 bytes of the thread that names it.
fn rows(code: &Code, access: &Access, reg: Reg) -> Site {
    let site = site(code, access, AccessKind::Load, reg);
    let size = site.dtype.size().max(1);
    let matrices = site.lanes / (ROW_PART / size).max(1) as u32;
    let elements = (ROW_BYTES / size).max(1) as u32;
    Site { lanes: elements, width: elements, ragged: false, threads: ROW_COUNT.saturating_mul(matrices), ..site }
}

fn site(code: &Code, access: &Access, kind: AccessKind, reg: Reg) -> Site {
    let (dtype, lanes) = code.regs.get(reg.0 as usize).map_or((DType::U8, 1), |t| (t.dtype, t.lanes));
    let local = if let Memory::Local(i) = access.mem { code.locals.get(i as usize) } else { None };
    let swizzle = local.map_or(0, |l| l.swizzle);
    let space = match access.mem {
        Memory::Arg(_) => Space::Global,
        Memory::Local(_) if local.is_some_and(|l| l.scope == Scope::Shared) => Space::Shared,
        Memory::Local(_) | Memory::Table(_) => Space::Private,
    };
    let ints = &code.ints;
    let known = access.gate.iter().all(|&g| ints.contains(g));
    let width = match access.lane {
        Some(l) if known => neighbours(ints, access, l, lanes),
        _ => 1,
    };
    let ragged = width > 1 && access.lane.is_some_and(|l| access.gate.iter().any(|&g| ints.depends_on(g, l)));
    Site { memory: access.mem, space, kind, dtype, lanes, width, ragged, threads: u32::MAX, swizzle }
}

/// Lanes that move together: the greatest power of 2 that divides both their number and the place of the first one, where
/// each lies one element after the one before.
fn neighbours(ints: &Ints, access: &Access, lane: RangeId, lanes: u32) -> u32 {
    if !ints.contains(access.addr) {
        return 1;
    }
    let (terms, constant) = ints.as_sum(access.addr);
    let (of_lane, rest): (Vec<_>, Vec<_>) = terms.into_iter().partition(|(t, _)| ints.depends_on(*t, lane));
    match of_lane[..] {
        [(t, 1)] if *ints.node(t) == IntNode::Range(lane) => {}
        _ => return 1,
    }
    let dynamic = access.dynamic.map_or(0, |d| if ints.contains(d.stride) { ints.divisor(d.stride) } else { 1 });
    let multiple = ints.divisor_of_sum(&rest, constant) | dynamic | lanes as u64;
    // The lowest bit of all of them is that of the powers of 2 which divide each.
    (multiple & multiple.wrapping_neg()) as u32
}

/// Counts requests one by one, with the space that this takes.
#[derive(Debug)]
pub(super) struct Meter {
    model: GpuModel,
    starts: Vec<i64>,
    words: Vec<i64>,
    banks: Vec<u32>,
}

impl Meter {
    pub(super) fn new(model: GpuModel) -> Meter {
        Meter { model, starts: Vec::new(), words: Vec::new(), banks: vec![0; model.banks as usize] }
    }

    /// Adds the requests of one warp at a site. `touched` holds for each [`step`](Site::step) of lanes the active threads
    /// in rising order with the element addresses of its first lane; `shifts` are byte offsets at which the same access
    /// happens, each so many times, and all of it happens `times` times.
    pub(super) fn access(
        &mut self,
        site: &Site,
        touched: &[Vec<(u32, i64)>],
        shifts: &[(i64, u64)],
        times: u64,
        out: &mut SiteCounts,
    ) {
        let together = site.together();
        let bytes = together as i64 * site.dtype.size() as i64;
        for &(shift, n) in shifts {
            let times = times.saturating_mul(n);
            if !site.ragged {
                for threads in touched {
                    for piece in 0..site.width.div_ceil(together) {
                        let base = shift.wrapping_add(piece as i64 * bytes);
                        self.request(site, threads, together, base, times, out);
                    }
                }
                continue;
            }
            for lanes in touched.chunks(together as usize) {
                let (Some(first), Some(last)) = (lanes.first(), lanes.last()) else { continue };
                let has = |list: &[(u32, i64)], t: u32| list.binary_search_by_key(&t, |x| x.0).is_ok();
                // A thread's lanes in which a linear gate holds follow each other.
                let whole: Vec<(u32, i64)> = first.iter().copied().filter(|t| has(last, t.0)).collect();
                self.request(site, &whole, together, shift, times, out);
                for lane in lanes {
                    let rest: Vec<(u32, i64)> = lane.iter().copied().filter(|t| !has(&whole, t.0)).collect();
                    self.request(site, &rest, 1, shift, times, out);
                }
            }
        }
    }

    /// One request for `elements` of each thread, `base` bytes behind the addresses.
    fn request(
        &mut self,
        site: &Site,
        touched: &[(u32, i64)],
        elements: u32,
        base: i64,
        times: u64,
        out: &mut SiteCounts,
    ) {
        if touched.is_empty() {
            return;
        }
        let size = site.dtype.size() as i64;
        let bytes = elements as i64 * size;
        let add = |to: &mut u64, what: u64| *to = to.saturating_add(what.saturating_mul(times));
        add(&mut out.requests, 1);
        add(&mut out.bytes, touched.len() as u64 * bytes as u64);
        let start = |at: i64| at.wrapping_mul(size).wrapping_add(base);
        match site.space {
            Space::Private => {}
            Space::Global => {
                self.starts.clear();
                self.starts.extend(touched.iter().map(|t| start(t.1)));
                if !self.starts.is_sorted() {
                    self.starts.sort_unstable();
                }
                let (distinct, sectors) = self.distinct(bytes);
                add(&mut out.sectors, sectors);
                add(&mut out.least_sectors, distinct.div_ceil(self.model.sector_bytes as u64));
            }
            Space::Shared => {
                let word = self.model.bank_bytes as i64;
                // Wide accesses go by parts of a warp, as many threads at a time as the banks can serve at once.
                let pass = (self.model.lanes as i64 * word / bytes.max(word)).max(1) as u32;
                let lanes = self.model.lanes;
                let mut from = 0;
                while from < touched.len() {
                    let part = touched[from].0 % lanes / pass;
                    let count = touched[from..].iter().take_while(|t| t.0 % lanes / pass == part).count();
                    self.words.clear();
                    for t in &touched[from..from + count] {
                        let at = match site.swizzle {
                            0 => start(t.1),
                            s => swizzled(start(t.1), s),
                        };
                        self.words.extend(at.div_euclid(word)..=at.wrapping_add(bytes - 1).div_euclid(word));
                    }
                    add(&mut out.bank_conflicts, self.conflicts());
                    from += count;
                }
            }
        }
    }

    /// Distinct bytes and sectors of segments of `bytes` at `starts`, which are sorted.
    fn distinct(&self, bytes: i64) -> (u64, u64) {
        let sector = self.model.sector_bytes as i64;
        let (mut distinct, mut sectors) = (0u64, 0u64);
        let (mut end, mut last) = (i64::MIN, i64::MIN);
        for &s in &self.starts {
            let e = s.saturating_add(bytes);
            distinct += e.saturating_sub(s.max(end)).max(0) as u64;
            let (a, b) = (s.div_euclid(sector).max(last.saturating_add(1)), (e - 1).div_euclid(sector));
            sectors += (b - a + 1).max(0) as u64;
            (end, last) = (e, b.max(last));
        }
        (distinct, sectors)
    }

    /// Distinct words of the fullest bank, less one.
    fn conflicts(&mut self) -> u64 {
        self.words.sort_unstable();
        self.words.dedup();
        self.banks.fill(0);
        let mut most = 1;
        for w in &self.words {
            let n = &mut self.banks[w.rem_euclid(self.model.banks as i64) as usize];
            *n += 1;
            most = most.max(*n);
        }
        (most - 1) as u64
    }
}
