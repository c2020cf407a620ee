//! Convolution by Winograd's minimal filtering in terms of tensor operations: the *tensor-level* form, which is a
//! reference and a rival for the compiler's rewrite.
//!
//! With X̂ = Bᵀ·x, Ĝ = G·g, M̂ = Σ_c X̂⊙Ĝ, y = Aᵀ·M̂, the matrices being applied axis by axis, the last spatial axis
//! first. X̂, Ĝ and M̂ are materialised, with the positions in a tile as their outermost axes.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::conv::{Checked, ConvOptions};
use winograph_compiler::winograd::cook_toom::Transforms;
use winograph_compiler::winograd::cost::{self, Choice, Problem};
use winograph_compiler::winograd::detect::unsupported_taps;
use winograph_compiler::winograd::rational::Rational;
use winograph_compiler::{Algorithm, Options};
use winograph_ir::rule::AxisTile;
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

/// The transform matrices of F(m, r), row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrices {
    /// Aᵀ, `[m][m + r - 1]`.
    pub at: Vec<Vec<f64>>,
    /// G, `[m + r - 1][r]`.
    pub g: Vec<Vec<f64>>,
    /// Bᵀ, `[m + r - 1][m + r - 1]`.
    pub bt: Vec<Vec<f64>>,
}

impl From<&Transforms> for Matrices {
    fn from(t: &Transforms) -> Matrices {
        Matrices { at: t.at.to_f64(), g: t.g.to_f64(), bt: t.bt.to_f64() }
    }
}

/// What [`Tensor::conv_tensor_level`] chose.
#[derive(Clone, Debug)]
pub struct TensorLevel {
    /// The result.
    pub tensor: Tensor,
    /// The matrices of F(m, r) for each spatial axis on which the window has more than one tap.
    pub transforms: Vec<Transforms>,
    /// Why these.
    pub reason: String,
}

impl Matrices {
    /// Whether the matrices have the sizes of F(m, r).
    fn fit(&self, m: usize, r: usize) -> bool {
        let n = m + r - 1;
        let is =
            |a: &[Vec<f64>], rows: usize, columns: usize| a.len() == rows && a.iter().all(|row| row.len() == columns);
        is(&self.at, m, n) && is(&self.g, n, r) && is(&self.bt, n, n)
    }
}

impl Tensor {
    /// The matrix applied to an axis: `out[.., i, ..] = Σ_j matrix[i][j] * self[.., j, ..]`.
    fn transform(&self, name: &'static str, axis: usize, matrix: &[Vec<f64>]) -> Result<Tensor> {
        let (rows, columns) = (matrix.len(), self.shape()[axis]);
        let values = matrix.iter().flatten().map(|&v| Scalar::from_f64(self.dtype(), v)).collect();
        let table = Tensor::table(name, self.dtype(), values, vec![rows, columns])?;
        let mut full = self.shape().to_vec();
        full.insert(axis, rows);
        let mut table_shape = vec![1; full.len()];
        table_shape[axis] = rows;
        table_shape[axis + 1] = columns;
        let a = table.reshape_to(name, &table_shape)?.expand_as(name, &full)?;
        let x = self.unsqueeze(axis as isize)?.expand_as(name, &full)?;
        a.binary(name, BinaryOp::Mul, &x)?.reduce(name, ReduceOp::Add, &[axis + 1], SumOrder::Any)
    }

