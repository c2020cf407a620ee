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

#[test]
fn resized_pictures_are_the_same_in_tiles() {
    let x = Tensor::randn(&[1, 2, 45, 70], DType::F32, 1).unwrap();
    let axes = PictureAxes { height: 2, width: 3 };
    for mode in ["nearest", "linear"] {
        let resize = node("Resize", &["x", "", "s"], &["y"], &[text_attribute("mode", mode)]);
        let scales = weights("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
        let file = model(&[resize], &[scales], &[info("x", 1, &[1, 2, 0, 0])], &[info("y", 1, &[1, 2, 0, 0])]);
        let session = Model::from_onnx(&file).unwrap().session(Default::default());
        let whole = session.run(&[("x", &x)]).unwrap().remove(0).1;
        let tiled = session.run_tiled(("x", &x, axes), axes, 16, &mut |_, _| {}).unwrap().1;
        assert_eq!(whole.shape(), [1, 2, 90, 140]);
        assert_eq!(tiled.to_vec::<f32>().unwrap(), whole.to_vec::<f32>().unwrap(), "{mode}");
    }
}
