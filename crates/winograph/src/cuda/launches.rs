//! The queue of launches of a GPU and the memory that they use, so that a copy on another queue waits for the launches that
//! use its memory and for no others, and a launch for the copies of its memory and for no others.

use super::driver::{Address, Device};
use super::events::Event;
use super::fault::Names;
use crate::device::DeviceError;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Marks that are kept. What waits for a launch before the first of them waits for that.
const MARKS: usize = 64;

/// The queue of launches of a GPU: the default one, which all values of the GPU in this process share.
pub(super) struct Launches {
    device: Arc<Device>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Launches, and what else runs in their order, that were queued; the last one's number.
    queued: u64,
    /// The number of the last one that is known to be over, as are all before it.
    over: u64,
    /// Points in the queue, each with the number of the launch before it, in order.
    marks: VecDeque<(u64, Arc<Event>)>,
    /// Memory by its address.
    memory: BTreeMap<Address, Use>,
}

/// Who uses memory.
struct Use {
    bytes: usize,
    /// The number of the last launch that may have written it.
    written: u64,
    /// The number of the last launch that used it at all.
    used: u64,
    /// The ends of copies on other queues that no launch has waited for yet.
    copies: Vec<Arc<Event>>,
}

/// What a copy waits for.
#[derive(Default)]
pub(super) struct Before {
    /// The last launch that interferes, unless it is over.
    pub(super) launch: Option<Arc<Event>>,
    /// Other copies.
    pub(super) copies: Vec<Arc<Event>>,
}

impl State {
    fn user(&mut self, at: Address) -> Option<&mut Use> {
        let (start, found) = self.memory.range_mut(..=at).next_back()?;
        (at - start < found.bytes as u64).then_some(found)
    }

    /// Forgets marks that are over, and the kernels before them.
    fn settle(&mut self, device: &Device) {
        let before = self.over;
        while self.marks.front().is_some_and(|(_, mark)| mark.is_over()) {
            self.over = self.marks.pop_front().map_or(self.over, |m| m.0.max(self.over));
        }
        if self.over > before {
            device.faults.over(self.over);
        }
    }

    /// The end of what is queued now.
    fn mark(&mut self, device: &Arc<Device>) -> Result<Arc<Event>, DeviceError> {
        if let Some((number, mark)) = self.marks.back()
            && *number == self.queued
        {
            return Ok(mark.clone());
        }
        let mark = Arc::new(Event::of_launches(device)?);
        self.marks.push_back((self.queued, mark.clone()));
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
        Ok(mark)
    }
}

