//! The bodies of the fuzz targets on mutations of good inputs, for a minute in all: what `fuzz/` does for as long as one
//! likes. `WINOGRAPH_FUZZ_SECONDS` runs each for longer, `WINOGRAPH_FUZZ_INPUTS` until it has had so many inputs;
//! `WINOGRAPH_FUZZ_AFTER` leaves the first rounds out: with it a long run has parts, and a round that failed comes again. All
//! threads take rounds, whose inputs follow from their numbers. The program needs no file beside it but the filetests, for
//! `ir_text`, and a C compiler, for `exported` and `mapped`.

#[path = "../../../fuzz/bodies.rs"]
#[allow(unreachable_pub)]
mod bodies;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Steele, Lea & Flood's splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn part(&mut self, len: usize) -> std::ops::Range<usize> {
        let at = self.below(len + 1);
        at..(at + self.below(24)).min(len)
    }
}

/// Words that mean something somewhere, among them numbers at the edges.
const WORDS: [&str; 40] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "8",
    "63",
    "64",
    "4096",
    "4097",
    "65536",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "nan",
    "inf",
    "1e308",
    "%0",
    "%1",
    "r0",
    "a0",
    "a1",
    "a2=",
    "grid",
    "loop",
    "unroll:3",
    "vector:8",
    "order=a0",
    ",",
    ":",
    "=",
    " ",
    "\n",
    "\"",
    "[",
    "]",
    "(",
    ")",
];

fn mutate(r: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[r.below(seeds.len())].clone();
    for _ in 0..1 + r.below(6) {
        let part = r.part(data.len());
        match r.below(8) {
            0 if !data.is_empty() => {
                let at = r.below(data.len());
                data[at] ^= 1 << r.below(8);
            }
            1 if !data.is_empty() => {
                let at = r.below(data.len());
                data[at] = r.below(256) as u8;
            }
            2 => drop(data.drain(part)),
            3 => {
                let copy = data[part].to_vec();
                let at = r.below(data.len() + 1);
                data.splice(at..at, copy);
            }
            4 => {
                let other = &seeds[r.below(seeds.len())];
                let from = r.part(other.len());
                data.splice(part, other[from].iter().copied());
            }
            5 => {
                // A number for a number.
                let digits: Vec<usize> = (0..data.len()).filter(|&i| data[i].is_ascii_digit()).collect();
                if let Some(&at) = digits.get(r.below(digits.len())) {
                    let end = (at..data.len()).find(|&i| !data[i].is_ascii_digit()).unwrap_or(data.len());
                    let word = WORDS[r.below(19)].bytes();
                    data.splice(at..end, word);
                }
            }
            _ => {
                let word = WORDS[r.below(WORDS.len())].bytes();
                data.splice(part, word);
            }
        }
    }
    data.truncate(20_000);
    data
}

fn fuzz(name: &str, seeds: &[Vec<u8>], body: fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let inputs = number("WINOGRAPH_FUZZ_INPUTS");
    let seconds = number("WINOGRAPH_FUZZ_SECONDS").unwrap_or(15);
    for seed in seeds {
        body(seed);
    }
    let start = Instant::now();
    let before = number("WINOGRAPH_FUZZ_AFTER").unwrap_or(0);
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let rounds = || {
        while !failed.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if inputs.map_or_else(|| start.elapsed() >= Duration::from_secs(seconds), |most| n >= most) {
                break;
            }
            let round = before.wrapping_add(n + 1);
            let data = mutate(&mut Random(round), seeds);
            if let Err(panic) = std::panic::catch_unwind(|| body(&data)) {
                failed.store(true, Ordering::Relaxed);
                eprintln!("{name}, round {round}: {:?}", String::from_utf8_lossy(&data));
                std::panic::resume_unwind(panic);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(rounds))));
    let done = done.into_inner();
    println!("{name}: {done} inputs after {before} in {:.1} s, {threads} threads", start.elapsed().as_secs_f64());
    assert!(inputs.is_some() || done > 100, "{name}: {done} inputs in {seconds} s are too few to say anything");
}

/// Inputs and outputs of the filetests.
fn filetests() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filetests");
    let mut out = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        let Ok(files) = std::fs::read_dir(folder.unwrap().path()) else { continue };
        for file in files {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let lines = |part: &str| {
                let kept: Vec<&str> = part.lines().filter(|l| !l.starts_with(';')).collect();
                kept.join("\n").into_bytes()
            };
            out.extend(text.split("; expect").map(lines));
        }
    }
    out.sort();
    out.retain(|t| t.len() < 6000);
    out
}

#[test]
fn ir_text() {
    fuzz("ir_text", &filetests(), bodies::ir_text);
}

