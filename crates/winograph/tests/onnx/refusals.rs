//! Files that are wrong, or ask for too much.

use crate::proto::*;
use winograph::model::{Model, PortType, Value};
use winograph::settings::settings;
use winograph::{DType, Tensor};

#[test]
fn wrong_models_and_inputs_are_told_by_name() {
    let good = model(&[node("Relu", &["x"], &["y"], &[])], &[], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
    let x = Tensor::zeros(&[3], DType::F32).unwrap();
    let told = |e: winograph::Error, parts: &[&str]| {
        let text = e.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    };
    told(run(&good, &[("x", &x)]).unwrap_err(), &["\"x\"", "f32[3]", "f32[2]"]);
    told(run(&good, &[]).unwrap_err(), &["\"x\"", "nothing"]);
    told(run(&good, &[("z", &x)]).unwrap_err(), &["\"z\""]);
    let relu = || [node("Relu", &["x"], &["y"], &[])];
    let declared = model(&relu(), &[], &[info("x", 1, &[3])], &[info("y", 7, &[3])]);
    told(run(&declared, &[("x", &x)]).unwrap_err(), &["output \"y\"", "declares it as i64", "f32"]);
    let twice = model(&relu(), &[], &[info("x", 1, &[3]), info("x", 1, &[2])], &[info("y", 1, &[3])]);
    told(run(&twice, &[("x", &x)]).unwrap_err(), &["input \"x\"", "twice"]);
    for op in ["Conv", "ConvTranspose"] {
        let window = node(op, &["x", "w"], &["y"], &[ints_attribute("kernel_shape", &[5])]);
        let ports = [info("x", 1, &[1, 1, 8]), info("y", 1, &[0, 0, 0])];
        let window = model(&[window], &[weights("w", &[1, 1, 3], &[1.0; 3])], &ports[..1], &ports[1..]);
        let x = Tensor::zeros(&[1, 1, 8], DType::F32).unwrap();
        told(run(&window, &[("x", &x)]).unwrap_err(), &[op, "kernel_shape [5]", "[1, 1, 3]"]);
    }
    for cut in 1..good.len() {
        // Each prefix is an error or another model; none panics.
        if let Ok(m) = Model::from_onnx(&good[..cut]) {
            let _ = m.trace(&[("x".to_string(), Value::None)]);
        }
    }
    let outputs = [info("y", 1, &[2])];
    let dangling = model(&[node("Relu", &["q"], &["y"], &[])], &[], &[], &outputs);
    told(run(&dangling, &[]).unwrap_err(), &["\"q\"", "Relu"]);
    let strange = model(&[node("Frobnicate", &[], &["y"], &[])], &[], &[], &outputs);
    told(run(&strange, &[]).unwrap_err(), &["Frobnicate", "not supported"]);
    let short = model(&[], &[weights("w", &[4], &[1.0])], &[], &outputs);
    told(Model::from_onnx(&short).unwrap_err(), &["\"w\"", "4 bytes"]);
}

#[test]
fn hostile_models_are_refused_by_the_name_of_what_is_wrong() {
    let told = |what: &str, file: &[u8], parts: &[&str]| {
        let x = Tensor::zeros(&[2], DType::F32).unwrap();
        let loaded = Model::from_onnx(file).and_then(|m| {
            let takes = m.inputs().iter().any(|p| p.name == "x");
            m.session(Default::default()).run(&if takes { vec![("x", &x)] } else { vec![] })
        });
        let text = loaded.expect_err(what).to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{what}: {text}");
    };
    let (x, y) = ([info("x", 1, &[2])], [info("y", 1, &[2])]);
    let of = |nodes: &[Vec<u8>], initializers: &[Vec<u8>]| model(nodes, initializers, &x, &y);
    let named = |name: &str, node: Vec<u8>| [node, bytes(3, name.as_bytes())].concat();
    let cycle = [named("one", node("Relu", &["b"], &["a"], &[])), named("two", node("Relu", &["a"], &["b"], &[]))];
    let end = node("Add", &["a", "b"], &["y"], &[]);
    told("a cycle", &of(&[&cycle[..], &[end]].concat(), &[]), &["node \"one\" (Relu)", "input \"b\""]);
    let late = [named("first", node("Relu", &["later"], &["y"], &[])), node("Relu", &["x"], &["later"], &[])];
    told("nodes in no order", &of(&late, &[]), &["node \"first\" (Relu)", "\"later\""]);
    let twice = [node("Relu", &["x"], &["y"], &[]), named("again", node("Neg", &["x"], &["y"], &[]))];
    told("two results of a name", &of(&twice, &[]), &["node \"again\" (Neg)", "result \"y\""]);
    let own = [named("own", node("Relu", &["x"], &["x"], &[])), node("Relu", &["x"], &["y"], &[])];
    told("a result named as an input", &of(&own, &[]), &["node \"own\" (Relu)", "result \"x\""]);
    let w = weights("w", &[2], &[1.0, 2.0]);
    told("two initializers of a name", &of(&[], &[w.clone(), w]), &["initializer \"w\"", "twice"]);
    told("an output that nothing computes", &of(&[], &[]), &["output \"y\""]);
    for shape in [&[-1i64][..], &[1 << 40, 1 << 40], &[i64::MAX, 0, 2], &[i64::MIN]] {
        let add = node("Add", &["x", "w"], &["y"], &[]);
        told("sizes from nowhere", &of(&[add], &[weights("w", shape, &[1.0])]), &["tensor \"w\""]);
    }
    let strange = [int(1, 2), int(2, 99), bytes(8, b"w"), bytes(9, &[0; 8])].concat();
    let read = named("same", node("Identity", &["w"], &["y"], &[]));
    told("elements of no type", &of(&[read], &[strange]), &["node \"same\"", "input \"w\"", "type number 99"]);
    let longs = [int(1, 2), int(2, 7), bytes(8, b"n"), bytes(9, &[0; 16])].concat();
    let mixed = named("mixed", node("Add", &["x", "n"], &["y"], &[]));
    told("operands of two types", &of(&[mixed], &[longs]), &["node \"mixed\" (Add)", "f32", "i64"]);
    let axis = named("rows", node("Softmax", &["x"], &["y"], &[int_attribute("axis", 7)]));
    told("an axis that is not there", &of(&[axis], &[]), &["node \"rows\" (Softmax)", "axis 7"]);
    let pads = named("wide", node("Pad", &["x", "p"], &["y"], &[]));
    let huge: Vec<u8> = [i64::MAX, i64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    let huge = [int(1, 2), int(2, 7), bytes(8, b"p"), bytes(9, &huge)].concat();
    told("a result beyond all memory", &of(&[pads], &[huge]), &["node \"wide\" (Pad)"]);
    let resize = |how: &[Vec<u8>], scale: f32, end: f32| {
        let node = named("zoom", node("Resize", &["x", "roi", "scales"], &["y"], how));
        of(&[node], &[weights("roi", &[2], &[0.0, end]), weights("scales", &[1], &[scale])])
    };
    let mode = text_attribute("mode", "linear");
    let cropped = [mode.clone(), text_attribute("coordinate_transformation_mode", "tf_crop_and_resize")];
    told("tables beyond all memory", &resize(&[mode], 1e8, 1.0), &["node \"zoom\"", "Resize", "taps"]);
    let smoothed = [&cropped[..], &[int_attribute("antialias", 1)]].concat();
    told("no place at all", &resize(&smoothed, 1e-12, 4e12), &["node \"zoom\"", "Resize", "without elements"]);
}

/// What is no file has no end, or never begins.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_by_name_and_not_read() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let refused = |told: String, path: &std::path::Path| {
        assert!(told.contains(path.to_str().unwrap()) && told.contains("no regular file"), "{told}");
    };
    for target in [at("pipe"), "/dev/zero".into(), "/dev/null".into(), dir.path().to_path_buf()] {
        let link = |name: &str| {
            let _ = std::fs::remove_file(at(name));
            symlink(&target, at(name)).unwrap();
            at(name)
        };
        for name in ["m.onnx", "m.param", "m.wg", "m"] {
            let path = link(name);
            refused(Model::load(&path).unwrap_err().to_string(), &path);
        }
        let npy = link("x.npy");
        refused(Tensor::load_npy(&npy).unwrap_err().to_string(), &npy);
        let tensors = link("x.safetensors");
        refused(winograph::safetensors::SafeTensors::load(&tensors).unwrap_err().to_string(), &tensors);
        let weights = link("n.bin");
        std::fs::write(at("n.param"), "7767517\n1 1\nInput i 0 1 data\n").unwrap();
        refused(Model::load(at("n.param")).unwrap_err().to_string(), &weights);
    }
    // Elements in another file.
    let entry = bytes(13, &[bytes(1, b"location"), bytes(2, b"pipe")].concat());
    let w = [int(1, 2), int(2, 1), bytes(8, b"w"), entry, int(14, 1)].concat();
    std::fs::write(at("e.onnx"), model(&[node("Relu", &["w"], &["y"], &[])], &[w], &[], &[info("y", 1, &[2])]))
        .unwrap();
    refused(Model::load(at("e.onnx")).unwrap_err().to_string(), &at("pipe"));
}

