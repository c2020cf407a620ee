//! What a caller may ask of the compiler: one hashable value, read from nowhere else.

use crate::winograd::rational::Rational;

/// How sliding-window sums of products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// The cost model decides.
    #[default]
    Auto,
    /// The sum as it stands.
    Direct,
    /// Winograd wherever the rewrite applies.
    Winograd,
}

/// Options of one compilation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// How sliding-window sums are computed.
    pub algorithm: Algorithm,
    /// Outputs per tile and axis, the `m` of F(m, r): one for all axes or one per axis. `None` leaves it to the cost
    /// model.
    pub tile: Option<Vec<usize>>,
    /// Interpolation points, without infinity; `None` takes the best known for the tile.
    pub points: Option<Vec<Rational>>,
    /// Run the verifiers after every pass. They always run on the code that is to be executed.
    pub verify_each_pass: bool,
}
