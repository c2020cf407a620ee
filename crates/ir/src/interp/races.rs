//! Who touched which element when: finds what is not ordered.

/// Counts executed statements, and knows since when the threads of a block have been ordered by nothing.
#[derive(Debug)]
pub(super) struct Clock {
    lanes: u32,
    tick: u64,
    /// The first statement of the interval between barriers.
    interval: u64,
    /// The first statement of each block so far.
    blocks: Vec<u64>,
}

impl Clock {
    pub(super) fn new(lanes: u32) -> Clock {
        Clock { lanes, tick: 0, interval: 0, blocks: Vec::new() }
    }

    /// A block begins.
    pub(super) fn block(&mut self) {
        self.tick += 1;
        self.interval = self.tick;
        self.blocks.push(self.tick);
    }

    /// All threads of the block have met.
    pub(super) fn barrier(&mut self) {
        self.interval = self.tick;
    }

    /// The next statement begins.
    pub(super) fn step(&mut self) {
        self.tick += 1;
    }

    /// Blocks that have begun.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn block_start(&self) -> u64 {
        self.blocks.last().copied().unwrap_or(0)
    }

    fn warp(&self, thread: u32) -> u32 {
        thread / self.lanes
    }

    fn unawaited(&self, first: Touch, thread: u32, then: &str) -> String {
        let (block, first) = (self.blocks.len().saturating_sub(1), first.thread());
        format!("in block {block}, thread {first} has begun to copy to it and thread {thread} {then} it before a wait")
    }

    fn describe(&self, first: Touch, does: &str, thread: u32, then: &str) -> String {
        let of = |tick: u64| self.blocks.partition_point(|&start| start <= tick).saturating_sub(1);
        let (before, now) = (of(first.tick()), of(self.tick));
        // Of many only the last is known.
        if first.has(MANY_BLOCKS) {
            return format!("several blocks {} it and block {now} {then} it", does.trim_end_matches('s'));
        }
        if before != now {
            return format!("block {before} {does} it and block {now} {then} it");
        }
        let first = first.thread();
        format!("in block {now}, thread {first} {does} it and thread {thread} {then} it without a barrier between them")
    }
}

/// Statement and thread of an access with two marks, in one word; 0 where there was none.
#[derive(Clone, Copy, Debug, Default)]
struct Touch(u64);

const THREAD: u64 = (1 << 10) - 1;
/// Threads of several warps have touched the element in this interval.
const MANY_WARPS: u64 = 1 << 10;
/// Several blocks have touched the element.
const MANY_BLOCKS: u64 = 1 << 11;

impl Touch {
    fn new(tick: u64, thread: u32) -> Touch {
        Touch(tick << 12 | (thread as u64 & THREAD))
    }

    fn tick(self) -> u64 {
        self.0 >> 12
    }

    fn thread(self) -> u32 {
        (self.0 & THREAD) as u32
    }

    fn any(self) -> bool {
        self.0 != 0
    }

    fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }
}

/// The last accesses to one element.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    write: Touch,
    written: u64,
    read: Touch,
    /// A copy to it has begun that nobody has waited for.
    copied: bool,
}

impl Cell {
    /// Notes a read by a thread; gives who is in its way. Blocks are compared where memory is `global`.
    pub(super) fn read(&mut self, clock: &Clock, thread: u32, global: bool) -> Option<String> {
        let w = self.write;
        if self.copied {
            return Some(clock.unawaited(w, thread, "reads"));
        }
        if w.any() {
            let other_block = global && w.tick() < clock.block_start();
            let other_warp = w.tick() >= clock.interval && clock.warp(w.thread()) != clock.warp(thread);
            if other_block || other_warp {
                return Some(clock.describe(w, "writes", thread, "reads"));
            }
        }
        let r = self.read;
        if r.any() && r.tick() >= clock.interval {
            if clock.warp(r.thread()) != clock.warp(thread) {
                self.read.0 |= MANY_WARPS;
            }
            return None;
        }
        self.read = Touch::new(clock.tick, thread);
        if r.has(MANY_BLOCKS) || r.any() && r.tick() < clock.block_start() {
            self.read.0 |= MANY_BLOCKS;
        }
        None
    }

    /// Notes that a copy of `bits` begins; gives who is in its way.
    pub(super) fn begin(&mut self, clock: &Clock, thread: u32, bits: u64, global: bool) -> Option<String> {
        let found = self.write(clock, thread, bits, global);
        self.copied = true;
        found
    }

    /// Notes that a copy that has begun is waited for: it counts as written now.
    pub(super) fn arrive(&mut self, clock: &Clock, thread: u32) {
        self.copied = false;
        self.write = Touch::new(clock.tick, thread);
    }

    /// Notes a write of `bits`; gives who is in its way.
    pub(super) fn write(&mut self, clock: &Clock, thread: u32, bits: u64, global: bool) -> Option<String> {
        let w = self.write;
        if self.copied {
            return Some(clock.unawaited(w, thread, "writes"));
        }
        if w.any() {
            let other_block = global && w.tick() < clock.block_start();
            let other_warp = w.tick() >= clock.interval && clock.warp(w.thread()) != clock.warp(thread);
            let at_once = w.tick() == clock.tick && w.thread() != thread && self.written != bits;
            if other_block || other_warp || at_once {
                return Some(clock.describe(w, "writes", thread, "writes"));
            }
        }
        let r = self.read;
        if r.any() {
            let other_block = global && (r.has(MANY_BLOCKS) || r.tick() < clock.block_start());
            let other_warp = r.has(MANY_WARPS) || clock.warp(r.thread()) != clock.warp(thread);
            if other_block || (r.tick() >= clock.interval && other_warp) {
                // Blocks before this one are in the way only where blocks are compared.
                let r = if global { r } else { Touch(r.0 & !MANY_BLOCKS) };
                return Some(clock.describe(r, "reads", thread, "writes"));
            }
        }
        (self.write, self.written) = (Touch::new(clock.tick, thread), bits);
        None
    }
}
