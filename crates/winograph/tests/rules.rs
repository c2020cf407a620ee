//! What one call or one layer may ask of its convolution, and how far a NaN or infinity spreads.

use winograph::{
    Algorithm, ArgSpec, AxisTile, ConvOptions, DType, Error, Function, FunctionOptions, Options, Tensor, Tolerance,
    WindowRule, compile_with,
};

fn ruled(rule: WindowRule) -> ConvOptions {
    ConvOptions { rule, ..ConvOptions::padding(1) }
}

fn winograd(tile: usize) -> WindowRule {
    WindowRule { algorithm: Some(Algorithm::Winograd), tile: vec![tile.into()], ..WindowRule::default() }
}

fn direct() -> WindowRule {
    WindowRule { algorithm: Some(Algorithm::Direct), ..WindowRule::default() }
}

/// Convolutions in a row, each by its rule.
fn layers(rules: &[WindowRule], whole: Options) -> Function {
    let w = Tensor::randn(&[8, 8, 3, 3], DType::F32, 5).unwrap();
    let how = FunctionOptions { compiler: Some(whole), ..FunctionOptions::default() };
    let written = |args: &[Tensor]| {
        let mut x = args[0].clone();
        for rule in rules {
            x = x.conv2d(&w, None, &ruled(rule.clone()))?;
        }
        Ok(vec![x])
    };
    compile_with(&[ArgSpec::new(DType::F32, &[1, 8, 12, 12])], &how, written).unwrap()
}

fn tiles(f: &Function) -> Vec<Vec<AxisTile>> {
    f.explanation().windows.iter().map(|w| w.tile.clone()).collect()
}

#[test]
fn layers_follow_their_own_rules() {
    let whole = Options { algorithm: Algorithm::Winograd, tile: Some(vec![2.into()]), ..Options::default() };
    let f = layers(&[winograd(4), WindowRule::default(), direct(), winograd(3)], whole);
    assert_eq!(tiles(&f), [vec![4, 4], vec![2, 2], vec![], vec![3, 3]]);
    let f =
        layers(&[winograd(4), WindowRule::default()], Options { algorithm: Algorithm::Direct, ..Options::default() });
    assert_eq!(tiles(&f), [vec![4, 4], vec![]]);
}

#[test]
fn rules_of_equal_layers_stay_apart() {
    let x = Tensor::randn(&[1, 4, 9, 9], DType::F32, 1).unwrap();
    // Two tensors of the same numbers: what both sums had in common would be materialised.
    let [v, w] = [2, 2].map(|seed| Tensor::randn(&[4, 4, 3, 3], DType::F32, seed).unwrap());
    let both = compile_with(&[ArgSpec::new(DType::F32, &[1, 4, 9, 9])], &FunctionOptions::default(), |args| {
        Ok(vec![args[0].conv2d(&v, None, &ruled(direct()))?, args[0].conv2d(&w, None, &ruled(winograd(4)))?])
    })
    .unwrap();
    assert_eq!(tiles(&both), [vec![], vec![4, 4]]);
    let out = both.call(&[&x]).unwrap();
    let (a, b) = (out[0].to_vec::<f32>().unwrap(), out[1].to_vec::<f32>().unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4) && a != b);
    // Without a function: a lazy tensor carries its rule as well.
    let lazy = x.conv2d(&w, None, &ruled(winograd(4))).unwrap();
    assert_eq!(lazy.to_vec::<f32>().unwrap(), b);
}

#[test]
fn tolerances_limit_rewrites() {
    let with = |tile: &[usize], times: f64| WindowRule {
        algorithm: Some(Algorithm::Winograd),
        tile: tile.iter().map(|&m| m.into()).collect(),
        tolerance: Some(Tolerance::new(times).unwrap()),
        ..WindowRule::default()
    };
    let f = layers(&[with(&[6], 3.0), with(&[6], 50.0), with(&[], 1.0), with(&[], 0.0)], Options::default());
    let [six, wide, same, none] = &f.explanation().windows[..] else { panic!("four windows") };
    assert!(!six.applied && six.reason.contains("more than 3, the tolerance"), "{}", six.reason);
    assert_eq!(wide.tile, [6, 6]);
    assert!(same.tile.iter().all(|t| t.single().is_some_and(|m| m < 4)), "direct or better: {}", same.reason);
    assert!(!none.applied && none.reason.contains("more than 0, the tolerance"), "{}", none.reason);
}

