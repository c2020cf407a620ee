//! Models in ncnn's format, written here line by line: results by definition, and files that are wrong.

use winograph::model::{Model, PictureAxes, PortType};
use winograph::settings::settings;
use winograph::{ConvOptions, DType, FunctionOptions, Tensor, f16};

/// Weights as floats, tag and all.
fn floats(values: &[f32]) -> Vec<u8> {
    [0f32].iter().chain(values).flat_map(|v| v.to_le_bytes()).collect()
}

/// Weights as half floats, padded to 4 bytes.
fn halves(values: &[f32]) -> Vec<u8> {
    let mut out = 0x0130_6B47u32.to_le_bytes().to_vec();
    out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn plain(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A model of lines that are layers; blobs are counted.
fn text(lines: &[&str]) -> Vec<u8> {
    let blobs: usize = lines.iter().map(|l| l.split_whitespace().nth(3).unwrap().parse::<usize>().unwrap()).sum();
    format!("7767517\n{} {blobs}\n{}\n", lines.len(), lines.join("\n")).into_bytes()
}

fn model(lines: &[&str], bin: &[u8]) -> winograph::Result<Model> {
    Model::from_ncnn(&text(lines), bin)
}

/// The outputs of a model of one layer.
fn layer(line: &str, bin: &[u8], inputs: &[&Tensor]) -> winograph::Result<Vec<Tensor>> {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("in{i}")).collect();
    let mut lines: Vec<String> = names.iter().map(|n| format!("Input {n} 0 1 {n}")).collect();
    lines.push(line.to_string());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let session = model(&lines, bin)?.compile(&settings()?.device)?;
    let given: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs.iter().copied()).collect();
    Ok(session.run(&given)?.into_iter().map(|(_, t)| t).collect())
}

fn one(line: &str, bin: &[u8], inputs: &[&Tensor]) -> Vec<f32> {
    layer(line, bin, inputs).unwrap()[0].to_vec::<f32>().unwrap()
}

fn rand(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, DType::F32, seed).unwrap()
}

fn close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * (1.0 + w.abs()), "element {i}: {g} for {w}");
    }
}

#[test]
fn convolutions_read_floats_and_half_floats_and_end_in_an_activation() {
    let x = rand(&[3, 9, 8], 1);
    let weights: Vec<f32> =
        rand(&[4 * 3 * 3 * 3], 2).to_vec::<f32>().unwrap().iter().map(|v| f16::from_f32(*v).to_f32()).collect();
    let bias = [0.5f32, -1.0, 2.0, 0.25];
    let line = "Convolution c 1 1 in0 out 0=4 1=3 3=2 4=1 5=1 6=108 9=2 -23310=1,0.1";
    let w = Tensor::from_slice(&weights, &[4, 3, 3, 3]).unwrap();
    let options = ConvOptions { stride: vec![2], ..ConvOptions::padding(1) };
    let b = Tensor::from_slice(&bias, &[4]).unwrap();
    let want = x.conv(&w, Some(&b), &options).unwrap().leaky_relu(0.1).unwrap().to_vec::<f32>().unwrap();
    for tag in [floats(&weights), halves(&weights)] {
        close(&one(line, &[tag, plain(&bias)].concat(), &[&x]), &want, 1e-5);
    }
}

/// `conv_transpose` by its definition: each element times the window, added up.
#[allow(clippy::too_many_arguments)]
fn scatter(
    x: &[f32],
    w: &[f32],
    n: [usize; 4],
    k: [usize; 2],
    s: [usize; 2],
    d: [usize; 2],
    g: usize,
) -> (Vec<f32>, [usize; 2]) {
    let [c, kg, h, wd] = n;
    let out = [(h - 1) * s[0] + (k[0] - 1) * d[0] + 1, (wd - 1) * s[1] + (k[1] - 1) * d[1] + 1];
    let mut y = vec![0.0; kg * g * out[0] * out[1]];
    for ci in 0..c {
        for ki in 0..kg {
            for (i, j) in (0..h).flat_map(|i| (0..wd).map(move |j| (i, j))) {
                for (a, b) in (0..k[0]).flat_map(|a| (0..k[1]).map(move |b| (a, b))) {
                    let channel = ci / (c / g) * kg + ki;
                    let at = (channel * out[0] + i * s[0] + a * d[0]) * out[1] + j * s[1] + b * d[1];
                    y[at] += x[(ci * h + i) * wd + j] * w[((ci * kg + ki) * k[0] + a) * k[1] + b];
                }
            }
        }
    }
    (y, out)
}

