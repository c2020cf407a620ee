//! How much memory there is. Systems that promise more than they have end a process when it is used; what can never be
//! had is refused before.

use std::sync::OnceLock;

/// Requests below this are left to the allocator.
const LARGE: usize = 64 << 20;

/// Whether a request for so many bytes may be tried.
pub(crate) fn may_fit(bytes: usize) -> bool {
    bytes < LARGE || bytes as u64 <= limit()
}

/// Gives memory that was freed, and that the allocator has kept for what comes, back to the system, where that has to be asked for.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it has no preconditions: what is in use stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that this process can have at most: the machine's memory and swap, or what its control group allows.
fn limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let machine = read("/proc/meminfo").and_then(|text| from_meminfo(&text)).unwrap_or(u64::MAX);
        let group = read("/proc/self/cgroup").and_then(|text| {
            let folders = text.lines().filter_map(group_file);
            folders.filter_map(|file| read(&file)?.trim().parse::<u64>().ok()).min()
        });
        machine.min(group.unwrap_or(u64::MAX))
    })
}

/// Memory and swap of `/proc/meminfo`, in bytes.
fn from_meminfo(text: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    field("MemTotal:")?.saturating_add(field("SwapTotal:").unwrap_or(0)).checked_mul(1024)
}

/// The file with the memory limit of a line of `/proc/self/cgroup`, of either version.
fn group_file(line: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    match controllers {
        "" => Some(format!("/sys/fs/cgroup{}/memory.max", path.trim_end_matches('/'))),
        _ if controllers.split(',').any(|c| c == "memory") => {
            Some(format!("/sys/fs/cgroup/memory{}/memory.limit_in_bytes", path.trim_end_matches('/')))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(from_meminfo("MemTotal:  100 kB\nMemFree: 1 kB\nSwapTotal: 28 kB\n"), Some(131_072));
        assert_eq!(from_meminfo("nothing"), None);
        assert_eq!(group_file("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b/memory.max"));
        assert_eq!(group_file("0::/").as_deref(), Some("/sys/fs/cgroup/memory.max"));
        assert_eq!(group_file("5:cpu,memory:/x").as_deref(), Some("/sys/fs/cgroup/memory/x/memory.limit_in_bytes"));
        assert_eq!(group_file("5:cpu:/x"), None);
        assert!(may_fit(1 << 20) && !may_fit(usize::MAX));
    }
}
