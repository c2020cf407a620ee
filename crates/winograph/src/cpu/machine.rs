//! What machine this is: vector width, caches, features.

use std::fs;
use winograph_compiler::Target;

/// The target that describes this machine, with as many threads as this process may use. Cache sizes come from sysfs where it can be read.
pub fn host_target() -> Target {
    capped_target(None)
}

/// [`host_target`] with vectors of at most so many bytes.
pub fn capped_target(vector_bytes: Option<usize>) -> Target {
    let widest = self::vector_bytes();
    let mut target = Target::cpu(vector_bytes.map_or(widest, |most| most.clamp(16, widest)));
    target.threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    if cfg!(target_arch = "aarch64") {
        target.vector_registers = 32;
    }
    for index in 0..8 {
        let dir = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name: &str| fs::read_to_string(format!("{dir}/{name}")).ok().map(|s| s.trim().to_string());
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else { continue };
        let Some(bytes) = parse_size(&size).filter(|&b| b > 0) else { continue };
        match (level.as_str(), kind.as_str()) {
            ("1", "Data" | "Unified") => target.l1 = bytes,
            ("2", "Data" | "Unified") => target.l2 = bytes,
            ("3", "Data" | "Unified") => target.l3 = bytes,
            _ => {}
        }
    }
    target
}

/// Bytes of the widest vectors that code for this machine should use.
pub(super) fn vector_bytes() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        // Processors with the first part of AVX-512 alone lack what conversions and masks need.
        let full = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if full {
            return 64;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return 32;
        }
    }
    16
}

fn parse_size(s: &str) -> Option<usize> {
    let (digits, unit) = match s.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => s.split_at(at),
        None => (s, ""),
    };
    let n: usize = digits.parse().ok()?;
    n.checked_mul(match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    })
}

/// What code compiled for this machine may depend on, as text: part of the key of compiled kernels.
pub(super) fn fingerprint() -> String {
    let mut out = format!("{} {}\n", std::env::consts::ARCH, std::env::consts::OS);
    match fs::read_to_string("/proc/cpuinfo") {
        Ok(info) => {
            // The first processor's block; frequencies and numbers change from run to run.
            let kept = ["vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU part", "Features"];
            for line in info.lines().take_while(|l| !l.trim().is_empty()) {
                if kept.contains(&line.split(':').next().unwrap_or("").trim()) {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        Err(_) => out.push_str(&format!("vector bytes {}\n", vector_bytes())),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("32K"), Some(32 << 10));
        assert_eq!(parse_size("1M"), Some(1 << 20));
        assert_eq!(parse_size("123"), Some(123));
        assert_eq!(parse_size("x"), None);
        assert_eq!(parse_size("1Q"), None);
    }

    #[test]
    fn target_is_sane() {
        let t = host_target();
        assert!([16, 32, 64].contains(&t.vector_bytes));
        assert!(t.l1 >= 1 << 10 && t.l2 >= t.l1);
    }
}