#[test]
fn a_tile_that_is_none_is_an_error() {
    let w = Tensor::randn(&[4, 4, 3, 3], DType::F32, 2).unwrap();
    let specs = [ArgSpec::new(DType::F32, &[1, 4, 9, 9])];
    let e = compile_with(&specs, &FunctionOptions::default(), |args| {
        Ok(vec![args[0].conv2d(&w, None, &ruled(winograd(5)))?])
    })
    .expect_err("a tile that is none");
    assert!(e.to_string().contains("2, 3, 4 or 6"), "{e}");
}

#[test]
fn rules_bind_the_tensor_level_form() {
    let x = Tensor::randn(&[1, 4, 9, 9], DType::F32, 1).unwrap();
    let w = Tensor::randn(&[4, 4, 3, 3], DType::F32, 2).unwrap();
    let tolerance = Some(Tolerance::new(1.0).unwrap());
    let exact = WindowRule { exact_nonfinite: true, ..WindowRule::default() };
    for rule in [direct(), exact, WindowRule { tolerance, ..winograd(6) }] {
        let form = x.conv_tensor_level(&w, None, &ruled(rule.clone()), None, None);
        assert!(matches!(form, Err(Error::Inapplicable { .. })), "{rule:?}");
    }
    let form = x.conv_tensor_level(&w, None, &ruled(winograd(3)), None, None).unwrap();
    assert_eq!(form.transforms[0].m, 3);
}

/// Which outputs a NaN or infinity at one place of the input reaches, by a rule.
fn reached(rule: WindowRule, bad: f32, at: usize) -> (Vec<bool>, bool) {
    let mut values = Tensor::randn(&[1, 3, 20, 20], DType::F32, 3).unwrap().to_vec::<f32>().unwrap();
    values[at] = bad;
    let x = Tensor::from_slice(&values, &[1, 3, 20, 20]).unwrap();
    let w = Tensor::rand(&[2, 3, 3, 3], DType::F32, 4).unwrap().add(1).unwrap();
    let f = compile_with(&[ArgSpec::new(DType::F32, &[1, 3, 20, 20])], &FunctionOptions::default(), |args| {
        Ok(vec![args[0].conv2d(&w, None, &ruled(rule))?])
    })
    .unwrap();
    let out = f.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap();
    (out.iter().map(|v| !v.is_finite()).collect(), f.explanation().windows.iter().any(|w| w.applied))
}

#[test]
fn one_bad_input_poisons_at_most_its_own_tiles() {
    for tile in [2usize, 3, 4, 6] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (h, w) in [(0, 0), (7, 8), (11, 12), (19, 19)] {
                let (bad_at, rewritten) = reached(winograd(tile), bad, 400 + h * 20 + w);
                assert!(rewritten);
                for (i, &is_bad) in bad_at.iter().enumerate() {
                    let (oh, ow) = (i / 20 % 20, i % 20);
                    // The tile of an output reads m + 2 inputs from one before its first output on.
                    let reads = |o: usize, at: usize| {
                        let first = o / tile * tile;
                        at + 1 >= first && at + 1 < first + tile + 2
                    };
                    let sums = |o: usize, at: usize| at + 1 >= o && at <= o + 1;
                    assert!(!is_bad || (reads(oh, h) && reads(ow, w)), "F({tile}, 3), {bad} at {h} {w}: {oh} {ow}");
                    assert!(is_bad || !(sums(oh, h) && sums(ow, w)), "F({tile}, 3), {bad} at {h} {w}: {oh} {ow}");
                }
            }
        }
    }
}

#[test]
fn exact_nonfinite_stays_where_the_sums_read_it() {
    let exact = |algorithm| WindowRule { algorithm, exact_nonfinite: true, ..WindowRule::default() };
    for algorithm in [None, Some(Algorithm::Auto), Some(Algorithm::Winograd)] {
        let (bad_at, rewritten) = reached(exact(algorithm), f32::NAN, 7 * 20 + 8);
        assert!(!rewritten);
        for (i, &is_bad) in bad_at.iter().enumerate() {
            let (oh, ow) = (i / 20 % 20, i % 20);
            assert_eq!(is_bad, (6..=8).contains(&oh) && (7..=9).contains(&ow));
        }
    }
    let whole = Options { exact_nonfinite: true, algorithm: Algorithm::Winograd, ..Options::default() };
    let f = layers(&[winograd(4), WindowRule::default()], whole);
    assert_eq!(tiles(&f), [vec![], vec![0; 0]]);
    assert!(f.explanation().windows.iter().all(|w| w.reason.contains("exact_nonfinite")));
}
