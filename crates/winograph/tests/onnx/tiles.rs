//! Pictures in tiles.

use crate::proto::*;
use winograph::model::{Model, PictureAxes};
use winograph::{DType, Tensor};

#[test]
fn tiles_are_refused_where_results_depend_on_where_a_place_is() {
    let x = Tensor::randn(&[1, 1, 9, 40], DType::F32, 1).unwrap();
    let axes = PictureAxes { height: 2, width: 3 };
    let tiled = |file: &[u8]| {
        let session = Model::from_onnx(file)?.session(Default::default());
        session.run_tiled(("x", &x, axes), axes, 16, &mut |_, _| {})
    };
    let shape = [1, 1, 0, 0];
    let with = |nodes: &[Vec<u8>], constants: &[Vec<u8>], shape: &[i64]| {
        model(nodes, constants, &[info("x", 1, shape)], &[info("y", 1, &[1, 1, 0, 0])])
    };
    // Numbers beside each column: the same ones, and a ramp.
    let add = [node("Add", &["x", "c"], &["y"], &[])];
    let fixed = [1, 1, 0, 16];
    let equal = tiled(&with(&add, &[weights("c", &[16], &[2.0; 16])], &fixed)).unwrap().1;
    assert_eq!(equal.to_vec::<f32>().unwrap(), x.add(2.0).unwrap().to_vec::<f32>().unwrap());
    let ramp: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let told = tiled(&with(&add, &[weights("c", &[16], &ramp)], &fixed)).unwrap_err().to_string();
    assert!(told.contains("numbers that differ from place to place"), "{told}");
    // A sum of all columns before one.
    let sum = [node("CumSum", &["x", "axis"], &["y"], &[])];
    let told = tiled(&with(&sum, &[longs("axis", &[], &[3])], &shape)).unwrap_err().to_string();
    assert!(told.contains("tiles: "), "{told}");
}

/// A model of one picture `x` of two channels, whose result is `y`.
fn of(nodes: &[Vec<u8>], constants: &[Vec<u8>]) -> Model {
    let file = model(nodes, constants, &[info("x", 1, &[1, 2, 0, 0])], &[info("y", 1, &[1, 0, 0, 0])]);
    Model::from_onnx(&file).unwrap()
}

const AXES: PictureAxes = PictureAxes { height: 2, width: 3 };

/// That pictures of several sizes have the same results in tiles as they have as a whole.
fn assert_same_in_tiles(what: &str, model: &Model, tiles: &[usize]) {
    let session = model.session(Default::default());
    for [h, w] in [[45, 70], [40, 61], [33, 200]] {
        let x = Tensor::randn(&[1, 2, h, w], DType::F32, 1).unwrap();
        let whole = session.run(&[("x", &x)]).unwrap().remove(0).1;
        for &tile in tiles {
            let tiled = session.run_tiled(("x", &x, AXES), AXES, tile, &mut |_, _| {});
            let (tiled, what) =
                (tiled.unwrap_or_else(|e| panic!("{what} {h} {w} {tile}: {e}")).1, format!("{what} {h} {w} {tile}"));
            assert_eq!(tiled.shape(), whole.shape(), "{what}");
            let (a, b) = (tiled.to_vec::<f32>().unwrap(), whole.to_vec::<f32>().unwrap());
            let far = a.iter().zip(&b).position(|(a, b)| (a - b).abs() > 1e-5 * (1.0 + b.abs()));
            assert!(far.is_none(), "{what}: element {far:?}");
        }
    }
}

#[test]
fn resized_pictures_are_the_same_in_tiles() {
    for (mode, scale) in [
        ("nearest", 2.0),
        ("linear", 2.0),
        ("cubic", 2.0),
        ("nearest", 1.5),
        ("linear", 1.5),
        ("cubic", 1.5),
        ("linear", 0.5),
    ] {
        let resize = node("Resize", &["x", "", "s"], &["y"], &[text_attribute("mode", mode)]);
        let model = of(&[resize], &[weights("s", &[4], &[1.0, 1.0, scale, scale])]);
        assert_same_in_tiles(&format!("{mode} {scale}"), &model, &[16, 18, 32]);
    }
    // By the corners: where each place is depends on the size of the picture.
    let corners = [text_attribute("mode", "linear"), text_attribute("coordinate_transformation_mode", "align_corners")];
    let model = of(&[node("Resize", &["x", "", "s"], &["y"], &corners)], &[weights("s", &[4], &[1.0, 1.0, 2.0, 2.0])]);
    let x = Tensor::randn(&[1, 2, 45, 70], DType::F32, 1).unwrap();
    let tiled = model.session(Default::default()).run_tiled(("x", &x, AXES), AXES, 16, &mut |_, _| {});
    assert_told(&tiled.unwrap_err().to_string(), &["tiles: "]);
}