#[test]
fn transposed_convolutions_by_phases_are_the_sums_that_define_them() {
    for (c, kg, g, k, s, d, pad) in [
        (4, 3, 1, [4, 4], [2, 2], [1, 1], [(3, 3), (1, 2)]),
        (2, 2, 1, [3, 2], [2, 3], [1, 1], [(0, 0), (0, 1)]),
        (4, 1, 2, [3, 3], [2, 2], [2, 1], [(1, 0), (2, 0)]),
        (2, 1, 2, [5, 4], [1, 3], [2, 2], [(4, 4), (0, 0)]),
        (1, 1, 1, [2, 2], [4, 2], [1, 3], [(0, 2), (3, 3)]),
    ] {
        let (h, wd) = (5, 4);
        let (x, w) = (rand(&[1, c, h, wd], 3), rand(&[c, kg, k[0], k[1]], 4));
        let (all, out) = scatter(&x.to_vec::<f32>().unwrap(), &w.to_vec::<f32>().unwrap(), [c, kg, h, wd], k, s, d, g);
        let extra = [1, 0];
        let options = ConvOptions {
            stride: s.to_vec(),
            dilation: d.to_vec(),
            padding: pad.to_vec(),
            groups: g,
            ..ConvOptions::default()
        };
        let got = x.conv_transpose(&w, None, &options, &extra).unwrap();
        let size = [out[0] + extra[0] - pad[0].0 - pad[0].1, out[1] + extra[1] - pad[1].0 - pad[1].1];
        assert_eq!(got.shape(), [1, kg * g, size[0], size[1]]);
        let mut want = vec![];
        for channel in 0..kg * g {
            for (i, j) in (0..size[0]).flat_map(|i| (0..size[1]).map(move |j| (i, j))) {
                let (i, j) = (i + pad[0].0, j + pad[1].0);
                let inside = i < out[0] && j < out[1];
                want.push(if inside { all[(channel * out[0] + i) * out[1] + j] } else { 0.0 });
            }
        }
        close(&got.to_vec::<f32>().unwrap(), &want, 1e-5);
    }
    let x = rand(&[1, 2, 3, 3], 1);
    for (w, options) in [
        (rand(&[3, 1, 2, 2], 2), ConvOptions::default()),
        (rand(&[2, 1, 2, 2], 2), ConvOptions { stride: vec![0], ..ConvOptions::default() }),
        (rand(&[2, 1, 2, 2], 2), ConvOptions { stride: vec![1 << 40], ..ConvOptions::default() }),
        (rand(&[2, 1, 2, 2], 2), ConvOptions::padding(2)),
    ] {
        assert!(x.conv_transpose(&w, None, &options, &[]).is_err(), "{options:?}");
    }
}