#[test]
fn elements_in_other_files_stay_inside_of_the_models_folder() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("external-{}", std::process::id()));
    let inner = folder.join("model");
    std::fs::create_dir_all(&inner).unwrap();
    let eight: Vec<u8> = [3f32, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join("outside"), &eight).unwrap();
    std::fs::write(inner.join("inside"), &eight).unwrap();
    let load = |entries: &[(&str, &str)]| {
        let entry = |(k, v): &(&str, &str)| bytes(13, &[bytes(1, k.as_bytes()), bytes(2, v.as_bytes())].concat());
        let entries: Vec<u8> = entries.iter().flat_map(entry).collect();
        let w = [int(1, 2), int(2, 1), bytes(8, b"w"), entries, int(14, 1)].concat();
        let file = model(&[node("Relu", &["w"], &["y"], &[])], &[w], &[], &[info("y", 1, &[2])]);
        std::fs::write(inner.join("m.onnx"), file).unwrap();
        Model::load(inner.join("m.onnx"))
    };
    let model = load(&[("location", "inside")]).unwrap();
    let y = model.session(Default::default()).run(&[]).unwrap();
    assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [3.0, 4.0]);
    let absolute = folder.join("outside");
    for (entries, part) in [
        (&[("location", "../outside")][..], "outside of the model's folder"),
        (&[("location", absolute.to_str().unwrap())], "outside of the model's folder"),
        (&[("location", "")], "outside of the model's folder"),
        (&[], "not named"),
        (&[("location", "missing")], "missing"),
        (&[("location", "inside"), ("offset", "1")], "from 1 on"),
        (&[("location", "inside"), ("offset", "18446744073709551615")], "from 18446744073709551615 on"),
        (&[("location", "inside"), ("offset", "-1")], "offset \"-1\""),
        (&[("location", "inside"), ("length", "9")], "names 9"),
    ] {
        let e = load(entries).unwrap_err().to_string();
        assert!(e.contains(part) && (part == "missing" || e.contains("tensor \"w\"")), "{entries:?}: {e}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn constants_out_of_proportion_to_their_file_are_refused_by_the_node_that_makes_them() {
    let x = Tensor::zeros(&[1], DType::F32).unwrap();
    let (takes, y) = ([info("x", 1, &[1])], [info("y", 1, &[0])]);
    let three = || weights("c0", &[3], &[1.0, 2.0, 3.0]);
    let limit = ["\"cat25\" (Concat)", "its result \"c26\"", "805306368 bytes", "constants alone"];
    // As a result, as an operand, below a sum that is small, and where the model runs in pieces.
    let result = model(&doubled(30), &[three()], &[], &[info("c30", 1, &[0])]);
    assert_told(&refused(&result, &x), &limit);
    let add = [doubled(30), vec![node("Add", &["c30", "x"], &["y"], &[])]].concat();
    assert_told(&refused(&model(&add, &[three()], &takes, &y), &x), &limit);
    let sum = [doubled(30), vec![node("ReduceSum", &["c30"], &["s"], &[]), node("Add", &["s", "x"], &["y"], &[])]];
    assert_told(&refused(&model(&sum.concat(), &[three()], &takes, &y), &x), &limit);
    let pieces = [vec![node("NonZero", &["x"], &["n"], &[])], add].concat();
    let outputs = [info("n", 7, &[0, 0]), info("y", 1, &[0])];
    assert_told(&refused(&model(&pieces, &[three()], &takes, &outputs), &x), &limit);
    // None is too large for itself, all of them are.
    let many = |i: usize| {
        let (e, from, to) = (format!("e{i}"), if i == 0 { "x".into() } else { format!("s{i}") }, format!("s{}", i + 1));
        [node("Exp", &["c24"], &[&e], &[]), named(&format!("sum{i}"), "Add", &[&from, &e], &[&to], &[])]
    };
    let many = [doubled(24), (0..8).flat_map(many).collect()].concat();
    let text = refused(&model(&many, &[three()], &takes, &[info("s8", 1, &[0])]), &x);
    assert_told(&text, &["\"sum2\" (Add)", "201326592 bytes, with others 603979776"]);
    // What is repeated and not computed takes no memory of its own.
    let wide = |i: usize| {
        let (e, from, to) = (format!("e{i}"), if i == 0 { "x".into() } else { format!("s{i}") }, format!("s{}", i + 1));
        [node("Expand", &["c0", "n"], &[&e], &[]), node("Mul", &[&from, &e], &[&to], &[])]
    };
    let wide: Vec<Vec<u8>> = (0..8).flat_map(wide).collect();
    let last = [wide, vec![node("ReduceMax", &["s8"], &["y"], &[])]].concat();
    let n = longs("n", &[2], &[30_000_000, 3]);
    let file = model(&last, &[three(), n], &takes, &[info("y", 1, &[0, 0])]);
    Model::from_onnx(&file).unwrap().trace(&[("x".into(), x.clone().into())]).unwrap();
}

#[test]
fn constants_that_take_hours_to_compute_are_refused() {
    let square = |i: usize| {
        let (from, to) = (format!("m{i}"), format!("m{}", i + 1));
        named(&format!("product{i}"), "MatMul", &[&from, &from], &[&to], &[])
    };
    let first = [node("ConstantOfShape", &["n"], &["z"], &[]), node("Cos", &["z"], &["m0"], &[])];
    let nodes = [first.to_vec(), (0..100).map(square).collect(), vec![node("Add", &["m100", "x"], &["y"], &[])]];
    let n = longs("n", &[2], &[1500, 1500]);
    let file = model(&nodes.concat(), &[n], &[info("x", 1, &[1])], &[info("y", 1, &[0, 0])]);
    let text = refused(&file, &Tensor::zeros(&[1], DType::F32).unwrap());
    assert_told(&text, &["\"product2\" (MatMul)", "operations", "its result \"m3\""]);
}

#[test]
fn constants_that_are_looked_at_again_and_again_while_importing_are_refused() {
    let look = |i: usize| {
        let (places, sum) = (format!("p{i}"), format!("s{}", i + 1));
        let from = if i == 0 { "x".into() } else { format!("s{i}") };
        let most = format!("m{i}");
        [
            named(&format!("look{i}"), "NonZero", &["z"], &[&places], &[]),
            node("Size", &[&places], &[&most], &[]),
            node("Add", &[&from, &most], &[&sum], &[]),
        ]
    };
    let nodes = [vec![node("ConstantOfShape", &["n"], &["z"], &[])], (0..100).flat_map(look).collect()].concat();
    let n = longs("n", &[1], &[1 << 22]);
    let file = model(&nodes, &[n], &[info("x", 7, &[1])], &[info("s100", 7, &[1])]);
    let text = refused(&file, &Tensor::zeros(&[1], DType::I64).unwrap());
    assert_told(&text, &["\"look15\" (NonZero)", "while importing"]);
}

#[test]
fn what_no_memory_can_hold_is_refused_by_the_node_and_its_result() {
    let x = Tensor::zeros(&[1], DType::F32).unwrap();
    let (takes, y) = ([info("x", 1, &[1])], [info("y", 1, &[0])]);
    let text = |node: Vec<u8>, initializers: &[Vec<u8>]| refused(&model(&[node], initializers, &takes, &y), &x);
    // Of an input: more than any machine has, and more than can be counted.
    let expand = || named("big", "Expand", &["x", "n"], &["y"], &[]);
    let told = text(expand(), &[longs("n", &[1], &[1 << 50])]);
    assert_told(&told, &["\"big\" (Expand)", "its result \"y\"", "4503599627370496 bytes", "memory"]);
    let told = text(expand(), &[longs("n", &[2], &[1 << 40, 1 << 40])]);
    assert_told(&told, &["\"big\" (Expand)", "its result \"y\"", "would overflow"]);
    // Tables that are made while importing.
    let window = text(named("window", "HannWindow", &["n"], &["y"], &[]), &[longs("n", &[], &[1 << 40])]);
    assert_told(&window, &["\"window\"", "HannWindow", "1099511627776 entries"]);
    let numbers = [("bins", 1_000_000), ("length", 100_000_000), ("rate", 16_000), ("low", 0), ("high", 8_000)];
    let mel = named("mel", "MelWeightMatrix", &numbers.map(|n| n.0), &["y"], &[]);
    assert_told(
        &text(mel, &numbers.map(|(name, v)| longs(name, &[], &[v]))),
        &["\"mel\"", "MelWeightMatrix", "entries"],
    );
    let pad = named("edge", "Pad", &["x", "n"], &["y"], &[text_attribute("mode", "edge")]);
    assert_told(&text(pad, &[longs("n", &[2], &[0, 1 << 40])]), &["\"edge\"", "Pad", "entries"]);
    let parts = named("parts", "Split", &["x"], &["y"], &[int_attribute("num_outputs", 1 << 40)]);
    assert_told(&text(parts, &[]), &["\"parts\" (Split)", "num_outputs is 1099511627776"]);
    let apart = [
        node("Expand", &["x", "n"], &["e"], &[]),
        named("apart", "SplitToSequence", &["e"], &["s"], &[]),
        node("ConcatFromSequence", &["s"], &["y"], &axis_0()),
    ];
    let told = refused(&model(&apart, &[longs("n", &[1], &[1 << 28])], &takes, &y), &x);
    assert_told(&told, &["\"apart\"", "SplitToSequence", "268435456 entries"]);
    // A sparse array with one element.
    let values = weights("w", &[1], &[1.0]);
    let sparse = [bytes(1, &values), bytes(2, &longs("", &[1], &[5])), int(3, 1 << 40)].concat();
    let constant = [bytes(1, b"sparse_value"), bytes(22, &sparse), int(20, 11)].concat();
    let told = text(named("few", "Constant", &[], &["y"], &[constant]), &[]);
    assert_told(&told, &["\"few\" (Constant)", "\"sparse_value\"", "sparse tensor \"w\"", "4398046511104 bytes"]);
    let short = [bytes(1, b"value"), bytes(5, &weights("", &[1 << 40], &[1.0])), int(20, 4)].concat();
    let told = text(named("short", "Constant", &[], &["y"], &[short]), &[]);
    assert_told(&told, &["\"short\" (Constant)", "attribute \"value\"", "4 bytes for shape"]);
}

#[test]
fn outputs_of_another_shape_than_declared_are_refused_unless_sizes_of_inputs_are_open() {
    let relu = [node("Relu", &["x"], &["y"], &[])];
    let x = Tensor::zeros(&[1, 3], DType::F32).unwrap();
    let file = |input: &[i64], output: &[i64]| model(&relu, &[], &[info("x", 1, input)], &[info("y", 1, output)]);
    for (declared, shown) in [(&[7, 7][..], "[7, 7]"), (&[0, 4], "[?, 4]"), (&[3], "[3]")] {
        let parts = ["output \"y\"", shown, "computes [1, 3]"];
        assert_told(&refused(&file(&[1, 3], declared), &x), &parts);
    }
    let compiled = Model::from_onnx(&file(&[1, 3], &[7, 7])).unwrap().compile(&settings().unwrap().device);
    assert_told(&compiled.unwrap_err().to_string(), &["output \"y\"", "[7, 7]"]);
    // Another batch than the model was made with; sizes that are not stated.
    for (input, output) in
        [(&[0, 3][..], &[2, 3][..]), (&[1, 3], &[0, 3]), (&[1, 3], &[0, 0]), (&[1, 3], &[0]), (&[1, 3], &[])]
    {
        assert_eq!(run(&file(input, output), &[("x", &x)]).unwrap()[0].1.shape(), [1, 3]);
    }
    assert_told(&refused(&file(&[0, 3], &[3]), &x), &["output \"y\"", "[3]"]);
    // Inputs of other shapes than declared.
    let wide = Tensor::zeros(&[4, 3], DType::F32).unwrap();
    let traced = Model::from_onnx(&file(&[1, 3], &[1, 3])).unwrap().trace(&[("x".into(), wide.into())]).unwrap();
    assert_eq!(traced[0].tensor().unwrap().shape(), [4, 3]);
}

#[test]
fn attributes_that_an_operator_never_had_or_of_another_type_are_refused_by_name() {
    let conv = |attribute: Vec<u8>| {
        let conv = named("c", "Conv", &["x", "w"], &["y"], &[attribute]);
        model(&[conv], &[weights("w", &[1, 1, 1], &[2.0])], &[info("x", 1, &[1, 1, 2])], &[info("y", 1, &[0, 0, 0])])
    };
    let x = Tensor::ones(&[1, 1, 2], DType::F32).unwrap();
    let told = |attribute: Vec<u8>, parts: &[&str]| {
        let text = refused(&conv(attribute), &x);
        assert_told(&text, &[&["\"c\" (Conv)"], parts].concat());
    };
    told(int_attribute("foo", 3), &["attribute \"foo\"", "dilations, group, kernel_shape"]);
    told(int_attribute("stride", 3), &["attribute \"stride\"", "strides"]);
    let float = [bytes(1, b"strides"), [vec![2 << 3 | 5], 1.5f32.to_le_bytes().to_vec()].concat(), int(20, 1)].concat();
    told(float, &["\"strides\" is 1.5 (a float)", "a list of integers is expected"]);
    told(int_attribute("strides", 1), &["\"strides\" is 1 (an integer)", "a list of integers"]);
    told(ints_attribute("group", &[1]), &["\"group\" is [1] (a list of integers)", "an integer is expected"]);
    told(ints_attribute("auto_pad", &[1]), &["\"auto_pad\"", "a string is expected"]);
    assert!(run(&conv(ints_attribute("strides", &[1])), &[("x", &x)]).is_ok());
    // A note of the tool that made it; what the operator had in other versions.
    assert!(run(&conv(int_attribute("__note", 1)), &[("x", &x)]).is_ok());
    let old = |op: &str, attribute: Vec<u8>| {
        let file = model(&[node(op, &["x"], &["y"], &[attribute])], &[], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
        run(&file, &[("x", &Tensor::ones(&[2], DType::F32).unwrap())])
    };
    assert!(old("Relu", ints_attribute("consumed_inputs", &[0])).is_ok());
    assert!(old("Dropout", int_attribute("is_test", 1)).is_ok());
    assert_told(
        &old("Exp", int_attribute("base", 2)).unwrap_err().to_string(),
        &["(Exp)", "\"base\"", "consumed_inputs"],
    );
    assert_told(&old("Erf", int_attribute("base", 2)).unwrap_err().to_string(), &["(Erf)", "has no attributes"]);
    // Functions of the model have those that they name.
    let called = |attribute: &str| {
        let f = [bytes(1, b"F"), bytes(4, b"a"), bytes(5, b"b"), bytes(6, b"known"), bytes(10, b"own")].concat();
        let f = [f, bytes(7, &node("Relu", &["a"], &["b"], &[])), bytes(9, &int(2, 17))].concat();
        let call = [node("F", &["x"], &["y"], &[int_attribute(attribute, 1)]), bytes(7, b"own")].concat();
        let file = model(&[call], &[], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
        run(&[file, bytes(25, &f)].concat(), &[("x", &Tensor::ones(&[2], DType::F32).unwrap())])
    };
    assert!(called("known").is_ok());
    assert_told(&called("other").unwrap_err().to_string(), &["(F)", "\"other\"", "known"]);
}

#[test]
fn ranges_without_an_end_say_which_input_is_wrong() {
    let range = |delta: i64| {
        let node = named("steps", "Range", &["start", "limit", "delta"], &["y"], &[]);
        let numbers = [longs("start", &[], &[0]), longs("limit", &[], &[5]), longs("delta", &[], &[delta])];
        model(&[node], &numbers, &[], &[info("y", 7, &[0])])
    };
    let told = refused(&range(0), &Tensor::scalar(0f32));
    assert_told(&told, &["\"steps\" (Range)", "`delta` is 0", "a step that is not 0"]);
    assert_eq!(run(&range(2), &[]).unwrap()[0].1.to_vec::<i64>().unwrap(), [0, 2, 4]);
}

#[test]
fn sizes_below_minus_one_are_refused_and_minus_one_is_any_size() {
    let relu = [node("Relu", &["x"], &["y"], &[])];
    let file = |input: &[i64], output: &[i64]| model(&relu, &[], &[info("x", 1, input)], &[info("y", 1, output)]);
    let open = Model::from_onnx(&file(&[1, -1], &[-1, -1])).unwrap();
    let PortType::Tensor { shape, .. } = &open.inputs()[0].of else { panic!("no tensor") };
    assert_eq!(*shape, Some(vec![Some(1), None]));
    let x = Tensor::zeros(&[1, 3], DType::F32).unwrap();
    assert_told(&refused(&file(&[1, -5], &[1, 3]), &x), &["input \"x\"", "axis 1 has size -5"]);
    assert_told(
        &refused(&file(&[1, 3], &[i64::MIN, 3]), &x),
        &["output \"y\"", "axis 0 has size -9223372036854775808"],
    );
}

#[test]
fn loops_that_repeat_more_than_can_be_compiled_are_refused_by_the_node() {
    let looped = |times: i64, unrolled: usize| {
        let body: Vec<u8> = [
            bytes(1, &named("same", "Identity", &["c"], &["c2"], &[])),
            bytes(1, &named("add", "Add", &["v", "one"], &["v2"], &[])),
            bytes(2, b"body"),
            [info("i", 7, &[]), info("c", 9, &[]), info("v", 1, &[1])].map(|i| bytes(11, &i)).concat(),
            [info("c2", 9, &[]), info("v2", 1, &[1])].map(|i| bytes(12, &i)).concat(),
        ]
        .concat();
        let body = [bytes(1, b"body"), bytes(6, &body), int(20, 5)].concat();
        let mut nodes = vec![named("loop", "Loop", &["times", "", "x"], &["v0"], &[body])];
        nodes.extend((0..unrolled).map(|i| node("Relu", &[&format!("v{i}")], &[&format!("v{}", i + 1)], &[])));
        let outputs = [info(&format!("v{unrolled}"), 1, &[1])];
        model(&nodes, &[longs("times", &[], &[times]), weights("one", &[1], &[1.0])], &[info("x", 1, &[1])], &outputs)
    };
    let x = Tensor::zeros(&[1], DType::F32).unwrap();
    assert_eq!(run(&looped(20, 0), &[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap(), [20.0]);
    let told = refused(&looped(1_000_000, 0), &x);
    assert_told(&told, &["\"loop\" (Loop)", "repeat more than 65536 nodes", "run it several times"]);
    // Nodes that are all in the file may be as many as there are.
    let written = Model::from_onnx(&looped(1, 70_000)).unwrap();
    assert!(written.trace(&[("x".into(), x.into())]).is_ok());
}

/// A model `y = relu(w)` whose weights, two numbers, are in another file.
fn with_weights_in(location: &str) -> Vec<u8> {
    let entry = bytes(13, &[bytes(1, b"location"), bytes(2, location.as_bytes())].concat());
    let w = [int(1, 2), int(2, 1), bytes(8, b"w"), entry, int(14, 1)].concat();
    model(&[node("Relu", &["w"], &["y"], &[])], &[w], &[], &[info("y", 1, &[2])])
}

#[cfg(unix)]
#[test]
fn elements_beside_the_file_that_a_model_is_a_link_to_are_read_and_links_out_of_both_folders_are_refused() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let eight = [3f32, -4.0].map(f32::to_le_bytes).concat();
    for folder in ["blobs/deep", "snapshots/1/sub", "elsewhere"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    // A cache as that of a hub of models: files by their hashes, and folders of links to them.
    std::fs::write(at("blobs/1a"), with_weights_in("model.onnx_data")).unwrap();
    for file in ["blobs/2b", "blobs/deep/3c", "elsewhere/secret"] {
        std::fs::write(at(file), &eight).unwrap();
    }
    symlink("../../blobs/1a", at("snapshots/1/model.onnx")).unwrap();
    let load = |target: &str| {
        let link = at("snapshots/1/model.onnx_data");
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).unwrap();
        Model::load(at("snapshots/1/model.onnx"))
    };
    std::fs::write(at("snapshots/1/sub/own"), &eight).unwrap();
    for target in ["../../blobs/2b", "../../blobs/deep/3c", "sub/own"] {
        let y = load(target).unwrap().session(Default::default()).run(&[]).unwrap();
        assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [3.0, 0.0], "{target}");
    }
    symlink(at("elsewhere/secret"), at("blobs/out")).unwrap();
    let secret = at("elsewhere/secret");
    for target in ["../../elsewhere/secret", secret.to_str().unwrap(), "../../blobs/out"] {
        let told = load(target).unwrap_err().to_string();
        assert_told(&told, &["tensor \"w\"", "\"model.onnx_data\"", "a link out of the model's folder"]);
    }
    // The name itself leads nowhere else, whatever is there.
    for location in ["../1/model.onnx_data", "../../blobs/2b"] {
        std::fs::write(at("blobs/1a"), with_weights_in(location)).unwrap();
        assert_told(&load("../../blobs/2b").unwrap_err().to_string(), &["outside of the model's folder"]);
    }
}

#[test]
fn arrays_that_there_is_no_dtype_for_are_refused_where_they_are_read() {
    let x = Tensor::from_slice(&[-1f32, 2.0], &[2]).unwrap();
    let strange =
        |name: &str, dtype: i64| [int(1, 2), int(2, dtype), bytes(8, name.as_bytes()), bytes(9, &[1; 4])].concat();
    let arrays = [strange("short", 5), [int(1, 1), int(2, 8), bytes(8, b"text"), bytes(6, b"a")].concat()];
    let of = |nodes: &[Vec<u8>], out: &str| model(nodes, &arrays, &[info("x", 1, &[2])], &[info(out, 1, &[2])]);
    let relu = node("Relu", &["x"], &["y"], &[]);
    let unused = [relu.clone(), node("Identity", &["short"], &["z"], &[])];
    let loaded = Model::from_onnx(&of(&unused, "y")).unwrap();
    assert_eq!(loaded.parameters(), 3);
    let y = loaded.session(Default::default()).run(&[("x", &x)]).unwrap();
    assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [0.0, 2.0]);
    for (name, dtype) in [("short", "int16"), ("text", "string")] {
        let cause = format!("elements of type {dtype} are not supported");
        let read = of(&[named("same", "Identity", &[name], &["z"], &[])], "z");
        assert_told(&refused(&read, &x), &["node \"same\"", "Identity", &format!("input {name:?}"), &cause]);
        assert_told(&refused(&of(&[], name), &x), &[&format!("output {name:?}"), &cause]);
    }
    // Of a branch.
    let branch = |nodes: Vec<u8>, out: &str| {
        [nodes, bytes(5, &strange("inner", 5)), bytes(2, b"b"), bytes(12, &info(out, 1, &[2]))].concat()
    };
    let attribute = |name: &str, graph: Vec<u8>| [bytes(1, name.as_bytes()), bytes(6, &graph), int(20, 5)].concat();
    let both = |inner: &[&str]| {
        let body = || branch(bytes(1, &named("in", "Identity", inner, &["r"], &[])), "r");
        node("If", &["c"], &["y"], &[attribute("then_branch", body()), attribute("else_branch", body())])
    };
    let yes = [int(2, 9), bytes(8, b"c"), bytes(9, &[1])].concat();
    let of = |inner: &[&str]| {
        model(&[both(inner)], std::slice::from_ref(&yes), &[info("x", 1, &[2])], &[info("y", 1, &[2])])
    };
    assert!(run(&of(&["x"]), &[("x", &x)]).is_ok());
    assert_told(&refused(&of(&["inner"]), &x), &["node \"in\"", "input \"inner\"", "int16"]);
}

#[test]
fn elements_that_are_given_twice_are_refused_with_the_fields() {
    let floats = |values: [f32; 2]| bytes(4, &values.map(f32::to_le_bytes).concat());
    let add = [node("Add", &["x", "w"], &["y"], &[])];
    let of = |w: Vec<u8>| model(&add, &[w], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
    let raw = weights("w", &[2], &[1.0, 2.0]);
    let x = Tensor::zeros(&[2], DType::F32).unwrap();
    assert!(run(&of(raw.clone()), &[("x", &x)]).is_ok());
    let twice = of([raw.clone(), floats([3.0, 4.0])].concat());
    assert_told(&refused(&twice, &x), &["tensor \"w\"", "raw_data and float_data"]);
    let other = of([raw, int(7, 5)].concat());
    assert_told(&refused(&other, &x), &["tensor \"w\"", "raw_data and int64_data"]);
}

#[test]
fn nodes_with_more_inputs_or_outputs_than_their_operator_are_refused_by_name() {
    let x = Tensor::ones(&[2], DType::F32).unwrap();
    let of = |node: Vec<u8>, outputs: &[&str]| {
        let outputs: Vec<Vec<u8>> = outputs.iter().map(|o| info(o, 1, &[2])).collect();
        model(&[node], &[weights("one", &[], &[1.0])], &[info("x", 1, &[2])], &outputs)
    };
    let two = of(named("r", "Relu", &["x"], &["y", "z"], &[]), &["y", "z"]);
    assert_told(&refused(&two, &x), &["node \"r\" (Relu)", "names 2 outputs", "at most 1", "\"z\""]);
    let unread = of(named("r", "Relu", &["x"], &["y", "z"], &[]), &["y"]);
    assert_told(&refused(&unread, &x), &["node \"r\" (Relu)", "names 2 outputs"]);
    let more = of(named("a", "Add", &["x", "x", "one"], &["y"], &[]), &["y"]);
    assert_told(&refused(&more, &x), &["node \"a\" (Add)", "names 3 inputs", "takes at most 2", "\"one\""]);
    // What the version of the operators says counts: later ones take bounds as inputs.
    let clip = |opset: u8| {
        let mut file = of(named("c", "Clip", &["x", "", "one"], &["y"], &[]), &["y"]);
        *file.last_mut().unwrap() = opset;
        file
    };
    assert!(run(&clip(11), &[("x", &x)]).is_ok());
    assert_told(&refused(&clip(6), &x), &["node \"c\" (Clip)", "names 3 inputs", "at most 1"]);
    let sums = of(node("Sum", &["x", "x", "one", "x"], &["y"], &[]), &["y"]);
    assert!(run(&sums, &[("x", &x)]).is_ok());
    // Outputs of training that old versions list.
    let norm = named("n", "BatchNormalization", &["p", "s", "s", "s", "s"], &["y", "mean", "var", "m", "v"], &[]);
    let norm = |outputs: &[&str]| {
        let outputs: Vec<Vec<u8>> = outputs.iter().map(|o| info(o, 1, &[0])).collect();
        let mut file =
            model(std::slice::from_ref(&norm), &[weights("s", &[1], &[1.0])], &[info("p", 1, &[1, 1])], &outputs);
        *file.last_mut().unwrap() = 9;
        Model::from_onnx(&file).unwrap().trace(&[("p".into(), Tensor::ones(&[1, 1], DType::F32).unwrap().into())])
    };
    assert!(norm(&["y"]).is_ok());
    assert_told(
        &norm(&["y", "v"]).unwrap_err().to_string(),
        &["node \"n\" (BatchNormalization)", "names 5", "\"v\" is read"],
    );
}

#[test]
fn what_says_how_many_are_the_largest_is_named_where_it_is_missing() {
    let file = model(
        &[node("TopK", &["x"], &["v", "i"], &[])],
        &[],
        &[info("x", 1, &[4])],
        &[info("v", 1, &[0]), info("i", 7, &[0])],
    );
    assert_told(&refused(&file, &Tensor::zeros(&[4], DType::F32).unwrap()), &["TopK", "k", "is missing"]);
}
