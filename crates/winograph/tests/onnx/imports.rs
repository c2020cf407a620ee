//! Results by definition.

use crate::proto::*;
use winograph::model::Model;
use winograph::settings::settings;
use winograph::{ConvOptions, DType, Tensor};

#[test]
fn a_convolution_and_relu_give_what_the_tensor_library_gives() {
    let w = Tensor::randn(&[4, 3, 3, 3], DType::F32, 1).unwrap();
    let file = model(
        &[
            node("Conv", &["x", "w"], &["c"], &[ints_attribute("pads", &[1, 1, 1, 1])]),
            node("Relu", &["c"], &["y"], &[]),
        ],
        &[weights("w", &[4, 3, 3, 3], &w.to_vec::<f32>().unwrap())],
        &[info("x", 1, &[1, 3, 0, 0])],
        &[info("y", 1, &[1, 4, 0, 0])],
    );
    for size in [8, 13] {
        let x = Tensor::randn(&[1, 3, size, size], DType::F32, 2).unwrap();
        let got = run(&file, &[("x", &x)]).unwrap();
        let want = x.conv(&w, None, &ConvOptions::padding(1)).unwrap().relu().unwrap();
        assert_eq!(got[0].0, "y");
        let pairs = got[0].1.to_vec::<f32>().unwrap().into_iter().zip(want.to_vec::<f32>().unwrap());
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn before_opset_11_neighbours_are_rounded_down_where_an_axis_grows_and_up_where_it_shrinks() {
    let resized = |scale: f32| {
        let mut file = model(
            &[node("Resize", &["x", "s"], &["y"], &[])],
            &[weights("s", &[1], &[scale])],
            &[info("x", 1, &[5])],
            &[info("y", 1, &[0])],
        );
        // The version of the operators is the last byte.
        *file.last_mut().unwrap() = 10;
        let x = Tensor::arange(0f32, 5.0, 1.0).unwrap();
        run(&file, &[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap()
    };
    // At 0, 1/s, 2/s .. of the input.
    assert_eq!(resized(1.5), [0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 4.0]);
    assert_eq!(resized(0.6), [0.0, 2.0, 4.0]);
    assert_eq!(resized(1.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_shape_that_is_an_input_is_bound_when_the_model_runs() {
    let file = model(
        &[node("Reshape", &["x", "s"], &["y"], &[])],
        &[],
        &[info("x", 1, &[2, 3]), info("s", 7, &[2])],
        &[info("y", 1, &[0, 0])],
    );
    let session = Model::from_onnx(&file).unwrap().compile(&settings().unwrap().device).unwrap();
    let x = Tensor::arange(0f32, 6.0, 1.0).unwrap().reshape(&[2, 3]).unwrap();
    for shape in [[3i64, 2], [6, 1], [3, 2]] {
        let s = Tensor::from_slice(&shape, &[2]).unwrap();
        let y = session.run(&[("x", &x), ("s", &s)]).unwrap();
        assert_eq!(y[0].1.shape(), shape.map(|s| s as usize));
        assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn inverse_functions_and_orders_follow_their_definitions() {
    let x: Vec<f64> = (-40..=40).map(|i| i as f64 / 40.0).collect();
    let t = Tensor::from_slice(&x, &[x.len()]).unwrap();
    let close = |got: Tensor, f: fn(f64) -> f64| {
        for (g, &x) in got.to_vec::<f64>().unwrap().iter().zip(&x) {
            let want = f(x);
            assert!(*g == want || (g - want).abs() <= 1e-12 * want.abs().max(1e-3), "{x}: {g}, {want}");
        }
    };
    close(t.atan().unwrap(), f64::atan);
    close(t.asin().unwrap(), f64::asin);
    close(t.acos().unwrap(), f64::acos);
    close(t.sinh().unwrap(), f64::sinh);
    close(t.asinh().unwrap(), f64::asinh);
    close(t.atanh().unwrap(), f64::atanh);
    let y = Tensor::randint(-5, 5, &[3, 7], DType::I32, 3).unwrap();
    let rows = y.to_vec::<i32>().unwrap();
    let (values, places) = y.topk(4, 1, true).unwrap();
    for (r, row) in rows.chunks(7).enumerate() {
        let mut order: Vec<usize> = (0..7).collect();
        order.sort_by_key(|&i| (-row[i], i));
        let want: Vec<i64> = order[..4].iter().map(|&i| i as i64).collect();
        assert_eq!(places.to_vec::<i64>().unwrap()[r * 4..r * 4 + 4], want);
        assert_eq!(values.to_vec::<i32>().unwrap()[r * 4], row[order[0]]);
    }
}

#[test]
fn what_data_selects_is_computed_in_pieces_and_differs_from_call_to_call() {
    // Before and behind the boundary are compiled operations.
    let file = model(
        &[
            node("Relu", &["x"], &["r"], &[]),
            node("NonZero", &["r"], &["places"], &[]),
            node("Transpose", &["places"], &["rows"], &[ints_attribute("perm", &[1, 0])]),
            node("GatherND", &["r", "rows"], &["found"], &[]),
            node("Neg", &["found"], &["y"], &[]),
        ],
        &[],
        &[info("x", 1, &[2, 3])],
        &[info("rows", 7, &[0, 2]), info("y", 1, &[0])],
    );
    let session = Model::from_onnx(&file).unwrap().compile(&settings().unwrap().device).unwrap();
    let cases: [(&[f32], &[i64], &[f32]); 3] = [
        (&[1.0, -1.0, 2.0, 0.0, 3.0, -4.0], &[0, 0, 0, 2, 1, 1], &[-1.0, -2.0, -3.0]),
        (&[-1.0, 5.0, -2.0, 0.0, -3.0, -4.0], &[0, 1], &[-5.0]),
        (&[-1.0; 6], &[], &[]),
    ];
    for (x, rows, y) in cases {
        let got = session.run(&[("x", &Tensor::from_slice(x, &[2, 3]).unwrap())]).unwrap();
        assert_eq!(got[0].1.shape(), [rows.len() / 2, 2]);
        assert_eq!(got[0].1.to_vec::<i64>().unwrap(), rows);
        assert_eq!(got[1].1.to_vec::<f32>().unwrap(), y);
    }
    // It cannot be one function, which is told by the node.
    let e = as_a_whole(&file, &[2, 3], &Tensor::zeros(&[2, 3], DType::F32).unwrap()).unwrap_err().to_string();
    assert!(e.contains("\"places\"") && e.contains("NonZero"), "{e}");
}

#[test]
fn what_constants_select_is_folded_and_the_model_is_compiled_as_a_whole() {
    let file = model(
        &[node("NonZero", &["w"], &["p"], &[]), node("Gather", &["x", "p"], &["y"], &[])],
        &[weights("w", &[4], &[0.0, 1.0, 0.0, 2.0])],
        &[info("x", 1, &[4])],
        &[info("y", 1, &[1, 2])],
    );
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[4]).unwrap();
    let got = as_a_whole(&file, &[4], &x).unwrap();
    assert_eq!((got.shape(), got.to_vec::<f32>().unwrap()), (&[1, 2][..], vec![2.0, 4.0]));
}

#[test]
fn unique_gives_slices_in_order_with_their_places_and_counts() {
    let names = ["y", "first", "inverse", "counts"];
    let x = Tensor::from_slice(&[2f32, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0], &[4, 2]).unwrap();
    let unique = |attribute: Vec<u8>| {
        let outputs: Vec<Vec<u8>> = names.iter().map(|n| info(n, if *n == "y" { 1 } else { 7 }, &[0])).collect();
        let file = model(&[node("Unique", &["x"], &names, &[attribute])], &[], &[info("x", 1, &[4, 2])], &outputs);
        let got = run(&file, &[("x", &x)]).unwrap();
        let ints = |i: usize| got[i].1.to_vec::<i64>().unwrap();
        (got[0].1.to_vec::<f32>().unwrap(), ints(1), ints(2), ints(3))
    };
    let rows = unique(int_attribute("axis", 0));
    assert_eq!(rows, (vec![1.0, 2.0, 2.0, 1.0], vec![2, 0], vec![1, 1, 0, 1], vec![1, 3]));
    let as_met = unique(int_attribute("sorted", 0));
    assert_eq!(as_met, (vec![2.0, 1.0], vec![0, 1], vec![0, 1, 0, 1, 1, 0, 0, 1], vec![4, 4]));
}

#[test]
fn grids_read_elements_between_and_beyond_the_edges() {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[1, 1, 1, 4]).unwrap();
    // Columns 0.5, 3, -1 and 4.5 of a row of 4, as multiples of half of it from its middle.
    let columns = [0.5f32, 3.0, -1.0, 4.5].map(|c| (c + 0.5) / 2.0 - 1.0);
    let grid: Vec<f32> = columns.iter().flat_map(|&c| [c, 0.0]).collect();
    let grid = Tensor::from_slice(&grid, &[1, 1, 4, 2]).unwrap();
    let sample = |mode: &str, padding: &str| {
        let attributes = [text_attribute("mode", mode), text_attribute("padding_mode", padding)];
        let file = model(
            &[node("GridSample", &["x", "g"], &["y"], &attributes)],
            &[],
            &[info("x", 1, &[1, 1, 1, 4]), info("g", 1, &[1, 1, 4, 2])],
            &[info("y", 1, &[1, 1, 1, 4])],
        );
        run(&file, &[("x", &x), ("g", &grid)]).unwrap()[0].1.to_vec::<f32>().unwrap()
    };
    for (mode, padding, want) in [
        ("bilinear", "zeros", [1.5, 4.0, 0.0, 0.0]),
        ("bilinear", "border", [1.5, 4.0, 1.0, 4.0]),
        ("bilinear", "reflection", [1.5, 4.0, 1.0, 3.5]),
        ("nearest", "zeros", [1.0, 4.0, 0.0, 0.0]),
    ] {
        let got = sample(mode, padding);
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{mode} {padding}: {got:?}, {want:?}");
    }
}

#[test]
fn exported_models_tell_of_their_launches_what_the_model_tells() {
    let x = Tensor::randn(&[1, 16, 20, 20], DType::F32, 3).unwrap();
    let device = &settings().unwrap().device;
    let session =
        Model::from_onnx(&branches(["first", "relu", "second", "pool", "cat"])).unwrap().compile(device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.wg");
    session.export(&path).unwrap();
    let exported = Model::load(&path).unwrap().compile(device).unwrap();
    let told = |session: &winograph::model::Session| {
        let mut launches = session.profile(&[("x", &x)], 1).unwrap();
        launches.iter_mut().for_each(|l| l.time = std::time::Duration::ZERO);
        launches
    };
    let launches = told(&session);
    assert!(launches.iter().any(|l| l.flops > 0 && l.algorithm.is_some() && !l.nodes.is_empty()), "{launches:?}");
    assert!(launches.iter().all(|l| l.bytes > 0 && !l.writes.is_empty()), "{launches:?}");
    assert_eq!(told(&exported), launches);
}

#[test]
fn launches_tell_the_nodes_that_they_compute() {
    let x = Tensor::randn(&[1, 16, 20, 20], DType::F32, 3).unwrap();
    let device = &settings().unwrap().device;
    let compiled = |names| {
        let session = Model::from_onnx(&branches(names)).unwrap().compile(device).unwrap();
        let nodes: Vec<Vec<String>> = session.profile(&[("x", &x)], 1).unwrap().into_iter().map(|l| l.nodes).collect();
        let source = session.with_function(&[("x", &x)], |f| f.source().to_string()).unwrap().unwrap();
        (nodes, source, session.run(&[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap())
    };
    let names = ["first", "relu", "second", "pool", "cat"];
    let (nodes, source, y) = compiled(names);
    for name in names {
        assert!(nodes.iter().any(|of| of.iter().any(|n| n == name)), "{name} in none of {nodes:?}");
    }
    assert!(nodes.iter().all(|of| !of.is_empty()), "{nodes:?}");
    // The sum of the second convolution is nobody else's.
    let alone: Vec<&Vec<String>> = nodes.iter().filter(|of| of.iter().any(|n| n == "second")).collect();
    assert!(alone.iter().all(|of| !of.iter().any(|n| n == "first")), "{nodes:?}");
    // Names change no program; nodes without one are called by their results.
    let (unnamed, same, z) = compiled([""; 5]);
    assert_eq!((source, y), (same, z));
    let renamed = |n: &String| ["a", "b", "c", "d", "y"][names.iter().position(|m| m == n).unwrap()].to_string();
    assert_eq!(unnamed, nodes.iter().map(|of| of.iter().map(renamed).collect()).collect::<Vec<Vec<String>>>());
}

#[test]
fn constants_that_are_made_from_a_few_numbers_are_computed() {
    // Positions and a mask of 512 by 512 from four numbers, of a file of some hundred bytes.
    let to_float = [int_attribute("to", 1)];
    let nodes = [
        node("Range", &["from", "to", "by"], &["r"], &[]),
        node("Cast", &["r"], &["f"], &to_float),
        node("Unsqueeze", &["f", "by1"], &["column"], &[]),
        node("Sub", &["f", "column"], &["distance"], &[]),
        node("Expand", &["distance", "n"], &["wide"], &[]),
        node("Add", &["wide", "x"], &["y"], &[]),
    ];
    let numbers = [
        longs("from", &[], &[0]),
        longs("to", &[], &[512]),
        longs("by", &[], &[1]),
        longs("by1", &[1], &[1]),
        longs("n", &[3], &[4, 512, 512]),
    ];
    let file = model(&nodes, &numbers, &[info("x", 1, &[1])], &[info("y", 1, &[4, 512, 512])]);
    let y =
        run(&file, &[("x", &Tensor::ones(&[1], DType::F32).unwrap())]).unwrap().remove(0).1.to_vec::<f32>().unwrap();
    assert_eq!((y[0], y[511], y[512], y[4 * 512 * 512 - 1]), (1.0, 512.0, 0.0, 1.0));
}

#[test]
fn weights_that_are_nodes_count_as_parameters() {
    let value = [bytes(1, b"value"), bytes(5, &weights("", &[2, 3], &[1.0; 6])), int(20, 4)].concat();
    let nodes = [node("Constant", &[], &["c"], &[value]), node("Add", &["c", "w"], &["y"], &[])];
    let file = model(&nodes, &[weights("w", &[3], &[1.0; 3])], &[], &[info("y", 1, &[2, 3])]);
    assert_eq!(Model::from_onnx(&file).unwrap().parameters(), 9);
}

#[test]
fn inputs_with_initializers_are_constants_unless_they_are_given() {
    let file = |version: i64| {
        let nodes = [node("Mul", &["x", "w"], &["p"], &[]), node("Reshape", &["p", "s"], &["y"], &[])];
        let constants = [weights("w", &[2], &[3.0, 4.0]), longs("s", &[1], &[2]), weights("b", &[1], &[0.0])];
        let inputs = [info("w", 1, &[2]), info("x", 1, &[2]), info("s", 7, &[0])];
        let mut file = model(&nodes, &constants, &inputs, &[info("y", 1, &[0])]);
        // The version of the format is the first field.
        file[1] = version as u8;
        Model::from_onnx(&file).unwrap()
    };
    let names = |ports: Vec<winograph::model::Port>| ports.into_iter().map(|p| p.name).collect::<Vec<_>>();
    let new = file(4);
    assert_eq!(
        (names(new.inputs()), names(new.defaults())),
        (vec!["x".to_string()], vec!["w".to_string(), "s".to_string()])
    );
    let old = file(3);
    assert_eq!((names(old.inputs()), names(old.defaults())), (vec!["x".to_string()], vec![]));
    let x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap();
    let w = Tensor::from_slice(&[5f32, 6.0], &[2]).unwrap();
    let session = new.session(Default::default());
    let y = |given: &[(&str, &Tensor)]| {
        let y = session.run(given).unwrap().remove(0).1;
        (y.shape().to_vec(), y.to_vec::<f32>().unwrap())
    };
    // In any order; each set of inputs is compiled for, and a shape is bound like that of any input.
    for _ in 0..2 {
        assert_eq!(y(&[("x", &x)]), (vec![2], vec![3.0, 8.0]));
        assert_eq!(y(&[("w", &w), ("x", &x)]), (vec![2], vec![5.0, 12.0]));
        assert_eq!(y(&[("x", &x), ("w", &w)]), (vec![2], vec![5.0, 12.0]));
    }
    let column = Tensor::from_slice(&[2i64, 1], &[2]).unwrap();
    assert_eq!(y(&[("x", &x), ("s", &column)]), (vec![2, 1], vec![3.0, 8.0]));
    // Of another shape than is declared, or of none.
    let wide = Tensor::ones(&[3], DType::F32).unwrap();
    assert_told(&session.run(&[("x", &x), ("w", &wide)]).unwrap_err().to_string(), &["\"w\"", "f32[3]", "f32[2]"]);
    assert_told(&session.run(&[("w", &w)]).unwrap_err().to_string(), &["\"x\"", "nothing"]);
    let told = |model: &Model, name: &str| {
        model.session(Default::default()).run(&[("x", &x), (name, &w)]).unwrap_err().to_string()
    };
    // Neither a constant of an old file nor one that is no input is an input.
    assert_told(&told(&old, "w"), &["\"w\"", "a name the model does not have"]);
    assert_told(&told(&new, "b"), &["\"b\"", "a name the model does not have"]);
    // Compiled for the shapes that it states, a session has no weights for anything else.
    let compiled = new.compile(&settings().unwrap().device).unwrap();
    assert_eq!(names(compiled.model().defaults()).len(), 2);
    assert_eq!(compiled.run(&[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap(), [3.0, 8.0]);
    assert_told(&compiled.run(&[("x", &x), ("w", &w)]).unwrap_err().to_string(), &["take Model::session"]);
}

#[test]
fn exported_models_are_loaded_by_any_session_when_they_are_first_run() {
    let x = Tensor::from_slice(&[-1f32, 2.0], &[2]).unwrap();
    let file = model(&[node("Relu", &["x"], &["y"], &[])], &[], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.wg");
    Model::from_onnx(&file).unwrap().compile(&settings().unwrap().device).unwrap().export(&path).unwrap();
    let session = Model::load(&path).unwrap().session(Default::default());
    let loaded = |s: &winograph::model::Session| s.with_function(&[("x", &x)], |_| ()).unwrap().is_some();
    assert!(!loaded(&session));
    assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap(), [0.0, 2.0]);
    assert!(loaded(&session) && loaded(&Model::load(&path).unwrap().compile(&settings().unwrap().device).unwrap()));
    for session in [&session, &Model::load(&path).unwrap().session(Default::default())] {
        assert_told(&session.export(dir.path().join("again.wg")).unwrap_err().to_string(), &["copy that file"]);
    }
}

#[test]
fn borders_are_continued_by_what_is_inside() {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[4]).unwrap();
    let pad = |mode: &str, before: i64, after: i64| {
        let node = node("Pad", &["x", "p"], &["y"], &[text_attribute("mode", mode)]);
        let file = model(&[node], &[longs("p", &[2], &[before, after])], &[info("x", 1, &[4])], &[info("y", 1, &[0])]);
        run(&file, &[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap()
    };
    for (before, after) in [(0, 0), (0, 1), (2, 0), (1, 2), (3, 3), (3, 2), (4, 5), (9, 7), (-1, 2), (2, -2)] {
        for mode in ["edge", "reflect", "wrap"] {
            // What is cut off does not come back at the other end.
            let (cut, left) = (-before.min(0), 4 + before.min(0) + after.min(0));
            let place = |i: i64| match mode {
                "edge" => i.clamp(0, 3),
                "wrap" => (i - cut).rem_euclid(left) + cut,
                _ => [0, 1, 2, 3, 2, 1][i.rem_euclid(6) as usize],
            };
            let want: Vec<f32> = (-before..4 + after).map(|i| place(i) as f32 + 1.0).collect();
            assert_eq!(pad(mode, before, after), want, "{mode} {before} {after}");
        }
    }
}

/// Of 0, 1, 2 .. along an axis, resized.
fn resized(size: usize, scale: f32, attributes: &[(&str, &str)], roi: &[f32]) -> Vec<f32> {
    let attributes: Vec<Vec<u8>> = attributes.iter().map(|(name, text)| text_attribute(name, text)).collect();
    let file = model(
        &[node("Resize", &["x", "r", "s"], &["y"], &attributes)],
        &[weights("r", &[roi.len() as i64], roi), weights("s", &[1], &[scale])],
        &[info("x", 1, &[size as i64])],
        &[info("y", 1, &[0])],
    );
    let x = Tensor::arange(0f32, size as f32, 1.0).unwrap();
    run(&file, &[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap()
}

#[test]
fn sizes_by_scales_are_products_of_f32_rounded_down() {
    for (size, scale, want) in
        [(10, 0.7, 7), (10, 0.9, 9), (10, 2.6, 26), (100, 0.7, 70), (5, 1.4, 7), (20, 0.35, 7), (10, 0.75, 7)]
    {
        for mode in ["nearest", "linear"] {
            assert_eq!(resized(size, scale, &[("mode", mode)], &[]).len(), want, "{size} by {scale}");
        }
    }
    // A region of interest says what is looked at, not how large the result is.
    let crop = [("mode", "linear"), ("coordinate_transformation_mode", "tf_crop_and_resize")];
    assert_eq!(resized(5, 1.0, &crop, &[0.25, 0.75]), [1.0, 1.5, 2.0, 2.5, 3.0]);
}

#[test]
fn nearest_places_are_quotients_of_f32() {
    let nearest = |size, scale, coordinates: &str, mode: &str| {
        resized(size, scale, &[("coordinate_transformation_mode", coordinates), ("nearest_mode", mode)], &[])
    };
    // 3 / 0.6 is 5 there, and less in f64 for the number that 0.6 is in f32.
    assert_eq!(nearest(10, 0.6, "asymmetric", "floor"), [0.0, 1.0, 3.0, 5.0, 6.0, 8.0]);
    assert_eq!(nearest(10, 0.6, "asymmetric", "ceil"), [0.0, 2.0, 4.0, 5.0, 7.0, 9.0]);
    // Halves.
    assert_eq!(nearest(4, 2.0, "asymmetric", "round_prefer_floor"), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    assert_eq!(nearest(4, 2.0, "asymmetric", "round_prefer_ceil"), [0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    // 4.5 / 0.6 is a little less than 7.5.
    assert_eq!(nearest(9, 0.6, "tf_half_pixel_for_nn", "round_prefer_ceil"), [1.0, 3.0, 4.0, 6.0, 8.0]);
    assert_eq!(nearest(9, 0.6, "tf_half_pixel_for_nn", "round_prefer_floor"), [1.0, 2.0, 4.0, 6.0, 7.0]);
    // From the first element to the last, however the size was rounded.
    assert_eq!(nearest(5, 1.5, "align_corners", "floor"), [0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 4.0]);
}

#[test]
fn running_sums_take_as_many_axes_as_there_may_be() {
    let mut shape = vec![1i64; 64];
    (shape[0], shape[30], shape[63]) = (2, 3, 2);
    let file = model(
        &[node("CumSum", &["x", "a"], &["y"], &[])],
        &[longs("a", &[], &[30])],
        &[info("x", 1, &shape)],
        &[info("y", 1, &shape)],
    );
    let sizes: Vec<usize> = shape.iter().map(|&s| s as usize).collect();
    let x = Tensor::arange(0f32, 12.0, 1.0)
        .unwrap()
        .reshape(&sizes.iter().map(|&s| s as isize).collect::<Vec<_>>())
        .unwrap();
    let y = &run(&file, &[("x", &x)]).unwrap()[0].1;
    assert_eq!(y.shape(), sizes);
    assert_eq!(y.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 6.0, 7.0, 14.0, 16.0, 24.0, 27.0]);
}

#[test]
fn windows_that_reach_far_beyond_the_input_see_what_is_there() {
    let pool = |op: &str, x: &Tensor, kernel: i64, pads: [i64; 2], more: &[Vec<u8>]| {
        let rank = x.rank() - 2;
        let pads: Vec<i64> = pads.iter().flat_map(|&p| vec![p; rank]).collect();
        let mut attributes = vec![ints_attribute("kernel_shape", &vec![kernel; rank]), ints_attribute("pads", &pads)];
        attributes.extend(more.iter().cloned());
        let outputs: &[&str] = if op == "MaxPool" { &["y", "i"] } else { &["y"] };
        let shape: Vec<i64> = x.shape().iter().map(|&s| s as i64).collect();
        let mut declared = vec![info("y", 1, &vec![0; x.rank()])];
        declared.extend(outputs.get(1).map(|i| info(i, 7, &vec![0; x.rank()])));
        let file = model(&[node(op, &["x"], outputs, &attributes)], &[], &[info("x", 1, &shape)], &declared);
        run(&file, &[("x", x)]).unwrap().into_iter().map(|(_, t)| t).collect::<Vec<_>>()
    };
    let include = [int_attribute("count_include_pad", 1)];
    let x = Tensor::arange(1f32, 65.0, 1.0).unwrap().reshape(&[1, 1, 8, 8]).unwrap();
    let (kernel, pads) = (1 << 20, [1 << 19; 2]);
    let all = |t: &Tensor, want: f32| {
        assert_eq!(t.shape(), [1, 1, 9, 9]);
        assert!(t.to_vec::<f32>().unwrap().iter().all(|v| (v / want - 1.0).abs() < 1e-5), "{t:?} for {want}");
    };
    let most = pool("MaxPool", &x, kernel, pads, &[]);
    all(&most[0], 64.0);
    assert_eq!(most[1].to_vec::<i64>().unwrap(), [63; 81]);
    all(&pool("AveragePool", &x, kernel, pads, &[])[0], 32.5);
    all(&pool("AveragePool", &x, kernel, pads, &include)[0], 2080.0 / (1u64 << 40) as f32);
    all(&pool("LpPool", &x, kernel, pads, &[])[0], 89440f32.sqrt());
    // Windows that end in the input: each sees one element more.
    let x = Tensor::from_slice(&[2f32, 4.0, 9.0], &[1, 1, 3]).unwrap();
    let of = |op, more: &[Vec<u8>]| pool(op, &x, 9, [8, 0], more)[0].to_vec::<f32>().unwrap();
    assert_eq!(of("MaxPool", &[]), [2.0, 4.0, 9.0]);
    assert_eq!(of("AveragePool", &[]), [2.0, 3.0, 5.0]);
    let shares = of("AveragePool", &include);
    assert!(shares.iter().zip([2.0, 6.0, 15.0]).all(|(a, b)| (a - b / 9.0).abs() < 1e-6), "{shares:?}");
}