#[test]
fn layers_give_what_their_definitions_say() {
    let x = Tensor::from_slice(&(0..24).map(|v| v as f32 - 11.0).collect::<Vec<_>>(), &[2, 3, 4]).unwrap();
    let v: Vec<f32> = x.to_vec().unwrap();
    let map = |f: fn(f32) -> f32| v.iter().map(|&x| f(x)).collect::<Vec<_>>();
    assert_eq!(one("ReLU l 1 1 in0 out 0=0.5", &[], &[&x]), map(|x| if x > 0.0 { x } else { 0.5 * x }));
    assert_eq!(one("Clip l 1 1 in0 out 0=-2 1=6", &[], &[&x]), map(|x| x.clamp(-2.0, 6.0)));
    assert_eq!(one("UnaryOp l 1 1 in0 out 0=4", &[], &[&x]), map(|x| x * x));
    assert_eq!(one("BinaryOp l 1 1 in0 out 0=7 1=1 2=3", &[], &[&x]), map(|x| 3.0 - x));
    close(&one("Sigmoid l 1 1 in0 out", &[], &[&x]), &map(|x| 1.0 / (1.0 + (-x).exp())), 1e-6);
    close(&one("Mish l 1 1 in0 out", &[], &[&x]), &map(|x| x * x.exp().ln_1p().tanh()), 1e-5);
    let prelu = one("PReLU l 1 1 in0 out 0=2", &plain(&[2.0, 3.0]), &[&x]);
    assert_eq!(prelu[..3], [-22.0, -20.0, -18.0]);
    assert!(prelu[12..].iter().zip(&v[12..]).all(|(a, b)| a == b), "positive elements stay");
    // A vector of as many elements as there are channels goes along them.
    let two = Tensor::from_slice(&[100f32, 200.0], &[2]).unwrap();
    let sum = one("BinaryOp l 2 1 in0 in1 out 0=0", &[], &[&x, &two]);
    assert_eq!((sum[0], sum[23]), (89.0, 212.0));
    let crop = layer("Crop l 1 1 in0 out 0=1 1=1 2=1 3=2 4=-233 5=1", &[], &[&x]).unwrap();
    assert_eq!((crop[0].shape(), crop[0].to_vec::<f32>().unwrap()), (&[1, 2, 2][..], vec![6.0, 7.0, 10.0, 11.0]));
    let parts = layer("Slice l 1 2 in0 a b -23300=2,1,-233 1=1", &[], &[&x]).unwrap();
    assert_eq!((parts[0].shape(), parts[1].shape()), (&[2, 1, 4][..], &[2, 2, 4][..]));
    let padded = layer("Padding l 1 1 in0 out 0=1 2=2 4=2", &[], &[&x]).unwrap();
    assert_eq!(
        (padded[0].shape(), padded[0].to_vec::<f32>().unwrap()[..3].to_vec()),
        (&[2, 4, 6][..], vec![-5.0, -6.0, -7.0])
    );
    let shuffled = layer(
        "PixelShuffle l 1 1 in0 out 0=2",
        &[],
        &[&Tensor::arange(0f32, 8.0, 1.0).unwrap().reshape(&[4, 1, 2]).unwrap()],
    );
    assert_eq!(shuffled.unwrap()[0].to_vec::<f32>().unwrap(), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    // Windows that stick out count what lies inside.
    let mean = layer("Pooling l 1 1 in0 out 0=1 1=2 2=2", &[], &[&x]).unwrap();
    assert_eq!(
        (mean[0].shape(), mean[0].to_vec::<f32>().unwrap()[..3].to_vec()),
        (&[2, 2, 2][..], vec![-8.5, -6.5, -2.5])
    );
    let product =
        layer("InnerProduct l 1 1 in0 out 0=1 1=1 2=24", &[floats(&[1.0; 24]), plain(&[5.0])].concat(), &[&x]);
    assert_eq!(product.unwrap()[0].to_vec::<f32>().unwrap(), [17.0]);
    let norm = one("BatchNorm l 1 1 in0 out 0=2", &plain(&[2.0, 1.0, 1.0, 0.0, 4.0, 1.0, 0.5, 0.0]), &[&x]);
    assert_eq!((norm[0], norm[12]), ((-11.0 - 1.0) / 2.0 * 2.0 + 0.5, v[12]));
    let near = layer("Interp l 1 1 in0 out 0=1 1=2 2=3", &[], &[&x]).unwrap();
    assert_eq!(
        (near[0].shape(), near[0].to_vec::<f32>().unwrap()[..4].to_vec()),
        (&[2, 6, 12][..], vec![-11.0, -11.0, -11.0, -10.0])
    );
}

#[test]
fn inputs_say_what_convolutions_need() {
    let lines = [
        "Input i 0 1 data",
        "Split s 1 2 data a b",
        "Convolution c 1 1 a y 0=2 1=1 6=6",
        "BinaryOp p 2 1 b y z 0=0 1=0",
    ];
    let m = model(&lines, &floats(&[1.0; 6])).unwrap();
    let of = PortType::Tensor { dtype: DType::F32, shape: Some(vec![Some(3), None, None]) };
    assert_eq!((m.inputs()[0].name.as_str(), &m.inputs()[0].of), ("data", &of));
    assert_eq!((m.outputs()[0].name.as_str(), m.parameters()), ("z", 6));
    let session = m.compile(&settings().unwrap().device).unwrap();
    let e = session.run(&[("data", &rand(&[2, 4, 4], 1))]).unwrap_err().to_string();
    assert!(e.contains("\"data\"") && e.contains("f32[2,4,4]") && e.contains("f32[3,?,?]"), "{e}");
}

#[test]
fn what_is_wrong_is_named_with_its_layer() {
    let bin = floats(&[1.0; 6]);
    let cases: [(&[&str], &[u8], &str); 16] = [
        (
            &["ReLU r 1 1 x y", "Input i 0 1 x"],
            &[],
            "node r (ReLU): its input \"x\" is the result of no layer before it",
        ),
        (&["ReLU r 1 1 y y"], &[], "no layer before it"),
        (&["Input i 0 1 x", "ReLU r 1 1 x x"], &[], "the name of another blob"),
        (
            &["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=6"],
            &bin[..20],
            "weight_data_size of 6 elements goes beyond the end",
        ),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=2147483646"], &bin, "goes beyond the end"),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=-4"], &bin, "weight_data_size (parameter 6) is -4"),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=6 8=1"], &bin, "int8_scale_term"),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=6 5=1"], &bin, "num_output of 2 elements"),
        (
            &["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=5"],
            &bin,
            "node c (Convolution): weight_data_size (parameter 6) is 5, expected a multiple of 2: num_output 2 by 1 by 1",
        ),
        (
            &["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=4"],
            &bin,
            "8 bytes are left when all layers have their weights, of which the last is c (Convolution), weight_data_size of 4",
        ),
        (
            &["Input i 0 1 x", "InnerProduct f 1 1 x y 0=4 2=7"],
            &bin,
            "node f (InnerProduct): weight_data_size (parameter 2) is 7, expected a multiple of 4",
        ),
        (
            &["Input i 0 1 x", "MemoryData m 0 1 y 0=99999 1=99999 2=99999 11=99999"],
            &[],
            "more elements than can be counted",
        ),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=6 5=7"], &bin, "bias_term (parameter 5) is 7"),
        (&["Input i 0 1 x", "Scale s 1 1 x y 0=3 1=1"], &bin[..16], "scale_data_size of 3 elements"),
        (
            &["Input i 0 1 x", "Convolution c 1 1 x y 0=2 1=1 6=6"],
            &[&[1, 2, 3, 4], &bin[4..]].concat(),
            "the tag 0x04030201",
        ),
        (&["Input i 0 1 x", "Convolution c 1 1 x y 0=two 1=1 6=6"], &bin, "num_output (parameter 0) is \"two\""),
    ];
    for (lines, bin, part) in cases {
        let e = model(lines, bin).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    }
    let x = rand(&[3, 4, 4], 1);
    for (line, part) in [
        ("ConvolutionDepthWise c 1 1 in0 out 0=3 1=1 7=3 6=6", "weight_data_size 6 for 3 input channels"),
        ("Convolution c 1 1 in0 out 0=1 1=5 6=75", "node c (Convolution)"),
        ("NoSuchLayer n 1 1 in0 out", "NoSuchLayer is not supported"),
        ("BinaryOp b 1 1 in0 out 0=0", "1 input(s), at least 2"),
        ("Permute p 1 1 in0 out 0=6", "order_type (parameter 0) 6"),
        ("PixelShuffle p 1 1 in0 out 0=2", "upscale_factor (parameter 0) 2 for 3 channels"),
        ("Interp i 1 1 in0 out 0=2 1=1e30 2=1", "height_scale (parameter 1)"),
        ("Crop c 1 1 in0 out 0=9 3=1 4=1 5=1", "elements 9 to"),
        ("Reshape r 1 1 in0 out 0=7", "node r (Reshape)"),
    ] {
        let needed = line.split("6=").nth(1).and_then(|n| n.parse().ok()).unwrap_or(0usize);
        let bin = if needed > 0 && line.starts_with("Conv") { floats(&vec![1.0; needed]) } else { vec![] };
        let e = layer(line, &bin, &[&x]).unwrap_err().to_string();
        assert!(e.contains(part), "{line}: {e}");
    }
}

