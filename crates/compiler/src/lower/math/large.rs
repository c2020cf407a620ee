//! Reduction of large arguments modulo π/2, in integers (M. Payne and R. Hanek, *Radian reduction for trigonometric
//! functions*, SIGNUM Newsletter 18, 1983): a float is a whole number times a power of 2, so of 2/π only the bits
//! matter that the product leaves below 4.

use super::Emit;
use winograph_ir::indexed::ValId;
use winograph_ir::{BinaryOp, DType};

/// 2/π after the binary point, and zeros: 64 bits each.
const TWO_OVER_PI: [u64; 19] = [
    0xa2f9836e4e441529,
    0xfc2757d1f534ddc0,
    0xdb6295993c439041,
    0xfe5163abdebbc561,
    0xb7246e3a424dd2e0,
    0x06492eea09d1921c,
    0xfe1deb1cb129a73e,
    0xe88235f52ebb4484,
    0xe99c7026b45f7e41,
    0x3991d639835339f4,
    0x9c845f8bbdf9283b,
    0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f,
    0x6d367ecf27cb09b7,
    0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea,
    0x6bfb5fb11f8d5d08,
    0x56033046fc7b6bab,
];

/// π/2 as a sum of two f64.
const HALF_PI: [f64; 2] = [std::f64::consts::FRAC_PI_2, 6.123233995736766e-17];

/// Bits of a mantissa of f64 with its leading one, less one.
const MANTISSA: i64 = 52;
/// Exponent field of 1 in f64.
const BIAS: i64 = 1023;
/// Half of a word.
const LOW: i64 = 0xffff_ffff;

/// `x`, an f64 of at least 2^45, as `q·π/2 + r` with |r| ≤ π/4: r as f64 with an error of about half a unit in its last
/// place, and q modulo 4 as i64. What other values give means nothing. `narrow` says that `x` was an f32.
///
/// With x = M·2^e, M of 53 bits (24), the product M·(2/π·2^e mod 4) is kept modulo 4 in 192 bits (128), two of them
/// before the point. Bits of 2/π that are left out change it by less than 2^-136 (2^-101), and no f64 comes closer to a
/// multiple of π/2 than 2^-61 (J.-M. Muller, *Elementary Functions*, on range reduction), f32 not nearly that close.
pub(super) fn reduce(w: &mut Emit, x: ValId, narrow: bool) -> (ValId, ValId) {
    // Zeros at the end of M, and the largest exponent.
    let (zeros, widest, words) = if narrow { (29, 127, 2) } else { (0, 1023, 3) };
    let bits = w.bits(x);
    let exponent = w.shr(bits, MANTISSA);
    // 2/π begins behind the point, and the window two bits before it.
    let offset = zeros - MANTISSA - 2 + PADDING;
    let first = w.int(offset - BIAS);
    let first = w.add(exponent, first);
    let window = window(w, first, widest + offset, words);
    let m = w.and(bits, (1 << MANTISSA) - 1);
    let leading = w.int(1 << MANTISSA);
    let m = w.bin(BinaryOp::Or, m, leading);
    let m = w.shr(m, zeros);
    let (m0, m1) = (w.and(m, LOW), (!narrow).then(|| w.shr(m, 32)));

    // Long multiplication in columns of 32 bits from the right. M's high half has 21 bits, so sums stay positive.
    let mut columns = Vec::with_capacity(2 * words);
    let mut carry = w.int(0);
    let mut last: Option<ValId> = None;
    for &word in window.iter().rev() {
        for digit in [w.and(word, LOW), high(w, word)] {
            let p = w.mul(m0, digit);
            let low = w.and(p, LOW);
            let mut sum = w.add(carry, low);
            if let (Some(m1), Some(last)) = (m1, last) {
                let q = w.mul(m1, last);
                sum = w.add(sum, q);
            }
            columns.push(w.and(sum, LOW));
            let (up, over) = (high(w, p), w.shr(sum, 32));
            carry = w.add(up, over);
            last = Some(digit);
        }
    }
    let mut digits = columns.into_iter().rev();
    let mut word = || {
        let zero = w.int(0);
        let (high, low) = (digits.next().unwrap_or(zero), digits.next().unwrap_or(zero));
        let high = w.shl(high, 32);
        w.bin(BinaryOp::Or, high, low)
    };
    let (top, next) = (word(), word());

    // The quarter turn nearest to the product, and what is left as a fraction of one: `turn` in units of 2^-64, signed.
    let (quarter, half) = (w.shr(top, 62), w.shr(top, 61));
    let half = w.and(half, 1);
    let quadrant = w.add(quarter, half);
    let (turn, below) = (w.shl(top, 2), w.shr(next, 62));
    let below = w.and(below, 3);
    let turn = w.bin(BinaryOp::Or, turn, below);
    // 53 bits of the rest, which is not negative.
    let rest = w.shl(next, 2);
    let rest = w.shr(rest, 11);
    let rest = w.and(rest, (1 << 53) - 1);

    // As a sum of two f64: the integer rounded, but never up to 2^63, and what that left with the rest.
    let most = w.int(i64::MAX - 1023);
    let rounded = w.bin(BinaryOp::Min, turn, most);
    let rounded = w.cast(rounded, DType::F64);
    let back = w.cast(rounded, DType::I64);
    let error = w.sub(turn, back);
    let (error, rest) = (w.cast(error, DType::F64), w.cast(rest, DType::F64));
    let low = w.fma_const(2f64.powi(-53), rest, error);
    let (high, low) = (w.scale(2f64.powi(-64), rounded), w.scale(2f64.powi(-64), low));
    let small = w.scale(HALF_PI[1], high);
    let small = w.fma_const(HALF_PI[0], low, small);
    (w.fma_const(HALF_PI[0], high, small), quadrant)
}

