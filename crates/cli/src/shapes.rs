//! The convolution that is asked for: lists are read and checked here.

use crate::args::{ConvArgs, GridArg, LayoutArg, ProductsArg, Weights};
use crate::error::{Error, Result};
use crate::machine::Name;
use winograph::{AxisTile, ConvOptions, DType, Tensor, Tolerance, WindowRule};
use winograph_compiler::Options;
use winograph_compiler::options::{GridRule, LayoutRule, Products};
use winograph_compiler::winograd::cost::TILES;
use winograph_compiler::winograd::detect::unsupported_taps;
use winograph_compiler::winograd::rational::Rational;

/// Input shape of the reference case, used where none is given.
const INPUT: [usize; 4] = [1, 16, 64, 64];
/// Weight shape of the reference case.
const WEIGHT: [usize; 4] = [16, 16, 3, 3];
/// Padding of the reference case.
const PADDING: usize = 1;

/// A convolution whose arguments fit each other. All lists have one entry per spatial axis.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `[n, c, spatial..]`.
    pub(crate) input: Vec<usize>,
    /// `[k, c/groups, window..]`.
    pub(crate) weight: Vec<usize>,
    pub(crate) stride: Vec<usize>,
    /// Zeros on each of both sides.
    pub(crate) padding: Vec<usize>,
    pub(crate) dilation: Vec<usize>,
    pub(crate) groups: usize,
    /// `[n, k, out..]`.
    pub(crate) output: Vec<usize>,
    /// Outputs per tile as given: one per axis or one for all.
    pub(crate) tile: Option<Vec<AxisTile>>,
    pub(crate) points: Option<Vec<Rational>>,
    pub(crate) weights: Weights,
    pub(crate) device: Name,
    /// The compiler's options that are asked for by name: layouts, grids, stages.
    pub(crate) rules: Options,
}

