//! What a window takes on a GPU whose matrix units multiply what it sums: microseconds of its launches, by products and by what
//! they move.
//!
//! Counting multiply-adds, as [`cost`](super::cost) does elsewhere, says little there: units multiply so fast that the stages of a
//! rewrite, several times what it reads and writes, are what takes the time.

use super::cost::LAUNCH_US;
use crate::optimize::matrix_unit::matrix_unit;
use crate::options::Products;
use crate::target::Gpu;
use winograph_ir::DType;

/// Multiply-adds of a multiprocessor in a microsecond: on its cores in f32, on units with factors of tf32 and of half floats; by
/// what `gpu_layers` measured on an H100 (45, 225 and 460 TFLOP/s of 132 multiprocessors).
const CORES: f64 = 0.17e6;
const TF32: f64 = 0.85e6;
const HALF: f64 = 1.75e6;

/// Rows and columns of a product that a workgroup computes.
const TILE: [f64; 2] = [64.0, 128.0];

/// What another launch in a row takes, in microseconds.
const NEXT_LAUNCH: f64 = 2.0;

/// Bytes of memory a microsecond and multiprocessor: 2.7 TB/s of 132.
const BYTES: f64 = 20e3;

/// Bytes a multiprocessor that stay in the second-level cache from launch to launch, and how much faster they are moved.
const KEPT: f64 = 300e3;
const FROM_CACHE: f64 = 1.5;

/// The part of the shorter of products and accesses that is not hidden behind the other.
const BESIDE: f64 = 0.4;

/// Multiply-adds below which products stay on the cores, and terms that a unit's chunks are at least two of.
const LARGE: f64 = (1u64 << 20) as f64;

/// Units of a target for products of one dtype.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    dtype: DType,
    processors: f64,
}

/// Sizes of a window on a GPU, as a product or three launches have them.
pub(super) struct Sizes {
    /// Elements of the input, weights of one tap and elements of the output.
    pub(super) elements: [f64; 3],
    /// Products that are summed for an output.
    pub(super) taps: f64,
    pub(super) channels: f64,
    /// Arrays that share weights: rows of the same product.
    pub(super) sharing: f64,
    /// Outputs at one place of the window.
    pub(super) others: f64,
}

impl Sizes {
    /// Multiply-adds of so many places in each array and positions, with how much longer they take for tiles that they do not
    /// fill and multiprocessors that have none.
    fn filled(&self, places: f64, positions: f64, processors: f64) -> f64 {
        let columns = self.others / self.sharing;
        let tiles = positions * (places * self.sharing / TILE[0]).ceil() * (columns / TILE[1]).ceil();
        let waves = (tiles / processors).ceil() * processors / tiles;
        // One more wave of a few tiles goes on beside the one before.
        let products = positions * places * self.others * self.channels;
        if tiles > 4.0 * processors { products } else { products * waves }
    }
}

/// Sizes of a rewrite.
pub(super) struct Rewritten {
    /// Elements of X̂, Ĝ and M̂.
    pub(super) elements: [f64; 3],
    /// Tiles of an array and positions.
    pub(super) tiles: f64,
    pub(super) positions: f64,
}

impl Rewritten {
    /// Multiply-adds.
    pub(super) fn products(&self, channels: f64) -> f64 {
        self.elements[2] * channels
    }
}

impl Units {
    /// The units that multiply a dtype's products under such a rule, if the target has some.
    pub(crate) fn of(gpu: &Gpu, dtype: DType, products: Products) -> Option<Units> {
        let bits = match (dtype, products) {
            (DType::F16 | DType::BF16, _) => 24,
            (DType::F32, Products::Tf32) => 11,
            _ => return None,
        };
        let fits = |name: &&str| matrix_unit(name).is_some_and(|u| u.a.dtype == dtype && u.factor_bits == bits);
        gpu.units.iter().any(fits).then_some(Units { dtype, processors: gpu.processors as f64 })
    }

    /// The half float that what a rewrite multiplies may be rounded to.
    pub(super) fn half(self) -> Option<DType> {
        matches!(self.dtype, DType::F16 | DType::BF16).then_some(self.dtype)
    }

    /// Terms of a unit's step.
    fn step(self) -> f64 {
        if self.half().is_some() { 16.0 } else { 8.0 }
    }

    /// Whether a unit takes sums of so many channels.
    pub(super) fn take(self, channels: f64, products: f64) -> bool {
        channels % self.step() == 0.0 && channels >= 2.0 * self.step() && products >= LARGE
    }

    fn rate(self, on_units: bool) -> f64 {
        self.processors
            * match (on_units, self.half()) {
                (false, _) => CORES,
                (true, None) => TF32,
                (true, Some(_)) => HALF,
            }
    }

    fn moved(self, bytes: f64) -> f64 {
        bytes / (BYTES * self.processors)
    }