    /// [`conv`](Tensor::conv) by F(m, r) on each spatial axis, `m` from `tile` and `r` from the weight, with one set of
    /// matrices per axis. Ĝ is computed in `f64` and rounded to the dtype in which the sums are done: that of the
    /// tensors, or `f32` for half floats.
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv); a stride or dilation other than 1, a dtype that is not floating, tiles of 0, another
    /// number of tiles or matrices than spatial axes, matrices of other sizes than F(m, r) has.
    pub fn conv_winograd(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvOptions,
        tile: &[usize],
        matrices: &[Matrices],
    ) -> Result<Tensor> {
        let name = "conv_winograd";
        self.require_float(name)?;
        let conv = Checked::new(name, self, weight, bias, options)?;
        let shapes = [self.shape(), weight.shape()];
        for (what, list) in [("stride", &conv.stride), ("dilation", &conv.dilation)] {
            if list.iter().any(|&s| s != 1) {
                return Err(
                    Error::argument(name, format!("{what} {list:?}"), &shapes, "1 on every axis").hint("use conv")
                );
            }
        }
        let rank = conv.rank();
        let window = &weight.shape()[2..];
        if tile.len() != rank || matrices.len() != rank || tile.contains(&0) {
            let got = format!("the tile {tile:?} with matrices for {} axes", matrices.len());
            let expected = format!("a positive tile and matrices for each of {rank} spatial axes");
            return Err(Error::argument(name, got, &shapes, expected));
        }
        for i in 0..rank {
            let (m, r) = (tile[i], window[i]);
            if m.checked_add(r).is_none() || !matrices[i].fit(m, r) {
                let expected = format!("the matrices of F({m}, {r}) on spatial axis {i}");
                return Err(Error::argument(name, "matrices of other sizes", &shapes, expected));
            }
        }
        conv.winograd(name, tile, matrices)
    }

    /// [`conv_winograd`](Tensor::conv_winograd) with generated matrices: with the tile (one number for each
    /// spatial axis on which the window has more than one tap, or one for all) and points of the caller's choice, or those that the compiler's rewrite would take when it is asked
    /// for Winograd.
    ///
    /// ```
    /// # use winograph::{ConvOptions, DType, Tensor};
    /// let x = Tensor::ones(&[1, 2, 8, 8], DType::F32)?;
    /// let w = Tensor::ones(&[4, 2, 3, 3], DType::F32)?;
    /// let chosen = x.conv_tensor_level(&w, None, &ConvOptions::padding(1), Some(&[4]), None)?;
    /// assert_eq!(chosen.transforms[0].m, 4);
    /// assert_eq!(chosen.tensor.shape(), [1, 4, 8, 8]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv); a tile that is none, a point given twice; and [`Error::Inapplicable`] for a stride or
    /// dilation other than 1, windows that have no rewrite, tiles and points that do not fit the window or each other, too
    /// many positions, a dtype that is not floating, sizes of 0, and where no tile is accurate enough.
    pub fn conv_tensor_level(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvOptions,
        tile: Option<&[usize]>,
        points: Option<&[Rational]>,
    ) -> Result<TensorLevel> {
        let name = "conv_winograd";
        Checked::new(name, self, weight, bias, options)?.tensor_level(name, tile, points)
    }
}

impl Checked {
    /// The tensor-level form with generated matrices: see [`Tensor::conv_tensor_level`].
    pub(crate) fn tensor_level(
        &self,
        name: &'static str,
        tile: Option<&[usize]>,
        points: Option<&[Rational]>,
    ) -> Result<TensorLevel> {
        let no = |reason: String| Err(Error::Inapplicable { op: name, reason });
        if !self.x.dtype().is_float() {
            return no(format!("its dtype {} is not a float", self.x.dtype()));
        }
        if let Some(s) = self.stride.iter().find(|&&s| s != 1) {
            return no(format!("its window moves with stride {s}, not 1"));
        }
        if let Some(d) = self.dilation.iter().find(|&&d| d != 1) {
            return no(format!("its window has dilation {d}, not 1"));
        }
        if self.out_shape().contains(&0) || self.weight.shape()[1] == 0 {
            return no("there is no sum of products".to_string());
        }
        let window = &self.weight.shape()[2..];
        // Along an axis with one tap nothing slides: to the rewrite it is one more batch axis.
        let sliding: Vec<usize> = (0..window.len()).filter(|&i| window[i] != 1).collect();
        let of = |list: &[usize]| sliding.iter().map(|&i| list[i]).collect::<Vec<usize>>();
        let checked = if sliding.is_empty() { window.to_vec() } else { of(window) };
        if let Some(reason) = checked.iter().find_map(|&r| unsupported_taps(r as i64)) {
            return no(reason);
        }
        let still: usize = (0..window.len()).filter(|&i| window[i] == 1).map(|i| self.out[i]).product();
        let (n, c, k) = (self.x.shape()[0] * still, self.x.shape()[1], self.weight.shape()[0]);
        let problem = Problem::convolution(n, c, k, self.groups, &of(&self.out), &checked)
            .unmixed("tensors have tiles of one size on an axis");
        if self.rule.exact_nonfinite {
            return no("a NaN or infinity must not spread beyond the sums that read it (exact_nonfinite)".to_string());
        }
        if self.rule.algorithm == Some(Algorithm::Direct) {
            return no("the direct form was asked for".to_string());
        }
        let points = points.map(<[Rational]>::to_vec);
        let mut options = Options { points, ..Options::default() }.ruled(&self.rule);
        options.algorithm = Algorithm::Winograd;
        // A number for each spatial axis counts where the window slides.
        let given = tile.map(|t| t.iter().map(|&m| m.into()).collect()).or(options.tile);
        options.tile = given.map(|t: Vec<AxisTile>| match t.len() == window.len() && t.len() > 1 {
            true => sliding.iter().map(|&i| t[i]).collect(),
            false => t,
        });
        match cost::decide(&problem, &options) {
            Err(wrong) => {
                let shapes = [self.x.shape(), self.weight.shape()];
                Err(Error::argument(name, "the tile or the points", &shapes, wrong))
            }
            Ok(Err(reason)) => no(reason),
            Ok(Ok(Choice { axes, reason, .. })) => {
                let transforms: Vec<Transforms> = axes.into_iter().flatten().map(|part| part.transforms).collect();
                // F(1, 1) where nothing slides.
                let one = || vec![vec![1.0]];
                let mut tile = vec![1; window.len()];
                let mut matrices = vec![Matrices { at: one(), g: one(), bt: one() }; window.len()];
                for (&i, t) in sliding.iter().zip(&transforms) {
                    (tile[i], matrices[i]) = (t.m, Matrices::from(t));
                }
                let tensor = self.winograd(name, &tile, &matrices)?;
                Ok(TensorLevel { tensor, transforms, reason })
            }
        }
    }

