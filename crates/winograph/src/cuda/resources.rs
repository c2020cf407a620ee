//! What kernels take of a GPU, as the assembler reports it.

/// What one kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelResources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores and loads because registers do not suffice.
    pub spill_bytes: u32,
    /// Bytes of a thread's memory: arrays that are not registers, and spills.
    pub stack_bytes: u32,
    /// Bytes of shared memory that a block declares; what a launch asks for is not among them.
    pub shared_bytes: u32,
}

/// Reads the report that `ptxas --verbose` writes for each kernel:
///
/// ```text
/// ptxas info    : Compiling entry function 'k' for 'sm_90'
/// ptxas info    : Function properties for k
/// ptxas         .     256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 40 registers, used 1 barriers, 256 bytes cumulative stack size, 1024 bytes smem
/// ```
pub fn parse_resources(log: &str) -> Vec<(String, KernelResources)> {
    let mut out: Vec<(String, KernelResources)> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or(rest);
            out.push((name.to_string(), KernelResources::default()));
            continue;
        }
        let Some((_, r)) = out.last_mut() else { continue };
        for part in line.split(',') {
            // The number before the words that say what it counts.
            let before = |what: &str| -> Option<u32> {
                let (head, _) = part.split_once(what)?;
                head.split_whitespace().next_back()?.parse().ok()
            };
            if let Some(n) = before(" registers") {
                r.registers = n;
            } else if let Some(n) = before(" bytes spill") {
                r.spill_bytes = r.spill_bytes.saturating_add(n);
            } else if let Some(n) = before(" bytes stack frame") {
                r.stack_bytes = n;
            } else if let Some(n) = before(" bytes smem") {
                r.shared_bytes = n;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_two_kernels() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
ptxas         .     256 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 256 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compile time = 3.1 ms
ptxas info    : Compiling entry function 'other' for 'sm_90'
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 368 bytes cmem[0]
";
        let k = KernelResources { registers: 40, spill_bytes: 20, stack_bytes: 256, shared_bytes: 1024 };
        let other = KernelResources { registers: 8, ..KernelResources::default() };
        assert_eq!(parse_resources(log), [("k".to_string(), k), ("other".to_string(), other)]);
        assert_eq!(parse_resources(""), []);
    }
}