#[test]
fn more_blobs_may_be_announced_than_there_are_and_fewer_may_not() {
    let file = |blobs: usize| format!("7767517\n2 {blobs}\nInput i 0 1 x\nReLU r 1 1 x y\n").into_bytes();
    for blobs in [2, 3, 1000] {
        assert_eq!(Model::from_ncnn(&file(blobs), &[]).unwrap().outputs()[0].name, "y");
    }
    let e = Model::from_ncnn(&file(1), &[]).unwrap_err().to_string();
    assert!(e.contains("line 2: 1 blobs are announced, 2 are there"), "{e}");
}

#[test]
fn tiles_give_what_the_whole_picture_gives() {
    // Two convolutions with padding, pixels shuffled, a picture made larger and smaller again, and larger by phases.
    let lines = [
        "Input i 0 1 data",
        "Split s 1 2 data a b",
        "Convolution c 1 1 a x 0=8 1=3 4=1 6=216 9=2 -23310=1,0.2",
        "Convolution d 1 1 x y 0=12 1=3 4=1 6=864",
        "PixelShuffle p 1 1 y z 0=2",
        "Interp r 1 1 b t 0=2 1=2.0 2=2.0",
        "BinaryOp e 2 1 z t u 0=0",
        "Interp q 1 1 u v 0=3 1=0.5 2=0.5",
        "Deconvolution g 1 1 v output 0=3 1=4 3=2 4=1 6=144",
    ];
    let weight = |count: usize| floats(&(0..count).map(|i| ((i * 37 % 61) as f32 - 30.0) / 300.0).collect::<Vec<_>>());
    let model = model(&lines, &[weight(216), weight(864), weight(144)].concat()).unwrap();
    let session = model.session(FunctionOptions::default());
    let x = Tensor::rand(&[3, 58, 75], DType::F32, 5).unwrap();
    let whole = session.run(&[("data", &x)]).unwrap().remove(0).1;
    assert_eq!(whole.shape(), [3, 116, 150]);
    let want = whole.to_vec::<f32>().unwrap();
    let axes = PictureAxes { height: 1, width: 2 };
    for tile in [32, 33, 70, 200] {
        let mut told = vec![];
        let (name, got) =
            session.run_tiled(("data", &x, axes), axes, tile, &mut |done, all| told.push((done, all))).unwrap();
        let all = told[0].1;
        assert_eq!(told, (0..=all).map(|n| (n, all)).collect::<Vec<_>>());
        assert_eq!((name.as_str(), got.shape(), all == 1), ("output", whole.shape(), tile == 200));
        close(&got.to_vec::<f32>().unwrap(), &want, 2e-5);
    }
    let e = session.run_tiled(("data", &x, axes), axes, 6, &mut |_, _| {}).unwrap_err().to_string();
    assert!(e.contains("take tiles of at least") || e.contains("too small"), "{e}");
    assert!(session.run_tiled(("data", &x, axes), axes, 0, &mut |_, _| {}).is_err());
}