#[test]
fn pictures_that_are_continued_at_their_borders_are_the_same_in_tiles() {
    let w = |shape: &[i64]| {
        let n = shape.iter().product::<i64>() as usize;
        Tensor::randn(&[n], DType::F32, n as u64).unwrap().to_vec::<f32>().unwrap()
    };
    let pads = |name: &str, n: i64| longs(name, &[8], &[0, 0, n, n, 0, 0, n, n]);
    let constants = || {
        let (first, second) =
            (weights("w", &[3, 2, 3, 3], &w(&[3, 2, 3, 3])), weights("v", &[2, 3, 5, 5], &w(&[2, 3, 5, 5])));
        vec![first, second, pads("p", 1), pads("q", 2)]
    };
    let layers = |mode: &str, strides: i64| {
        let pad = |x: &str, p: &str, y: &str| node("Pad", &[x, p], &[y], &[text_attribute("mode", mode)]);
        let strides = [ints_attribute("strides", &[strides, strides])];
        [
            pad("x", "p", "a"),
            node("Conv", &["a", "w"], &["b"], &strides),
            node("Relu", &["b"], &["c"], &[]),
            pad("c", "q", "d"),
            node("Conv", &["d", "v"], &["y"], &[]),
        ]
    };
    for mode in ["edge", "reflect"] {
        for strides in [1, 2] {
            let x = Tensor::ones(&[1, 2, 10, 11], DType::F32).unwrap();
            let size = |n: usize| (n - 1) / strides as usize + 1;
            let y = of(&layers(mode, strides), &constants()).session(Default::default()).run(&[("x", &x)]).unwrap();
            assert_eq!(y[0].1.shape(), [1, 2, size(10), size(11)]);
            let model = of(&layers(mode, strides), &constants());
            assert_same_in_tiles(&format!("{mode} {strides}"), &model, &[20, 23, 32]);
        }
    }
    // What is beyond one border is what is inside of the other: a tile has another one.
    let x = Tensor::randn(&[1, 2, 45, 70], DType::F32, 1).unwrap();
    let wrap = of(&layers("wrap", 1), &constants()).session(Default::default());
    let told = wrap.run_tiled(("x", &x, AXES), AXES, 20, &mut |_, _| {}).unwrap_err().to_string();
    assert_told(&told, &["tiles: "]);
    // The same by parts beside each other.
    let cat = |y: &str, parts: [&str; 3], axis: i64| node("Concat", &parts, &[y], &[int_attribute("axis", axis)]);
    let slice = |y: &str, from: &str, to: &str| node("Slice", &["x", from, to, "axis"], &[y], &[]);
    let parts = [slice("top", "zero", "one"), slice("end", "least", "most")];
    let cases = [(["top", "x", "end"], true), (["end", "x", "top"], false)];
    for (beside, same) in cases {
        let nodes = [&parts[..], &[cat("a", beside, 2), node("Conv", &["a", "w"], &["y"], &[])]].concat();
        let numbers = [longs("zero", &[1], &[0]), longs("one", &[1], &[1]), longs("least", &[1], &[-1])];
        let more = [longs("most", &[1], &[i64::MAX]), longs("axis", &[1], &[2])];
        let file = of(&nodes, &[&constants()[..1], &numbers, &more].concat());
        if same {
            assert_same_in_tiles("parts", &file, &[20]);
            continue;
        }
        let told = file.session(Default::default()).run_tiled(("x", &x, AXES), AXES, 20, &mut |_, _| {});
        assert_told(&told.unwrap_err().to_string(), &["row 0 of the result", "picture of 45"]);
    }
}

