//! What a caller may ask of the compiler: one hashable value, read from nowhere else.

use crate::optimize::stored::StoredPlans;
use crate::schedule::host::MOST_CHUNKS;
use crate::tune::TuningRule;
use crate::winograd::rational::Rational;
pub use winograph_ir::rule::{Algorithm, AxisTile, Tolerance, WindowRule};

/// How the compiler's own buffers are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LayoutRule {
    /// By the accesses of writers and readers together.
    #[default]
    Auto,
    /// In the order in which a rewrite listed its ranges: the last one contiguous.
    Creation,
}

impl LayoutRule {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            LayoutRule::Auto => "auto",
            LayoutRule::Creation => "creation",
        }
    }
}

/// How a GPU's parallel ranges are bound to its blocks and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum GridRule {
    /// By the addresses that the lanes of a warp touch.
    #[default]
    Auto,
    /// tinygrad's rule: by the order in which ranges were made, the last one fastest among blocks, the first one fastest
    /// among threads.
    RangeId,
}

impl GridRule {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            GridRule::Auto => "auto",
            GridRule::RangeId => "range-id",
        }
    }
}

/// Where the stages of a rewrite may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum StageRule {
    /// Wherever that costs least.
    #[default]
    Auto,
    /// In global memory, each computed by a kernel of its own.
    Global,
    /// The same, for about so many chunks of the result one after another: the memory between the kernels holds one chunk.
    Chunks(u32),
    /// On a GPU in a workgroup's shared memory, where one block of the result fits: one launch.
    Fused,
}

impl StageRule {
    /// Name on the command line.
    pub fn name(self) -> String {
        match self {
            StageRule::Auto => "auto".to_string(),
            StageRule::Global => "global".to_string(),
            StageRule::Fused => "fused".to_string(),
            StageRule::Chunks(n) => format!("chunks:{n}"),
        }
    }

    /// The rule of a name.
    pub fn parse(name: &str) -> Option<StageRule> {
        match name {
            "auto" => Some(StageRule::Auto),
            "global" => Some(StageRule::Global),
            "fused" => Some(StageRule::Fused),
            _ => {
                let chunks: u32 = name.strip_prefix("chunks:")?.parse().ok()?;
                (1..=MOST_CHUNKS).contains(&i64::from(chunks)).then_some(StageRule::Chunks(chunks))
            }
        }
    }
}

/// How products may be rounded before they are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Products {
    /// As `f32` has them. Products of half floats, which `f32` holds exactly, may be those of a matrix unit.
    #[default]
    Exact,
    /// Their factors rounded to tf32's 11 significand bits, where the target has a matrix unit for that.
    Tf32,
    /// Their factors split into two tf32 numbers each, the product of what the first ones leave being left out: 22
    /// significand bits, about, on a unit that multiplies three times.
    Tf32x3,
    /// As `Exact`; and what a rewrite of half floats multiplies is rounded to them, where the target has a matrix unit for
    /// that, instead of being kept in `f32`.
    Half,
    /// `Tf32x3` and `Half` for those sums whose expected error then is within the tolerance, `Half` where it is estimated to be
    /// faster besides, and `Exact` for the others.
    Auto,
}

impl Products {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Products::Exact => "exact",
            Products::Tf32 => "tf32",
            Products::Tf32x3 => "tf32x3",
            Products::Half => "half",
            Products::Auto => "auto",
        }
    }
}

/// Options of one compilation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// How sliding-window sums are computed.
    pub algorithm: Algorithm,
    /// Outputs per tile and axis, the `m` of F(m, r), or several sizes of tiles one after the other: one for all axes or one
    /// per axis. `None` leaves it to the cost model.
    pub tile: Option<Vec<AxisTile>>,
    /// Interpolation points, without infinity; `None` takes the best known for the tile.
    pub points: Option<Vec<Rational>>,
    /// How many times the direct sum's expected error a rewrite may cost. `None` is the default tolerance for tiles that
    /// the cost model chooses, and any error for a tile that is asked for.
    pub tolerance: Option<Tolerance>,
    /// Whether a NaN or an infinity must reach no output but those whose sums read it: every sum then stays direct.
    pub exact_nonfinite: bool,
    /// Terms of a block where long sums whose order is free are summed in blocks. `None` sums products in sequence and
    /// other sums of at least 512 terms in blocks of 128. 64 to 256 make sums over many channels more accurate;
    /// `usize::MAX` sums everything in sequence.
    pub sum_block: Option<usize>,
    /// How the compiler's own buffers are laid out.
    pub layout: LayoutRule,
    /// How a GPU's parallel ranges are bound.
    pub grid: GridRule,
    /// Where stages may live.
    pub stages: StageRule,
    /// How products of `f32` may be rounded.
    pub products: Products,
    /// Plans for some kernels; one that does not fit its kernel is replaced, and the explanation says why.
    pub plans: StoredPlans,
    /// How decisions that a search has made are found.
    pub tuning: TuningRule,
    /// Run the verifiers after every pass. They always run on the code that is to be executed.
    pub verify_each_pass: bool,
}

impl Options {
    /// The options for one window: what its rule asks for, and these for what it leaves open.
    pub fn ruled(&self, rule: &WindowRule) -> Options {
        let mut of = self.clone();
        if let Some(algorithm) = rule.algorithm {
            of.algorithm = algorithm;
        }
        if !rule.tile.is_empty() {
            of.tile = Some(rule.tile.clone());
        }
        of.tolerance = rule.tolerance.or(of.tolerance);
        of.exact_nonfinite |= rule.exact_nonfinite;
        of
    }
}