impl Case {
    /// Reads and checks the arguments. Everything that can be wrong with them is found here.
    pub(crate) fn new(args: &ConvArgs) -> Result<Case> {
        let device = Name::parse(&args.device)?;
        let input = match &args.input {
            Some(text) => numbers("--input", text)?,
            None => INPUT.to_vec(),
        };
        let weight = match &args.weight {
            Some(text) => numbers("--weight", text)?,
            None => WEIGHT.to_vec(),
        };
        for (option, list, what) in [
            ("--input", &input, "N,C and 1 to 3 spatial sizes"),
            ("--weight", &weight, "K,C/groups and 1 to 3 window sizes"),
        ] {
            if !(3..=5).contains(&list.len()) {
                return Err(Error::usage(format!("{option} has {} numbers, expected 3 to 5: {what}", list.len())));
            }
        }
        if input.len() != weight.len() {
            return Err(Error::usage(format!(
                "--input has {} numbers and --weight has {}, expected as many: a window size for each spatial axis",
                input.len(),
                weight.len()
            )));
        }
        let rank = input.len() - 2;
        let padding = match &args.padding {
            Some(text) => per_axis("--padding", text, rank)?,
            None if args.input.is_none() && args.weight.is_none() => vec![PADDING; rank],
            None => vec![0; rank],
        };
        let [groups] = numbers("--groups", &args.groups)?[..] else {
            return Err(Error::usage(format!("--groups '{}' is a list, expected one number", args.groups)));
        };
        let mut case = Case {
            stride: per_axis("--stride", &args.stride, rank)?,
            dilation: per_axis("--dilation", &args.dilation, rank)?,
            padding,
            groups,
            output: vec![],
            tile: tile(&args.tile, rank)?,
            points: args.points.as_deref().map(points).transpose()?,
            weights: args.weights,
            device,
            rules: rules(args)?,
            input,
            weight,
        };
        // The library knows which shapes fit each other; nothing is computed.
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32);
        let result = zeros(&case.input).and_then(|x| x.conv_direct(&zeros(&case.weight)?, None, &case.options()));
        case.output = result.map_err(|e| Error::of("cannot describe the convolution", e))?.shape().to_vec();
        case.check_points()?;
        Ok(case)
    }

    /// The product of matrices `[m, k] x [k, n]` as a convolution that has the same sums: m images of k channels, n
    /// output channels, nothing slides. The weight `[n, k]` is the second factor transposed.
    pub(crate) fn matmul(size: &str) -> Result<Case> {
        let [m, n, k] = numbers("--size", size)?[..] else {
            return Err(Error::usage(format!("--size '{size}' is not three numbers, expected M,N,K")));
        };
        if m == 0 || n == 0 || k == 0 {
            return Err(Error::usage(format!("--size '{size}': there is nothing to time, expected sizes above 0")));
        }
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32);
        zeros(&[m, k])
            .and_then(|x| x.matmul(&zeros(&[k, n])?))
            .map_err(|e| Error::of("cannot describe the product", e))?;
        Ok(Case {
            input: vec![m, k, 1],
            weight: vec![n, k, 1],
            stride: vec![1],
            padding: vec![0],
            dilation: vec![1],
            groups: 1,
            output: vec![m, n, 1],
            tile: None,
            points: None,
            weights: Weights::Prepared,
            device: Name::Cpu,
            rules: Options::default(),
        })
    }

    /// The library's options.
    pub(crate) fn options(&self) -> ConvOptions {
        ConvOptions {
            stride: self.stride.clone(),
            padding: self.padding.iter().map(|&p| (p, p)).collect(),
            dilation: self.dilation.clone(),
            groups: self.groups,
            rule: WindowRule { tile: self.tile.clone().unwrap_or_default(), ..WindowRule::default() },
        }
    }

    /// Sizes of the window.
    pub(crate) fn window(&self) -> &[usize] {
        &self.weight[2..]
    }

    /// Terms of each output.
    pub(crate) fn terms(&self) -> usize {
        self.weight[1..].iter().product()
    }

    /// Bytes of input and output.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |shape: &[usize]| shape.iter().fold(DType::F32.size(), |n, &s| n.saturating_mul(s));
        bytes(&self.input).saturating_add(bytes(&self.output))
    }

    /// Operations of the direct sum: a multiplication and an addition for each term.
    pub(crate) fn flops(&self) -> u64 {
        self.output.iter().chain(&self.weight[1..]).fold(2, |n: u64, &s| n.saturating_mul(s as u64))
    }

    /// F(m, r) takes m + r - 2 points: their number must fit the tile, or some tile.
    fn check_points(&self) -> Result<()> {
        let (Some(points), window) = (&self.points, self.window()) else { return Ok(()) };
        if window.iter().any(|&r| unsupported_taps(r as i64).is_some()) {
            return Ok(());
        }
        let n = points.len();
        for (axis, &r) in window.iter().enumerate() {
            let tile = self.tile.as_ref().and_then(|t| t.get(axis).or(t.first()));
            let fits = match tile {
                Some(t) => t.sizes().iter().all(|m| m + r == n + 2),
                None => TILES.iter().any(|m| m + r - 2 == n),
            };
            if !fits {
                let expected = match tile {
                    Some(t) => {
                        let each = t.sizes().iter().map(|m| format!("F({m},{r}) takes {}", (m + r).saturating_sub(2)));
                        each.collect::<Vec<_>>().join(" and ")
                    }
                    None => format!(
                        "a window of {r} taps takes {} with tiles of 2, 3, 4 or 6",
                        TILES.map(|m| (m + r - 2).to_string()).join(", ")
                    ),
                };
                return Err(Error::usage(format!("--points has {n} points, but {expected} (infinity is implied)")));
            }
        }
        Ok(())
    }
}

fn rules(args: &ConvArgs) -> Result<Options> {
    Ok(Options {
        sum_block: args.sum_block.map(|n| n as usize),
        tolerance: args.tolerance.as_deref().map(tolerance).transpose()?,
        layout: match args.layout {
            LayoutArg::Auto => LayoutRule::Auto,
            LayoutArg::Creation => LayoutRule::Creation,
        },
        grid: match args.grid {
            GridArg::Auto => GridRule::Auto,
            GridArg::RangeId => GridRule::RangeId,
        },
        stages: args.stages,
        products: match args.products {
            ProductsArg::Exact => Products::Exact,
            ProductsArg::Tf32 => Products::Tf32,
            ProductsArg::Tf32x3 => Products::Tf32x3,
            ProductsArg::Half => Products::Half,
            ProductsArg::Auto => Products::Auto,
        },
        ..Options::default()
    })
}