#[test]
fn command_line() {
    let lines = [
        "bench conv --input 1,64,56,56 --weight 64,64,3,3 --padding 1",
        "bench conv --input 1,4,9 --weight 4,2,5 --padding 2 --groups 2 --stride 1 --dilation 1 --tile 4 --json",
        "bench conv --points 0,1,-1,1/2,-2 --algo direct,tensor,graph,auto --threads 2 --runs 3",
        "explain conv --input 1,8,4,5,6 --weight 8,8,3,3,1 --tile 2,4,2 --layout creation --grid range-id",
        "explain conv --target cuda:sm_80 --source --passes --plan --weights each-call",
        "bench overhead --calls 3 --json",
        "bench compile --nodes 1,2",
        "check graphs --count 3 --seed 18446744073709551615 --optimize 0 --jobs 1",
        "devices --json",
        "run model.onnx --input x=a.png --shape x=1,3,8,8 --output y=b.png --mean 1,2,3 --scale 0.5 --channels bgr --layout nchw",
        "run m.param --input data=random --tile-size 64 --tolerance 2 --threads 1 --json",
        "inspect m.param --shape data=3,8,8 --json",
        "explain model m.onnx --shape x=1,3,8,8 --target metal --tolerance 2 --only conv1,conv2 --json",
        "--help",
    ];
    let seeds: Vec<Vec<u8>> = lines.iter().map(|l| l.replace(' ', "\n").into_bytes()).collect();
    fuzz("command_line", &seeds, bodies::command_line);
}

#[test]
fn npy() {
    use winograph::{DType, Tensor};
    let of = |shape: &[usize], dtype| Tensor::ones(shape, dtype).unwrap().to_npy().unwrap();
    let mut seeds: Vec<Vec<u8>> =
        DType::ALL.into_iter().filter(|&d| d != DType::BF16).map(|d| of(&[2, 3], d)).collect();
    seeds.extend([of(&[], DType::F32), of(&[0, 4], DType::F64), of(&[1, 1, 1, 5], DType::I32)]);
    let text = |descr: &str, fortran: &str, shape: &str| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.bytes());
        out.extend([0; 24]);
        out
    };
    seeds.extend([text("<f4", "True", "(2, 3)"), text("<f8", "False", "(3,)"), text("|b1", "False", "()")]);
    seeds.push(text("<f4", "False", "(9223372036854775807, 9223372036854775807)"));
    seeds.push(text(">f4", "False", "(1099511627776,)"));
    fuzz("npy", &seeds, bodies::npy);
}

#[test]
fn onnx() {
    // A window with shape arithmetic behind it, a loop and a branch, and operators that make their sizes up.
    let seeds: [&[u8]; 3] = [
        include_bytes!("../../../fuzz/seeds/conv.onnx"),
        include_bytes!("../../../fuzz/seeds/control.onnx"),
        include_bytes!("../../../fuzz/seeds/shapes.onnx"),
    ];
    for seed in seeds {
        let model = winograph::Model::from_onnx(seed).unwrap();
        assert!(!model.operators().is_empty());
    }
    fuzz("onnx", &seeds.map(<[u8]>::to_vec), bodies::onnx);
}

#[test]
fn safetensors() {
    use winograph::safetensors::SafeTensors;
    use winograph::{DType, Tensor};
    let tensor = |n: usize, d: DType| (format!("layer.{n}.weight"), Tensor::ones(&[2, n], d).unwrap());
    let of = |list: Vec<_>| SafeTensors::new(list).unwrap();
    let all = of(DType::ALL.into_iter().enumerate().map(|(n, d)| tensor(n, d)).collect());
    let notes = std::iter::once(("format".to_string(), "pt".to_string())).collect();
    let files =
        [of(vec![]), of(vec![tensor(3, DType::F32)]), of(vec![tensor(1, DType::Bool)]).with_metadata(notes), all];
    let seeds: Vec<Vec<u8>> = files.iter().map(|f| f.to_bytes().unwrap()).collect();
    fuzz("safetensors", &seeds, bodies::safetensors);
}

#[test]
fn exported() {
    use winograph::{ArgSpec, DType, Tensor, compile};
    let path = std::env::temp_dir().join(format!("winograph-fuzz-seed-{}.wg", std::process::id()));
    let mut seeds = Vec::new();
    for n in [1usize, 70_000] {
        let w = Tensor::ones(&[n], DType::F32).unwrap();
        w.realize().unwrap();
        let f = compile(&[ArgSpec::new(DType::F32, &[n])], |a| Ok(vec![a[0].mul(&w.exp()?)?.add(&w)?])).unwrap();
        f.export(&path).unwrap();
        let file = std::fs::read(&path).unwrap();
        let end = 48 + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
        seeds.push(file[..end].to_vec());
        seeds.push(file[48..end].to_vec());
        // Short sections, with their right sizes.
        let header = String::from_utf8(file[48..end].to_vec()).unwrap();
        let at = header.find("\"sections\":[").unwrap();
        let (before, _) = header.split_at(at);
        let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let sections =
            format!("\"sections\":[{{\"bytes\":0,\"hash\":\"{hash}\"}},{{\"bytes\":7,\"hash\":\"{hash}\"}}]}}");
        seeds.push(format!("{before}{sections}\n1234567").into_bytes());
    }
    std::fs::remove_file(path).unwrap();
    fuzz("exported", &seeds, bodies::exported);
}

