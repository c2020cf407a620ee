//! Who touched which element when: finds what is not ordered.

/// The moment and the thread of an access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// Number of the block, counted from 0.
    pub(super) block: u32,
    /// Thread of the block.
    pub(super) thread: u32,
    /// Warp of the thread.
    pub(super) warp: u32,
    /// Number of the interval between two barriers, never the same in two blocks.
    pub(super) epoch: u64,
    /// Number of the executed statement.
    pub(super) tick: u64,
}

/// The last accesses to one element.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    write: Option<(Touch, u64)>,
    read: Option<Touch>,
    /// Whether threads of several warps read it in the interval of `read`.
    many_warps: bool,
    /// Whether several blocks read it.
    many_blocks: bool,
}

fn describe(first: Touch, does: &str, second: Touch, then: &str) -> String {
    if first.block != second.block {
        return format!("block {} {does} it and block {} {then} it", first.block, second.block);
    }
    format!(
        "in block {}, thread {} {does} it and thread {} {then} it without a barrier between them",
        first.block, first.thread, second.thread
    )
}

impl Cell {
    /// Notes a read; gives who is in its way. Blocks are compared where memory is `global`.
    pub(super) fn read(&mut self, now: Touch, global: bool) -> Option<String> {
        if let Some((w, _)) = self.write {
            let other_block = global && w.block != now.block;
            if other_block || (w.epoch == now.epoch && w.warp != now.warp) {
                return Some(describe(w, "writes", now, "reads"));
            }
        }
        match self.read {
            Some(r) if r.epoch == now.epoch => self.many_warps |= r.warp != now.warp,
            Some(r) => {
                self.many_blocks |= r.block != now.block;
                (self.read, self.many_warps) = (Some(now), false);
            }
            None => self.read = Some(now),
        }
        None
    }

    /// Notes a write of `bits`; gives who is in its way.
    pub(super) fn write(&mut self, now: Touch, bits: u64, global: bool) -> Option<String> {
        if let Some((w, before)) = self.write {
            let other_block = global && w.block != now.block;
            let other_warp = w.epoch == now.epoch && w.warp != now.warp;
            let at_once = w.tick == now.tick && w.thread != now.thread && before != bits;
            if other_block || other_warp || at_once {
                return Some(describe(w, "writes", now, "writes"));
            }
        }
        if let Some(r) = self.read {
            let other_block = global && (self.many_blocks || r.block != now.block);
            if other_block || (r.epoch == now.epoch && (self.many_warps || r.warp != now.warp)) {
                return Some(describe(r, "reads", now, "writes"));
            }
        }
        self.write = Some((now, bits));
        None
    }
}
