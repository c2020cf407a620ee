//! What the accesses of a warp cost: requests, sectors, bank conflicts. The virtual GPU and the counting without a run
//! share this, so that they agree by construction.

use crate::dtype::DType;
use crate::indexed::Scope;
use crate::int::{IntId, IntNode, Ints, RangeId};
use crate::linear::{Access, Code, Instr, Memory, Reg, Stmt};

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
    /// Elements that lie next to each other and move together: all lanes of the register where the address grows by
    /// one element a lane and the gate is the same for all of them, else 1. Whether the address is aligned well enough
    /// for one instruction is not looked at: that is the renderer's to prove.
    pub width: u32,
}

impl Site {
    /// Elements of a thread in one request: contiguous ones up to 16 bytes.
    pub(super) fn together(&self) -> u32 {
        self.width.min((16 / self.dtype.size() as u32).max(1))
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
    code.for_each_stmt(&mut |s| match s {
        Stmt::Let { reg, instr: Instr::Load { access, .. } } => {
            out.push(site(code, access, AccessKind::Load, *reg));
        }
        Stmt::Store { access, value } => out.push(site(code, access, AccessKind::Store, *value)),
        _ => {}
    });
    out
}

fn site(code: &Code, access: &Access, kind: AccessKind, reg: Reg) -> Site {
    let (dtype, lanes) = code.regs.get(reg.0 as usize).map_or((DType::U8, 1), |t| (t.dtype, t.lanes));
    let space = match access.mem {
        Memory::Arg(_) => Space::Global,
        Memory::Local(i) if code.locals.get(i as usize).is_some_and(|l| l.scope == Scope::Shared) => Space::Shared,
        Memory::Local(_) | Memory::Table(_) => Space::Private,
    };
    let ints = &code.ints;
    let width = match access.lane {
        Some(l)
            if has_unit_step(ints, access.addr, l)
                && access.gate.iter().all(|&g| ints.contains(g) && !ints.depends_on(g, l)) =>
        {
            lanes
        }
        _ => 1,
    };
    Site { memory: access.mem, space, kind, dtype, lanes, width }
}

fn has_unit_step(ints: &Ints, addr: IntId, lane: RangeId) -> bool {
    if !ints.contains(addr) {
        return false;
    }
    let (terms, _) = ints.as_sum(addr);
    let mut of_lane = terms.iter().filter(|(t, _)| ints.depends_on(*t, lane));
    match (of_lane.next(), of_lane.next()) {
        (Some(&(t, 1)), None) => *ints.node(t) == IntNode::Range(lane),
        _ => false,
    }
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

    /// Adds the requests of one warp at a site. `touched` holds the active threads in rising order with the element
    /// addresses of the lanes `l..l + width`; `shifts` are byte offsets at which the same access happens, each so many
    /// times, and all of it happens `times` times.
    pub(super) fn access(
        &mut self,
        site: &Site,
        touched: &[(u32, i64)],
        shifts: &[(i64, u64)],
        times: u64,
        out: &mut SiteCounts,
    ) {
        let bytes = site.together() as i64 * site.dtype.size() as i64;
        for chunk in 0..site.width.div_ceil(site.together()) {
            for &(shift, n) in shifts {
                let times = times.saturating_mul(n);
                let base = shift.wrapping_add(chunk as i64 * bytes);
                self.request(site, touched, base, times, out);
            }
        }
    }

    /// One request, `base` bytes behind the addresses.
    fn request(&mut self, site: &Site, touched: &[(u32, i64)], base: i64, times: u64, out: &mut SiteCounts) {
        if touched.is_empty() {
            return;
        }
        let size = site.dtype.size() as i64;
        let bytes = site.together() as i64 * size;
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
                        let at = start(t.1);
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