#[test]
fn mapped() {
    // One edit of each kind in each part of the file, before it is opened with its old and a new hash, and after.
    let mut seeds = vec![vec![0]];
    for flags in 0..3 {
        for part in 0..4 {
            for kind in 0..5 {
                let edit = |at: u32| [&[part + 4 * kind, 1 + kind][..], &(at * 0x1010_1011).to_le_bytes()].concat();
                seeds.push([&[flags][..], &edit(1), &edit(2)].concat());
            }
        }
    }
    fuzz("mapped", &seeds, bodies::mapped);
}

#[test]
fn ncnn() {
    let layers = [
        "Split s 1 2 data a b",
        "Convolution c 1 1 data y 0=2 1=3 4=1 5=1 6=54 9=2 -23310=1,0.1",
        "ConvolutionDepthWise c 1 1 data y 0=3 1=3 3=2 4=-233 6=27 7=3",
        "Deconvolution d 1 1 data y 0=2 1=4 3=2 4=1 6=96",
        "PReLU p 1 1 data y 0=3",
        "InnerProduct i 1 1 data y 0=2 2=384",
        "Pooling p 1 1 data y 0=1 1=2 2=2 5=0",
        "Pooling p 1 1 data y 7=1 8=3 18=-233",
        "Interp r 1 1 data y 0=3 1=2.0 2=0.5",
        "Interp r 1 1 data y 0=2 3=5 4=7 6=1",
        "PixelShuffle p 1 1 data y 0=1",
        "BinaryOp b 1 1 data y 0=6 1=1 2=0.5",
        "UnaryOp u 1 1 data y 0=17",
        "Eltwise e 1 1 data y 0=1 -23301=1,2.0",
        "Concat c 1 1 data y 0=-1",
        "Crop c 1 1 data y 0=1 1=1 3=2 4=-233 5=1",
        "Crop c 1 1 data y -23309=2,1,0 -23310=2,2,-233 -23311=2,0,-1",
        "Slice s 1 2 data y z -23300=2,1,-233 1=1",
        "Padding p 1 1 data y 0=1 1=1 2=2 3=2 4=2 7=1",
        "Scale s 1 1 data y 0=3 1=1",
        "Softmax s 1 1 data y 0=1",
        "Reshape r 1 1 data y 0=-1 1=4",
        "Permute p 1 1 data y 0=5",
        "BatchNorm b 1 1 data y 0=3 1=1e-5",
        "MemoryData m 0 1 y 0=4 1=2",
        "Reduction r 1 1 data y 0=3 1=0 -23303=1,1 4=1",
        "LayerNorm l 1 1 data y 0=8",
    ];
    let seed = |line: &&str| {
        let blobs: usize = 1 + line.split_whitespace().nth(3).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        let mut data = format!("7767517\n2 {blobs}\nInput i 0 1 data 0=8 1=8 2=3\n{line}\n\0").into_bytes();
        // As many weights as the layer reads, found by trying.
        for count in 0..500 {
            let bin = vec![0; 4 * count];
            let text = &data[..data.len() - 1];
            if winograph::Model::from_ncnn(text, &bin).is_ok() {
                data.extend(bin);
                return data;
            }
        }
        panic!("{line}: it is not read with any number of weights");
    };
    let seeds: Vec<Vec<u8>> = layers.iter().map(seed).collect();
    fuzz("ncnn", &seeds, bodies::ncnn);
}

#[test]
fn plans() {
    let mut seeds: Vec<Vec<u8>> = [
        "",
        "# nothing\n",
        "contraction: a0=grid,unroll:4 a1=grid,vector:8 a2=grid r0=loop r1=unroll r2=unroll order=a0,a1,a2",
        "out0: a0=grid a1=grid,vector:8 order=a1,a0\n",
        "out0: a0=grid,loop:3 a1=loop,vector:4 r0=loop,unroll:2 order=a0,a1\n",
        "direct: a0=grid a1=unroll:2,grid:3 a2=loop,vector:16 r0=loop r1=loop r2=unroll order=a2,a1,a0\n",
        "out0: a0=grid r0=loop order=a0\n",
        "multiply: a0=grid,unroll:4 a1=vector:8 a2=grid a3=grid a4=loop r0=loop order=a3,a4,a0,a1,a2\n",
        "out0: a0=grid,thread:4 a1=grid,thread:8 r0=loop order=a0,a1 threads=a1,a0\n",
    ]
    .iter()
    .map(|t| t.as_bytes().to_vec())
    .collect();
    for name in winograph_compiler::optimize::stored::StoredPlans::names() {
        let plans = winograph_compiler::optimize::stored::StoredPlans::known(name).unwrap();
        let lines: Vec<String> = plans.plans.iter().map(|(n, p)| format!("{n}: {p}")).collect();
        seeds.push(lines.join("\n").into_bytes());
    }
    // Each kernel's own plan, for mutations that still fit.
    for text in bodies::own_plans() {
        seeds.push(text.into_bytes());
    }
    fuzz("plans", &seeds, bodies::plans);
}
