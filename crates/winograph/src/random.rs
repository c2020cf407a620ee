//! Random numbers from a counter-based generator, the same on every machine.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): ten rounds of
//! multiplications mix a 128-bit counter with a 64-bit key. Block `b` of a tensor uses the counter `b`, the seed is the
//! key, so any element can be computed alone. Functions of `f64` are libm's, written in Rust, not the system's.

use crate::tensor::Element;
use winograph_ir::{DType, Scalar};

/// Four random words for a counter and a key.
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = 0xD251_1F53u64 * counter[0] as u64;
        let b = 0xCD9E_8D57u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// What a block of random words is used for; it keeps the streams of one seed apart.
#[derive(Clone, Copy)]
enum Stream {
    Uniform = 0,
    Normal = 1,
    Integers = 2,
}

/// Two random 64-bit words.
fn block(seed: u64, stream: Stream, index: u64) -> [u64; 2] {
    let counter = [index as u32, (index >> 32) as u32, stream as u32, 0];
    let r = philox(counter, [seed as u32, (seed >> 32) as u32]);
    [r[0] as u64 | (r[1] as u64) << 32, r[2] as u64 | (r[3] as u64) << 32]
}

fn write(dtype: DType, value: Scalar, out: &mut [u8]) {
    match dtype {
        DType::F64 | DType::I64 => i64::from_scalar(Scalar::from_bits(DType::I64, value.bits())).write(out),
        DType::F32 | DType::I32 => i32::from_scalar(Scalar::from_bits(DType::I32, value.bits())).write(out),
        DType::F16 | DType::BF16 => half::f16::from_bits(value.bits() as u16).write(out),
        DType::U8 | DType::I8 | DType::Bool => (value.bits() as u8).write(out),
    }
}

/// Fills `out` with uniform numbers in `[0, 1)`: multiples of the spacing of floats just below 1.
pub(crate) fn uniform(dtype: DType, seed: u64, out: &mut [u8]) {
    let digits = match dtype {
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F32 => 24,
        _ => 53,
    };
    for (i, pair) in out.chunks_mut(2 * dtype.size()).enumerate() {
        let words = block(seed, Stream::Uniform, i as u64);
        for (out, w) in pair.chunks_exact_mut(dtype.size()).zip(words) {
            let x = (w >> (64 - digits)) as f64 * 2f64.powi(-digits);
            write(dtype, Scalar::from_f64(dtype, x), out);
        }
    }
}

/// Fills `out` with normally distributed numbers, by the transform of Box and Muller in `f64`.
pub(crate) fn normal(dtype: DType, seed: u64, out: &mut [u8]) {
    for (i, pair) in out.chunks_mut(2 * dtype.size()).enumerate() {
        let [a, b] = block(seed, Stream::Normal, i as u64).map(|w| (w >> 11) as f64);
        // In (0, 1], so that the logarithm is finite.
        let u = (a + 1.0) * 2f64.powi(-53);
        let angle = b * 2f64.powi(-53) * std::f64::consts::TAU;
        let radius = (-2.0 * libm::log(u)).sqrt();
        for (out, x) in pair.chunks_exact_mut(dtype.size()).zip([libm::cos(angle), libm::sin(angle)]) {
            write(dtype, Scalar::from_f64(dtype, radius * x), out);
        }
    }
}

/// Fills `out` with integers in `low..high`; `low < high`. The bias is at most 2^-64 times the interval's size.
pub(crate) fn integers(low: i64, high: i64, dtype: DType, seed: u64, out: &mut [u8]) {
    let size = high.wrapping_sub(low) as u64;
    for (i, pair) in out.chunks_mut(2 * dtype.size()).enumerate() {
        let words = block(seed, Stream::Integers, i as u64);
        for (out, w) in pair.chunks_exact_mut(dtype.size()).zip(words) {
            let x = low.wrapping_add(((w as u128 * size as u128) >> 64) as i64);
            write(dtype, Scalar::from_i64(dtype, x), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn moments_and_bounds() {
        let n = 20_000;
        let read = |fill: fn(DType, u64, &mut [u8])| {
            let mut bytes = vec![0u8; 8 * n];
            fill(DType::F64, 7, &mut bytes);
            bytes.chunks_exact(8).map(f64::read).collect::<Vec<_>>()
        };
        let u = read(uniform);
        assert!(u.iter().all(|x| (0.0..1.0).contains(x)));
        assert!((u.iter().sum::<f64>() / n as f64 - 0.5).abs() < 0.01);
        let z = read(normal);
        assert!((z.iter().sum::<f64>() / n as f64).abs() < 0.03);
        assert!((z.iter().map(|x| x * x).sum::<f64>() / n as f64 - 1.0).abs() < 0.05);
    }

    #[test]
    fn integers_cover_their_interval() {
        let mut bytes = vec![0u8; 1000];
        integers(-3, 4, DType::I8, 1, &mut bytes);
        let mut seen: Vec<i8> = bytes.iter().map(|&b| b as i8).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [-3, -2, -1, 0, 1, 2, 3]);
    }
}