    fn winograd(&self, name: &'static str, tile: &[usize], matrices: &[Matrices]) -> Result<Tensor> {
        let rank = self.rank();
        let (n, g) = (self.x.shape()[0], self.groups);
        let (k, c) = (self.weight.shape()[0], self.weight.shape()[1]);
        let compute = self.x.dtype().compute();
        if self.out_shape().contains(&0) || c == 0 {
            let zero = Tensor::full_scalar(name, Scalar::zero(compute), &self.out_shape())?;
            return self.finish(name, &zero);
        }
        let window = &self.weight.shape()[2..];
        let tiles: Vec<usize> = (0..rank).map(|i| self.out[i].div_ceil(tile[i])).collect();
        let positions: Vec<usize> = (0..rank).map(|i| tile[i] + window[i] - 1).collect();

        // Tiles must cover the output: the last one may read zeros beyond the padding. They overlap by r - 1.
        let mut padding = Vec::with_capacity(rank);
        for i in 0..rank {
            let (before, _) = self.padding[i];
            let covered = tiles[i].checked_mul(tile[i]).and_then(|s| s.checked_add(window[i] - 1));
            let after = covered.and_then(|s| s.checked_sub(self.x.shape()[2 + i] + before));
            let Some(after) = after else {
                let got = format!("the tile {tile:?}");
                return Err(Error::argument(
                    name,
                    got,
                    &[self.x.shape(), self.weight.shape()],
                    "sizes that can be counted",
                ));
            };
            padding.push((before, after));
        }
        let mut d = self.padded(name, &padding)?;
        for i in 0..rank {
            d = d.unfold_to(name, 2 + i, positions[i], tile[i], 1)?;
        }
        // d is [n, c, tiles.., positions..]; X̂ is [positions.., n, g, 1, c/g, tiles..].
        for i in (0..rank).rev() {
            d = d.transform(name, 2 + rank + i, &matrices[i].bt)?;
        }
        let order: Vec<usize> = (2 + rank..2 + 2 * rank).chain(0..2 + rank).collect();
        let x_hat = d.permute_to(name, &order)?.contiguous()?;
        let shape: Vec<usize> = positions.iter().chain(&[n, g, 1, c]).chain(&tiles).copied().collect();
        let x_hat = x_hat.reshape_to(name, &shape)?;

        // Ĝ is [positions.., 1, g, k/g, c/g, 1..].
        let mut w = self.weight.cast(DType::F64)?;
        for i in (0..rank).rev() {
            w = w.transform(name, 2 + i, &matrices[i].g)?;
        }
        let order: Vec<usize> = (2..2 + rank).chain([0, 1]).collect();
        let g_hat = w.cast(compute)?.permute_to(name, &order)?.contiguous()?;
        let ones = vec![1; rank];
        let shape: Vec<usize> = positions.iter().chain(&[1, g, k / g, c]).chain(&ones).copied().collect();
        let g_hat = g_hat.reshape_to(name, &shape)?;

        // M̂ is [positions.., n, g, k/g, tiles..].
        let full: Vec<usize> = positions.iter().chain(&[n, g, k / g, c]).chain(&tiles).copied().collect();
        let products = x_hat.expand_as(name, &full)?.binary(name, BinaryOp::Mul, g_hat.expand_as(name, &full)?)?;
        let m_hat = products.reduce(name, ReduceOp::Add, &[rank + 3], SumOrder::Sequential)?.contiguous()?;

        // y is [tile.., n, g, k/g, tiles..], then [n, g, k/g, tiles, tile, ..], then [n, k, out..].
        let mut y = m_hat;
        for i in (0..rank).rev() {
            y = y.transform(name, i, &matrices[i].at)?;
        }
        let order: Vec<usize> = (rank..rank + 3).chain((0..rank).flat_map(|i| [rank + 3 + i, i])).collect();
        let covered: Vec<usize> = (0..rank).map(|i| tiles[i] * tile[i]).collect();
        let shape: Vec<usize> = [n, k].iter().chain(&covered).copied().collect();
        let y = y.permute_to(name, &order)?.reshape_to(name, &shape)?;
        let y = y.slice_to(name, vec![0; 2 + rank], vec![1; 2 + rank], self.out_shape())?;
        self.finish(name, &y)
    }
}