#[test]
fn rows_beside_a_border_that_other_rows_hide_are_taken_from_the_tile_that_has_them() {
    // Places are moved by three before the border is made, so that what reaches beyond it seems to be inside; a wide window
    // beside it hides that.
    let slice = node("Slice", &["x", "three", "most", "axes"], &["moved"], &[]);
    let pads = longs("p", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]);
    let narrow = node("Pad", &["moved", "p"], &["a"], &[]);
    let wide = [ints_attribute("kernel_shape", &[10, 10])];
    let nodes = [
        slice,
        narrow,
        node("MaxPool", &["x"], &["b"], &wide),
        node("Slice", &["a", "zero", "less", "axes"], &["c"], &[]),
        node("Add", &["b", "c"], &["y"], &[]),
    ];
    let twice = |name: &str, v: i64| longs(name, &[2], &[v, v]);
    let numbers = [
        twice("three", 3),
        twice("most", i64::MAX),
        longs("axes", &[2], &[2, 3]),
        twice("zero", 0),
        twice("less", -8),
        pads,
    ];
    assert_same_in_tiles("moved", &of(&nodes, &numbers), &[20, 32]);
}

#[test]
fn padding_that_depends_on_the_picture_s_size_is_that_of_the_picture() {
    let w = Tensor::randn(&[36], DType::F32, 3).unwrap().to_vec::<f32>().unwrap();
    for same in ["SAME_UPPER", "SAME_LOWER"] {
        let attributes = || [text_attribute("auto_pad", same), ints_attribute("strides", &[2, 2])];
        let conv = |x: &str, y: &str| node("Conv", &[x, "w"], &[y], &attributes());
        // 45 and 70, 40 and 61, 33 and 200, each by 2 and by 8: tiles of another remainder would be padded on other sides.
        let one = of(&[conv("x", "y")], &[weights("w", &[2, 2, 3, 3], &w)]);
        assert_same_in_tiles(same, &one, &[20, 21, 32, 33]);
        let three = of(&[conv("x", "a"), conv("a", "b"), conv("b", "y")], &[weights("w", &[2, 2, 3, 3], &w)]);
        assert_same_in_tiles(same, &three, &[31, 32]);
    }
}

#[test]
fn tiles_are_refused_where_what_is_computed_depends_on_the_size() {
    let x = Tensor::randn(&[1, 2, 45, 70], DType::F32, 1).unwrap();
    let told = |nodes: &[Vec<u8>], constants: &[Vec<u8>]| {
        let session = of(nodes, constants).session(Default::default());
        session.run_tiled(("x", &x, AXES), AXES, 20, &mut |_, _| {}).unwrap_err().to_string()
    };
    let size = [
        node("Shape", &["x"], &["s"], &[]),
        node("Gather", &["s", "two"], &["h"], &[]),
        node("Cast", &["h"], &["f"], &[int_attribute("to", 1)]),
    ];
    // Which channel is taken follows from the number of rows.
    let channel = [
        &size[..2],
        &[node("Greater", &["h", "forty"], &["l"], &[]), node("Cast", &["l"], &["m"], &[int_attribute("to", 7)])],
        &[
            node("Gather", &["x", "m"], &["g"], &[int_attribute("axis", 1)]),
            node("Unsqueeze", &["g", "one"], &["y"], &[]),
        ],
    ]
    .concat();
    let constants = [longs("two", &[], &[2]), longs("forty", &[], &[40]), longs("one", &[1], &[1])];
    assert_told(&told(&channel, &constants), &["tiles: ", "picture of 45"]);
    // A number that follows from the size, and an operation that is chosen by it.
    let divided = [&size[..], &[node("Div", &["x", "f"], &["y"], &[])]].concat();
    assert_told(&told(&divided, &[longs("two", &[], &[2])]), &["tiles: ", "picture of 45"]);
    let branch = |name: &str, op: &str| {
        let output = info(name, 1, &[1, 2, 0, 0]);
        let graph = [bytes(1, &node(op, &["x"], &[name], &[])), bytes(12, &output)].concat();
        [bytes(1, name.as_bytes()), bytes(6, &graph), int(20, 5)].concat()
    };
    let chosen = [
        &size[..2],
        &[
            node("Greater", &["h", "forty"], &["large"], &[]),
            node("If", &["large"], &["y"], &[branch("then_branch", "Sqrt"), branch("else_branch", "Exp")]),
        ],
    ]
    .concat();
    let constants = [longs("two", &[], &[2]), longs("forty", &[], &[40])];
    assert_told(&told(&chosen, &constants), &["tiles: ", "what the model computes", "picture of 45"]);
}