    /// Microseconds of the direct sum.
    pub(super) fn direct(self, s: &Sizes) -> f64 {
        let [x, w, y] = s.elements;
        let products = y * s.taps * s.channels;
        let bytes = (x + w * s.taps + y) * self.dtype.size() as f64;
        let filled = s.taps * s.filled(y / s.others, 1.0, self.processors);
        LAUNCH_US + beside(filled / self.rate(self.take(s.channels, products)), self.moved(bytes))
    }

    /// Microseconds of a rewrite in three launches whose X̂ and Ĝ are rounded to the units' half float, or kept in f32.
    pub(super) fn rewritten(self, s: &Sizes, r: &Rewritten, rounded: bool) -> f64 {
        let on_units = (rounded || self.half().is_none()) && self.take(s.channels, r.products(s.channels));
        let factors = if rounded { self.dtype.size() as f64 } else { 4.0 };
        let ([x, _, y], [xh, gh, mh]) = (s.elements, r.elements);
        let given = self.dtype.size() as f64;
        let own = (xh + gh) * factors + mh * 4.0;
        let faster = if own <= KEPT * self.processors { FROM_CACHE } else { 1.0 };
        let transforms = self.moved(x * given + xh * factors) + self.moved(mh * 4.0 + y * given);
        let filled = s.filled(r.tiles, r.positions, self.processors);
        let products = beside(filled / self.rate(on_units), self.moved(own) / faster);
        LAUNCH_US + 2.0 * NEXT_LAUNCH + transforms / faster + products
    }
}

/// Two things that go on beside each other.
fn beside(a: f64, b: f64) -> f64 {
    a.max(b) + BESIDE * a.min(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn gpu(name: &str) -> Gpu {
        Target::by_name(name).unwrap().gpu.unwrap()
    }

    /// A layer with as many channels in as out, N = 16, as a direct sum and in F(m, 3).
    fn layer(side: f64, channels: f64, m: f64) -> (Sizes, Rewritten) {
        let (tiles, positions) = ((side / m).ceil().powi(2), (m + 2.0).powi(2));
        let of = |places: f64| 16.0 * places * channels;
        let elements = [of(positions * tiles), positions * channels * channels, of(positions * tiles)];
        let given = [of(side * side), channels * channels, of(side * side)];
        let sizes = Sizes { elements: given, taps: 9.0, channels, sharing: 16.0, others: 16.0 * channels };
        (sizes, Rewritten { elements, tiles, positions })
    }

    /// Microseconds that `gpu_layers` measured on an H100.
    #[test]
    fn estimates_are_near_what_was_measured() {
        let units = |dtype, products| Units::of(&gpu("cuda:sm_90"), dtype, products).unwrap();
        let half = units(DType::F16, Products::Half);
        let tf32 = units(DType::F32, Products::Tf32);
        let near = |found: f64, measured: f64| {
            assert!((0.7..1.4).contains(&(found / measured)), "{found:.1} for {measured}");
        };
        for (units, side, channels, direct, f2, f4) in [
            (half, 56.0, 256.0, 133.4, 260.2, 160.7),
            (half, 28.0, 512.0, 130.9, 154.9, 96.4),
            (half, 14.0, 512.0, 53.0, 43.9, 38.1),
            (half, 14.0, 256.0, 21.2, 20.2, 20.6),
            (half, 7.0, 512.0, 25.4, 18.7, 19.1),
            (tf32, 56.0, 256.0, 234.0, 355.4, 221.0),
            (tf32, 28.0, 512.0, 241.8, 228.3, 146.8),
            (tf32, 14.0, 256.0, 36.9, 29.0, 25.6),
        ] {
            near(units.direct(&layer(side, channels, 2.0).0), direct);
            for (m, measured) in [(2.0, f2), (4.0, f4)] {
                let (sizes, rewritten) = layer(side, channels, m);
                let found = units.rewritten(&sizes, &rewritten, units.half().is_some());
                near(found, measured);
                // Who is clearly faster is estimated to be.
                let clearly = !(0.75..1.35).contains(&(measured / direct));
                assert!(!clearly || (found < units.direct(&sizes)) == (measured < direct), "{side} {m}");
            }
        }
        let (sizes, rewritten) = layer(56.0, 256.0, 4.0);
        near(half.rewritten(&sizes, &rewritten, false), 436.4);
    }

    #[test]
    fn units_are_those_of_the_dtype_and_the_rule() {
        let of = |target, dtype, products| Units::of(&gpu(target), dtype, products).is_some();
        assert!(of("cuda:sm_80", DType::BF16, Products::Exact) && of("cuda:sm_80", DType::F32, Products::Tf32));
        assert!(!of("cuda:sm_80", DType::F32, Products::Auto) && !of("cuda:sm_80", DType::F64, Products::Tf32));
        assert!(!of("metal", DType::F16, Products::Half) && !of("metal", DType::F32, Products::Tf32));
        let half = Units::of(&gpu("cuda:sm_80"), DType::F16, Products::Half).unwrap();
        assert!(half.take(32.0, 1e9) && !half.take(24.0, 1e9) && !half.take(16.0, 1e9) && !half.take(32.0, 1e5));
    }
}