impl Launches {
    /// The queue of a device.
    pub(super) fn of(device: Device) -> Arc<Launches> {
        static ALL: Mutex<Vec<(usize, Weak<Launches>)>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, launches)| launches.strong_count() > 0);
        let context = device.context().addr();
        if let Some(found) = all.iter().find(|l| l.0 == context).and_then(|l| l.1.upgrade()) {
            return found;
        }
        let made = Arc::new(Launches { device: Arc::new(device), state: Mutex::default() });
        all.push((context, Arc::downgrade(&made)));
        made
    }

    /// The device.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a copy that writes memory at these addresses, and reads it at those others, after the copies of that memory.
    pub(super) fn queue(
        &self,
        uses: &[Address],
        reads: &[Address],
        copy: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.queue_any(uses, reads, None, copy)
    }

    /// Queues kernels that use memory at these addresses, after the copies of that memory.
    pub(super) fn queue_kernels(
        &self,
        uses: &[Address],
        names: &Names,
        launch: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.queue_any(uses, &[], Some(names), launch)
    }

    fn queue_any(
        &self,
        uses: &[Address],
        reads: &[Address],
        names: Option<&Names>,
        launch: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        // Held until it is queued: numbers are in the order of the queue.
        let state = &mut *self.lock();
        state.queued += 1;
        let number = state.queued;
        let all = uses.iter().map(|&at| (at, true)).chain(reads.iter().map(|&at| (at, false)));
        for (at, writes) in all {
            let Some(found) = state.user(at) else { continue };
            found.used = number;
            // Who reads what was copied there on another queue has this launch to wait for, once the copies are forgotten.
            if writes || !found.copies.is_empty() {
                found.written = number;
            }
            for copy in &found.copies {
                copy.before(&self.device, std::ptr::null_mut())?;
            }
            found.copies.clear();
        }
        if let Some(names) = names {
            self.device.faults.launched(number, names);
        }
        // The end of a copy to another GPU that was forgotten leaves that one's context current, and null would be its queue.
        self.device.enter()?;
        launch()
    }

    /// Where the memory that has these addresses starts, each once.
    pub(super) fn starts(&self, mut addresses: Vec<Address>) -> Vec<Address> {
        let state = self.lock();
        for at in &mut addresses {
            *at = state.memory.range(..=*at).next_back().map_or(*at, |found| *found.0);
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Puts a mark behind what is queued: copies that wait for it wait for nothing later.
    pub(super) fn mark(&self) -> Result<(), DeviceError> {
        self.device.faults.check()?;
        let mut state = self.lock();
        state.settle(&self.device);
        state.mark(&self.device).map(|_| ())
    }

    /// Waits for everything that was queued, copies among it.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let queued = self.queued();
        self.device.synchronize()?;
        self.over(queued);
        Ok(())
    }

    /// The number of the last launch.
    pub(super) fn queued(&self) -> u64 {
        self.lock().queued
    }

    /// Knows that a launch by its number is over, as are all before it.
    pub(super) fn over(&self, number: u64) {
        let mut state = self.lock();
        state.over = state.over.max(number);
        self.device.faults.over(state.over);
        state.settle(&self.device);
    }

    /// What a copy to memory on another queue has to wait for.
    pub(super) fn before_write(&self, at: Address) -> Result<Before, DeviceError> {
        self.before(at, |found| found.used)
    }

    /// What a copy from memory on another queue has to wait for.
    pub(super) fn before_read(&self, at: Address) -> Result<Before, DeviceError> {
        self.before(at, |found| found.written)
    }

    fn before(&self, at: Address, last: impl Fn(&Use) -> u64) -> Result<Before, DeviceError> {
        let mut state = self.lock();
        let Some(found) = state.user(at) else { return Ok(Before::default()) };
        let (number, copies) = (last(found), found.copies.clone());
        if number > state.over {
            state.settle(&self.device);
        }
        if number <= state.over {
            return Ok(Before { launch: None, copies });
        }
        let mark = state.marks.iter().find(|m| m.0 >= number).map(|m| m.1.clone());
        let launch = mark.map_or_else(|| state.mark(&self.device), Ok)?;
        Ok(Before { launch: Some(launch), copies })
    }

    /// Lets what uses memory next wait for a copy of it that has itself waited for what was before.
    pub(super) fn copied(&self, at: Address, end: Arc<Event>) {
        if let Some(found) = self.lock().user(at) {
            found.copies.clear();
            found.copies.push(end);
        }
    }

    /// Lets what uses memory next wait for one more copy of it.
    pub(super) fn copied_from(&self, at: Address, end: Arc<Event>) {
        if let Some(found) = self.lock().user(at) {
            found.copies.retain(|copy| !copy.is_over());
            found.copies.push(end);
        }
    }

    /// Memory of `bytes` bytes, more than 0, that is there once the queue has come to it, as `allocate` queues it. That may wait
    /// for the device, while others go on queueing: the number that it gets is then that of a later place than its own, and
    /// who waits for it waits for those as well.
    pub(super) fn allocate(
        &self,
        bytes: usize,
        allocate: impl FnOnce(&Device, usize) -> Result<Address, DeviceError>,
    ) -> Result<Address, DeviceError> {
        let at = allocate(&self.device, bytes)?;
        let mut state = self.lock();
        state.queued += 1;
        let number = state.queued;
        state.memory.insert(at, Use { bytes, written: number, used: number, copies: Vec::new() });
        Ok(at)
    }

    /// Knows memory that is there from the end of a copy to it on.
    pub(super) fn adopt(&self, at: Address, bytes: usize, end: Event) {
        self.lock().memory.insert(at, Use { bytes, written: 0, used: 0, copies: vec![Arc::new(end)] });
    }

    /// Frees memory, once the launches that are queued and the copies of it are over.
    pub(super) fn free(&self, at: Address) {
        let mut state = self.lock();
        for copy in state.memory.remove(&at).into_iter().flat_map(|found| found.copies) {
            // What cannot be ordered is waited for here. There is nobody to tell of a failure.
            if !self.device.has_pool() || copy.before(&self.device, std::ptr::null_mut()).is_err() {
                let _ = copy.wait();
            }
        }
        self.device.free(at, std::ptr::null_mut());
    }
}
