//! Kernels that fail on a GPU. The driver then refuses everything in the context, with the status of the failure, which
//! whatever comes next is told: which call that is says nothing about which kernel it was. So what is queued is noted until it
//! is known to be over, and every later use of the device has one and the same error, without asking the driver.

use super::driver::Status;
use crate::device::DeviceError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Statuses after which a context is of no use, by their numbers in cuda.h: errors of memory and of the link between GPUs that
/// cannot be corrected, and what a kernel can do wrong.
const FATAL: [Status; 13] = [
    214, // CUDA_ERROR_ECC_UNCORRECTABLE
    220, // CUDA_ERROR_NVLINK_UNCORRECTABLE
    700, // CUDA_ERROR_ILLEGAL_ADDRESS
    702, // CUDA_ERROR_LAUNCH_TIMEOUT
    709, // CUDA_ERROR_CONTEXT_IS_DESTROYED
    710, // CUDA_ERROR_ASSERT
    714, // CUDA_ERROR_HARDWARE_STACK_ERROR
    715, // CUDA_ERROR_ILLEGAL_INSTRUCTION
    716, // CUDA_ERROR_MISALIGNED_ADDRESS
    717, // CUDA_ERROR_INVALID_ADDRESS_SPACE
    718, // CUDA_ERROR_INVALID_PC
    719, // CUDA_ERROR_LAUNCH_FAILED
    721, // CUDA_ERROR_TENSOR_MEMORY_LEAK
];

/// Kernels that an error names, at most.
const NAMED: usize = 8;

/// Whether a status means that the context is of no use any more.
pub(super) fn is_fatal(status: Status) -> bool {
    FATAL.contains(&status)
}

/// The names of the kernels of a launch, or of launches that were recorded.
pub(super) type Names = Arc<[String]>;

/// What a failure was.
#[derive(Clone, Debug)]
struct Fault {
    kernels: String,
    reason: String,
}

/// Failures of devices in this process, by the devices' numbers: a context cannot be opened again after one.
static FAILED: Mutex<BTreeMap<usize, Fault>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(ordinal: usize, fault: &Fault) -> DeviceError {
    DeviceError::Fault {
        device: format!("cuda:{ordinal}"),
        kernels: fault.kernels.clone(),
        reason: fault.reason.clone(),
    }
}

/// The error of opening a device whose context cannot be opened because it has failed.
pub(super) fn cannot_open(ordinal: usize, reason: String) -> DeviceError {
    let known = lock(&FAILED).get(&ordinal).cloned();
    error(ordinal, &known.unwrap_or_else(|| Fault { kernels: describe(&[]), reason }))
}

/// What runs on a device, and whether it has failed.
pub(super) struct Faults {
    ordinal: usize,
    /// Kernels that may run, by the address of their names, with the number of the last launch of them.
    running: Mutex<BTreeMap<usize, (u64, Names)>>,
    fault: OnceLock<Fault>,
}

impl Faults {
    /// Of a device by its number, on which nothing runs yet.
    pub(super) fn new(ordinal: usize) -> Faults {
        Faults { ordinal, running: Mutex::default(), fault: OnceLock::new() }
    }

    /// Notes a launch by its number, before it is queued.
    pub(super) fn launched(&self, number: u64, names: &Names) {
        let key = Arc::as_ptr(names).cast::<String>().addr();
        lock(&self.running).insert(key, (number, names.clone()));
    }

    /// Forgets launches up to a number, which are over.
    pub(super) fn over(&self, number: u64) {
        lock(&self.running).retain(|_, running| running.0 > number);
    }

    /// An error where the device has failed.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        self.fault.get().map_or(Ok(()), |fault| Err(error(self.ordinal, fault)))
    }

    /// The device has failed, for a reason in the driver's words.
    pub(super) fn fail(&self, reason: String) -> DeviceError {
        let fault = self.fault.get_or_init(|| {
            let mut running: Vec<(u64, Names)> = std::mem::take(&mut *lock(&self.running)).into_values().collect();
            running.sort_by_key(|r| r.0);
            let names: Vec<&str> = running.iter().flat_map(|r| r.1.iter().map(String::as_str)).collect();
            let fault = Fault { kernels: describe(&names), reason };
            lock(&FAILED).insert(self.ordinal, fault.clone());
            fault
        });
        error(self.ordinal, fault)
    }
}

/// Kernels as an error names them.
fn describe(names: &[&str]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(name) {
            all.push(name);
        }
    }
    match all[..] {
        [] => "a kernel that was launched elsewhere in this process".into(),
        [name] => format!("kernel {name}"),
        _ => {
            let more = all.len().saturating_sub(NAMED);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            all.truncate(NAMED);
            format!("one of the kernels {}{rest} (DEBUG=2 runs them one by one)", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Names {
        all.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn kernels_that_may_run_are_named_once_and_for_all() {
        let faults = Faults::new(4000);
        let (one, recorded) = (names(&["r_1"]), names(&["r_2", "E_3", "r_2"]));
        faults.launched(1, &one);
        faults.launched(2, &recorded);
        faults.launched(3, &one);
        faults.over(2);
        assert!(faults.check().is_ok());
        let text = "cuda:4000 failed while it ran kernel r_1: bad (BAD)";
        assert!(faults.fail("bad (BAD)".into()).to_string().starts_with(text));
        // What comes after it, of whatever status, is the same failure; so is opening the device again.
        for e in [faults.fail("other".into()), faults.check().unwrap_err(), cannot_open(4000, "other".into())] {
            assert!(e.to_string().starts_with(text), "{e}");
        }
    }

    #[test]
    fn several_kernels_are_named_in_their_order() {
        let faults = Faults::new(4001);
        faults.launched(8, &names(&["r_2", "E_3", "r_2"]));
        faults.launched(7, &names(&["r_1"]));
        faults.over(6);
        let text = faults.fail(String::new()).to_string();
        assert!(text.contains("one of the kernels r_1, r_2, E_3 (DEBUG=2"), "{text}");
        let many: Vec<String> = (0..20).map(|n| format!("E_{n}")).collect();
        let text = describe(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(text.contains("E_7 and 12 more ("), "{text}");
        let unknown = cannot_open(4002, "bad".into()).to_string();
        assert!(unknown.contains("elsewhere in this process: bad"), "{unknown}");
    }
}
