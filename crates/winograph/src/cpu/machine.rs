//! What machine this is: vector width, caches, features.

use serde::{Deserialize, Serialize};
use std::{fmt, fs};
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
    target.fma = !is_sse(target.vector_bytes);
    if cfg!(target_arch = "aarch64") {
        target.vector_registers = 32;
    }
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    target.multiply_bytes = target.multiply_bytes.min(multiply_bytes(&info));
    target.far_bytes = far_bytes(&info);
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

/// Most bytes of vectors whose multiply-adds a core begins in a cycle, by what `/proc/cpuinfo` says about the first one. AMD's family
/// 25 (Zen 3 and Zen 4) has two units of 32 bytes, which take AVX-512's vectors in halves: 58.7 G multiply-adds of f32 a
/// second were measured on such a core.
fn multiply_bytes(info: &str) -> usize {
    if first(info, "vendor_id") == Some(AMD) && first(info, "cpu family") == Some("25") { 64 } else { usize::MAX }
}

/// Bytes a cycle that a core reads from the last-level cache. AMD's cores share one of theirs with few others: at 512 channels and
/// 28 x 28, on an EPYC of family 25, model 17, blocks of 32 and 64 columns, between which all of the shared operand is read
/// again, take 0.97 and 1.00 of the time of 16. Others have a mesh or a ring between: 29 GB/s (`bench/bandwidth.c`), at 3.7 GHz, of a Xeon of
/// family 6, model 167.
fn far_bytes(info: &str) -> usize {
    if first(info, "vendor_id") == Some(AMD) { 48 } else { 8 }
}

const AMD: &str = "AuthenticAMD";

/// What `/proc/cpuinfo` says of its first processor under a name.
fn first<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().take_while(|l| !l.trim().is_empty()).find_map(|l| {
        let (key, value) = l.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
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

/// Whether code with vectors of so many bytes is SSE alone: on x86, widths stand for instruction sets, and that of 16 bytes
/// has no fused multiply-add.
pub(super) fn is_sse(vector_bytes: usize) -> bool {
    cfg!(target_arch = "x86_64") && vector_bytes < 32
}

/// Makes the function that lists the extensions of an instruction set that code may have, with the vectors, in bytes,
/// from which on it has them, and whether this machine has each.
#[allow(unused_macros)]
macro_rules! extensions {
    ($detected:path: $($bytes:literal: [$($name:tt)*])*) => {
        fn extensions() -> Vec<(&'static str, usize, bool)> {
            vec![$($(($name, $bytes, { use $detected as detected; detected!($name) })),*),*]
        }
    };
}

// Those that compilers use of their own accord; narrower vectors switch the others off.
#[cfg(target_arch = "x86_64")]
extensions! {
    std::arch::is_x86_feature_detected:
    16: ["sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "lzcnt" "bmi1" "bmi2" "movbe" "tbm" "gfni"]
    32: ["avx" "avx2" "fma" "f16c" "vaes" "vpclmulqdq" "avxvnni" "avxifma" "avxneconvert" "avxvnniint8" "avxvnniint16"]
    64: ["avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512cd" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni"
        "avx512bitalg" "avx512vpopcntdq" "avx512vp2intersect" "avx512bf16" "avx512fp16"]
}

#[cfg(target_arch = "aarch64")]
extensions! {
    std::arch::is_aarch64_feature_detected:
    16: ["neon" "fp16" "fhm" "dotprod" "bf16" "i8mm" "sve" "sve2" "lse" "rdm" "crc" "fcma" "jsconv" "rcpc" "flagm"
        "frintts"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> Vec<(&'static str, usize, bool)> {
    Vec::new()
}

/// What machine code needs of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processor architecture, as in [`std::env::consts::ARCH`].
    pub arch: String,
    /// Operating system, as in [`std::env::consts::OS`].
    pub os: String,
    /// Byte order: `little` or `big`.
    pub byte_order: String,
    /// Bytes of the widest vectors that it uses.
    pub vector_bytes: usize,
    /// Extensions of the instruction set that it may use.
    pub features: Vec<String>,
}

impl Machine {
    /// What code compiled on this machine with vectors of at most so many bytes needs.
    pub fn of(vector_bytes: usize) -> Machine {
        let used = extensions().into_iter().filter(|&(_, bytes, here)| here && bytes <= vector_bytes);
        Machine {
            arch: std::env::consts::ARCH.to_string(),
            os: std::env::consts::OS.to_string(),
            byte_order: if cfg!(target_endian = "big") { "big" } else { "little" }.to_string(),
            vector_bytes,
            features: used.map(|(name, ..)| name.to_string()).collect(),
        }
    }

    /// Whether such code runs here; the error says what differs.
    ///
    /// # Errors
    /// Another architecture, system or byte order; extensions that this machine lacks.
    pub fn check(&self) -> Result<(), String> {
        let here = Machine::of(vector_bytes());
        let pairs = [
            ("processor", &self.arch, &here.arch),
            ("system", &self.os, &here.os),
            ("byte order", &self.byte_order, &here.byte_order),
        ];
        if let Some((what, its, ours)) = pairs.into_iter().find(|(_, its, ours)| its != ours) {
            return Err(format!("its {what} is {its:?}, this machine's is {ours:?}"));
        }
        if self.vector_bytes > here.vector_bytes {
            let (its, ours) = (self.vector_bytes, here.vector_bytes);
            return Err(format!("its vectors have {its} bytes, this machine's at most {ours}"));
        }
        let has = |name: &String| extensions().iter().any(|&(n, _, here)| here && n == name);
        let missing: Vec<&str> = self.features.iter().filter(|f| !has(f)).map(String::as_str).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("this machine's processor lacks {}", missing.join(", "))),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.arch, self.os)?;
        match self.features.is_empty() {
            true => Ok(()),
            false => write!(f, " with {}", self.features.join(", ")),
        }
    }
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
    fn vendor_and_family_say_what_a_core_multiplies_and_reads_in_a_cycle() {
        let info = |vendor, family| {
            format!("processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n\n")
        };
        assert_eq!(multiply_bytes(&info("AuthenticAMD", "25")), 64);
        for (vendor, family) in [("AuthenticAMD", "26"), ("GenuineIntel", "6"), ("GenuineIntel", "25")] {
            assert_eq!(multiply_bytes(&info(vendor, family)), usize::MAX);
        }
        assert_eq!(multiply_bytes(""), usize::MAX);
        assert_eq!(["AuthenticAMD", "GenuineIntel"].map(|vendor| far_bytes(&info(vendor, "25"))), [48, 8]);
        assert_eq!(far_bytes(""), 8);
        let target = host_target();
        assert!((1..=2).contains(&(target.multiply_bytes / target.vector_bytes)), "{target:?}");
    }

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

    #[test]
    fn code_of_16_bytes_on_x86_has_no_fused_multiply_add() {
        let sse = cfg!(target_arch = "x86_64");
        assert_eq!(capped_target(Some(16)).fma, !sse);
        assert_eq!(host_target().fma, !(sse && vector_bytes() == 16));
        let features = Machine::of(16).features;
        assert!(!features.iter().any(|f| f == "fma" || f == "avx"), "{features:?}");
    }
}