/// Reads a `--tolerance`.
pub(crate) fn tolerance(text: &str) -> Result<Tolerance> {
    let times: f64 = text.trim().parse().map_err(|_| {
        Error::usage(format!("--tolerance '{text}' is not a number: how many times the direct sum's expected error"))
    })?;
    Tolerance::new(times).map_err(|e| Error::usage(format!("--tolerance '{text}': {e}")))
}

/// Reads a list of whole numbers.
fn numbers(option: &str, text: &str) -> Result<Vec<usize>> {
    text.split(',')
        .map(|item| {
            item.trim().parse::<usize>().ok().filter(|&n| n <= isize::MAX as usize).ok_or_else(|| {
                Error::usage(format!(
                    "{option} '{text}': '{item}' is not a whole number of 0 or more; expected a list such as 1,16,64,64"
                ))
            })
        })
        .collect()
}

/// Reads a list with one number per axis or one for all.
fn per_axis(option: &str, text: &str, rank: usize) -> Result<Vec<usize>> {
    match numbers(option, text)?[..] {
        [one] => Ok(vec![one; rank]),
        ref many if many.len() == rank => Ok(many.to_vec()),
        ref many => Err(Error::usage(format!(
            "{option} '{text}' has {} numbers for {rank} spatial axes; expected one per axis or one for all",
            many.len()
        ))),
    }
}

fn tile(text: &str, rank: usize) -> Result<Option<Vec<AxisTile>>> {
    if text == "auto" {
        return Ok(None);
    }
    let axis = |item: &str| item.trim().parse().map_err(|e| Error::usage(format!("--tile '{text}': '{item}': {e}")));
    let tile = text.split(',').map(axis).collect::<Result<Vec<AxisTile>>>()?;
    if let Some(bad) = tile.iter().flat_map(AxisTile::sizes).find(|m| !TILES.contains(m)) {
        return Err(Error::usage(format!(
            "--tile '{text}': a tile of {bad} is not known, expected auto, 2, 3, 4 or 6"
        )));
    }
    if tile.len() != 1 && tile.len() != rank {
        return Err(Error::usage(format!(
            "--tile '{text}' has {} numbers for {rank} spatial axes; expected one per axis or one for all",
            tile.len()
        )));
    }
    Ok(Some(tile))
}

fn points(text: &str) -> Result<Vec<Rational>> {
    let mut out: Vec<Rational> = Vec::new();
    for item in text.split(',') {
        let p = item.parse::<Rational>().map_err(|e| Error::usage(format!("--points '{text}': {e}")))?;
        if out.contains(&p) {
            return Err(Error::usage(format!("--points '{text}': the point {p} is there twice, points must differ")));
        }
        out.push(p);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(numbers("--input", "1, 2,3").ok(), Some(vec![1, 2, 3]));
        for bad in ["", "1,", "-1", "1.5", "a", "99999999999999999999"] {
            assert!(numbers("--input", bad).is_err(), "{bad}");
        }
        assert_eq!(per_axis("--stride", "2", 3).ok(), Some(vec![2, 2, 2]));
        assert!(per_axis("--stride", "2,2", 3).is_err());
        assert_eq!(tile("auto", 2).ok(), Some(None));
        assert_eq!(tile("4,2", 2).ok(), Some(Some(vec![4.into(), 2.into()])));
        assert_eq!(tile("4+2", 2).ok(), Some(AxisTile::of(&[4, 2]).map(|t| vec![t])));
        assert!(tile("4+5", 2).is_err() && tile("4+", 2).is_err() && tile("4+2,4,4", 2).is_err());
        assert!(tile("0", 2).is_err() && tile("5", 2).is_err() && tile("4,4,4", 2).is_err());
        assert_eq!(points("0,1,-1").map(|p| p.len()).ok(), Some(3));
        assert!(points("0,1/2,0.5").is_err());
    }
}