/// Zeros put before 2/π so that a position is never negative.
const PADDING: i64 = 64;

/// The high half of a word, as a number that is not negative.
fn high(w: &mut Emit, x: ValId) -> ValId {
    let x = w.shr(x, 32);
    w.and(x, LOW)
}

/// Words of 2/π, behind [`PADDING`] zeros, from bit `first` on, which is between 0 and `last`.
fn window(w: &mut Emit, first: ValId, last: i64, wanted: usize) -> Vec<ValId> {
    // The word with the first bit and those after it, by the bits of the word's number from the highest down.
    let count = (last / 64) as usize + 1;
    let mut words: Vec<ValId> = (0..count + wanted)
        .map(|i| match i.checked_sub(1).and_then(|i| TWO_OVER_PI.get(i)) {
            Some(&word) => w.int(word as i64),
            None => w.int(0),
        })
        .collect();
    let mut step = count.next_power_of_two() / 2;
    while step > 0 {
        let bit = w.and(first, 64 * step as i64);
        let zero = w.int(0);
        let clear = w.bin(BinaryOp::Eq, bit, zero);
        // Words beyond the end are wanted by none.
        let kept = (step + wanted).min(words.len());
        words = (0..kept)
            .map(|i| match words.get(i + step) {
                Some(&far) => w.choose(clear, words[i], far),
                None => words[i],
            })
            .collect();
        step /= 2;
    }
    let shift = w.and(first, 63);
    let down = w.int(63);
    let down = w.sub(down, shift);
    let pairs: Vec<(ValId, ValId)> = words.iter().copied().zip(words.iter().skip(1).copied()).take(wanted).collect();
    pairs
        .into_iter()
        .map(|(word, next)| {
            // The second word moves by 64 - shift, in two steps, as 64 is no shift.
            let left = w.bin(BinaryOp::Shl, word, shift);
            let right = w.shr(next, 1);
            let right = w.and(right, i64::MAX);
            let right = w.bin(BinaryOp::Shr, right, down);
            w.bin(BinaryOp::Or, left, right)
        })
        .collect()
}