#[test]
fn a_model_that_looks_at_the_whole_picture_has_no_tiles() {
    let lines =
        ["Input i 0 1 data", "Split s 1 2 data a b", "Pooling p 1 1 a m 0=1 4=1", "BinaryOp e 2 1 b m output 0=0"];
    let session = model(&lines, &[]).unwrap().session(FunctionOptions::default());
    let axes = PictureAxes { height: 1, width: 2 };
    let x = rand(&[3, 40, 40], 1);
    let e = session.run_tiled(("data", &x, axes), axes, 32, &mut |_, _| {}).unwrap_err().to_string();
    assert!(e.contains("as a whole"), "{e}");
}

#[test]
fn constants_out_of_proportion_to_their_files_are_refused_by_the_layer_that_makes_them() {
    let mut lines = vec!["MemoryData m 0 1 c0 0=4".to_string()];
    for i in 0..30 {
        lines.push(format!("Split s{i} 1 2 c{i} a{i} b{i}"));
        lines.push(format!("Concat cat{i} 2 1 a{i} b{i} c{}", i + 1));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let model = model(&lines, &[1f32; 4].map(f32::to_le_bytes).concat()).unwrap();
    let e = model.session(FunctionOptions::default()).run(&[]).unwrap_err().to_string();
    assert!(e.contains("cat25 (Concat)") && e.contains("\"c26\"") && e.contains("constants alone"), "{e}");
}

#[test]
fn sizes_by_scales_and_nearest_places_are_products_of_f32() {
    let x = Tensor::arange(0f32, 10.0, 1.0).unwrap().reshape(&[1, 1, 10]).unwrap();
    for (scale, want) in [("0.7", 7), ("0.9", 9), ("2.6", 26), ("0.75", 7)] {
        assert_eq!(one(&format!("Interp l 1 1 in0 out 0=2 2={scale}"), &[], &[&x]).len(), want, "{scale}");
    }
    // Places are as far apart as the scale says, however the size was rounded.
    let between = one("Interp l 1 1 in0 out 0=2 2=0.7", &[], &[&x.narrow(2, 0, 9).unwrap()]);
    close(&between, &[0.5 / 0.7 - 0.5, 1.5 / 0.7 - 0.5, 2.5 / 0.7 - 0.5, 4.5, 4.5 / 0.7 - 0.5, 5.5 / 0.7 - 0.5], 1e-5);
    // 3 * (1 / 0.6) is 5.
    assert_eq!(one("Interp l 1 1 in0 out 0=1 2=0.6", &[], &[&x]), [0.0, 1.0, 3.0, 5.0, 6.0, 8.0]);
}

#[test]
fn means_with_a_border_that_is_as_wide_as_it_has_to_be_count_it() {
    let x = Tensor::arange(0f32, 16.0, 1.0).unwrap().reshape(&[1, 4, 4]).unwrap();
    let v: Vec<f32> = x.to_vec().unwrap();
    // The border is after the picture for 2 and before it for 3; `pad` places at each end of the whole do not count.
    for (mode, before) in [(2, 0), (3, 1)] {
        for pad in [0, 1] {
            let mut want = Vec::new();
            for (i, j) in [(0, 0), (0, 2), (2, 0), (2, 2)] {
                let places = (i..i + 3).flat_map(|r| (j..j + 3).map(move |c| (r, c)));
                let counted = |p: &i32| (pad..5 - pad).contains(p);
                let counted: Vec<(i32, i32)> = places.filter(|(r, c)| counted(r) && counted(c)).collect();
                let element = |&(r, c): &(i32, i32)| {
                    let (r, c) = (r - before, c - before);
                    if (0..4).contains(&r) && (0..4).contains(&c) { v[(r * 4 + c) as usize] } else { 0.0 }
                };
                want.push(counted.iter().map(element).sum::<f32>() / counted.len() as f32);
            }
            let line = format!("Pooling p 1 1 in0 out 0=1 1=3 2=2 3={pad} 5={mode}");
            close(&one(&line, &[], &[&x]), &want, 1e-6);
        }
    }
}

#[test]
fn windows_that_reach_far_beyond_the_picture_see_what_is_there() {
    let x = Tensor::arange(1f32, 17.0, 1.0).unwrap().reshape(&[1, 4, 4]).unwrap();
    let all = |line: &str, want: f32| {
        let got = one(&format!("Pooling p 1 1 in0 out 1=1000000 3=500000 {line}"), &[], &[&x]);
        assert!(got.len() == 25 && got.iter().all(|v| (v / want - 1.0).abs() < 1e-5), "{line}: {got:?} for {want}");
    };
    all("0=0 5=1", 16.0);
    all("0=1 5=1", 8.5);
    all("0=1 5=1 6=1", 136.0 / 1e12);
}
