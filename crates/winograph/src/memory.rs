//! How much memory there is. Systems that promise more than they have end a process when it is used; what can never be
//! had is refused before.

use crate::env::Env;
use std::sync::OnceLock;

/// Requests below this are left to the allocator.
const LARGE: usize = 64 << 20;

/// Whether a request for so many bytes may be tried.
pub(crate) fn may_fit(bytes: usize) -> bool {
    bytes < LARGE || bytes as u64 <= limit()
}

/// Whether a request for so many bytes that will all be used may be made now, beside what this process and others use. A request
/// that the system would grant, and then end a process for, may not.
pub(crate) fn is_available(bytes: usize) -> bool {
    bytes < LARGE || bytes as u64 <= available()
}

/// Gives memory that was freed, and that the allocator has kept for what comes, back to the system, where that has to be asked for.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it has no preconditions: what is in use stays where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that this process can have at most: the machine's memory and swap, or what its control group or its user allows.
fn limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let machine = read("/proc/meminfo").and_then(|text| from_meminfo(&text)).unwrap_or(u64::MAX);
        let group = read("/proc/self/cgroup").and_then(|text| {
            let folders = text.lines().filter_map(group_file);
            folders.filter_map(|file| read(&file)?.trim().parse::<u64>().ok()).min()
        });
        let user = Env::read().ok().and_then(|env| env.memory_bytes).unwrap_or(u64::MAX);
        machine.min(group.unwrap_or(u64::MAX)).min(user)
    })
}

/// Bytes that nobody uses now, or could be had back from caches: of the machine, or of what is left to this process's control
/// group.
fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| free_in_meminfo(&text)).unwrap_or(u64::MAX);
    let group = read("/proc/self/cgroup").and_then(|text| {
        let left = |line: &str| {
            let number = |file: String| read(&file)?.trim().parse::<u64>().ok();
            let folder = group_folder(line)?;
            let (most, now, cached) = match folder.1 {
                Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                Version::Two => ("memory.max", "memory.current", "inactive_file "),
            };
            let (most, now) = (number(format!("{}/{most}", folder.0))?, number(format!("{}/{now}", folder.0))?);
            // Files that the system has read count as used, and make room.
            let stat = read(&format!("{}/memory.stat", folder.0)).unwrap_or_default();
            let cached = stat.lines().find_map(|l| l.strip_prefix(cached)?.trim().parse::<u64>().ok()).unwrap_or(0);
            Some(most.saturating_sub(now.saturating_sub(cached)))
        };
        text.lines().filter_map(left).min()
    });
    machine.min(group.unwrap_or(u64::MAX)).min(limit())
}

/// A number of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory and swap of `/proc/meminfo`, in bytes.
fn from_meminfo(text: &str) -> Option<u64> {
    meminfo(text, "MemTotal:")?.checked_add(meminfo(text, "SwapTotal:").unwrap_or(0))
}

/// What of it nobody uses.
fn free_in_meminfo(text: &str) -> Option<u64> {
    meminfo(text, "MemAvailable:")?.checked_add(meminfo(text, "SwapFree:").unwrap_or(0))
}

/// Of control groups.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

/// The folder that says of the memory of a line of `/proc/self/cgroup`, of either version.
fn group_folder(line: &str) -> Option<(String, Version)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_end_matches('/');
    match controllers {
        "" => Some((format!("/sys/fs/cgroup{path}"), Version::Two)),
        _ if controllers.split(',').any(|c| c == "memory") => {
            Some((format!("/sys/fs/cgroup/memory{path}"), Version::One))
        }
        _ => None,
    }
}

/// The file with the memory limit of a line of `/proc/self/cgroup`, of either version.
fn group_file(line: &str) -> Option<String> {
    let (folder, version) = group_folder(line)?;
    Some(match version {
        Version::One => format!("{folder}/memory.limit_in_bytes"),
        Version::Two => format!("{folder}/memory.max"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(from_meminfo("MemTotal:  100 kB\nMemFree: 1 kB\nSwapTotal: 28 kB\n"), Some(131_072));
        assert_eq!(from_meminfo("nothing"), None);
        assert_eq!(free_in_meminfo("MemAvailable:  3 kB\nSwapFree: 1 kB\n"), Some(4096));
        assert_eq!(free_in_meminfo("MemTotal:  100 kB\n"), None);
        assert_eq!(group_file("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b/memory.max"));
        assert_eq!(group_file("0::/").as_deref(), Some("/sys/fs/cgroup/memory.max"));
        assert_eq!(group_file("5:cpu,memory:/x").as_deref(), Some("/sys/fs/cgroup/memory/x/memory.limit_in_bytes"));
        assert_eq!(group_file("5:cpu:/x"), None);
        assert!(is_available(1 << 20) && !is_available(usize::MAX) && available() <= limit());
        assert!(may_fit(1 << 20) && !may_fit(usize::MAX));
    }
}
