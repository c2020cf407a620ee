//! What is done with hostile bytes: each body ends with an error or with something that keeps its promises.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;
use winograph::compile as compile_function;
use winograph::export::{Exported, seal};
use winograph::model::{Model, PortType, Value};
use winograph::safetensors::SafeTensors;
use winograph::{ArgSpec, DType, Tensor};
use winograph_compiler::optimize::plan::Kind;
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::{Algorithm, Options, Program, Target, compile};
use winograph_ir::interp::{self, InterpError};
use winograph_ir::linear::Code;
use winograph_ir::tensor::TensorGraph;
use winograph_ir::{text, verify};

/// Text of the IR, of any level: what is read is written and read again as the same; what the verifier passes runs in
/// the interpreter without leaving its memory.
pub fn ir_text(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    if let Ok(g) = text::parse_tensor(&source) {
        let printed = text::print_tensor(&g);
        let again = text::parse_tensor(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(text::print_tensor(&again), printed);
        let _ = verify::tensor::verify(&g);
    }
    if let Ok(g) = text::parse_indexed(&source) {
        let printed = text::print_indexed(&g);
        let again = text::parse_indexed(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(text::print_indexed(&again), printed);
        let _ = verify::indexed::verify(&g);
    }
    if let Ok(code) = text::parse_linear(&source) {
        let printed = text::print_linear(&code);
        let again = text::parse_linear(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(text::print_linear(&again), printed);
        if verify::linear::verify(&code).is_ok() {
            runs_in_bounds(&code);
        }
    }
}

/// Runs verified code that is small, and panics where it touches what is not its own.
fn runs_in_bounds(code: &Code) {
    let least: Vec<i64> = code.ints.params().iter().map(|p| p.lo).collect();
    let len = |e| code.ints.eval(e, &|_| 0, &|p| least[p.0 as usize]).unwrap_or(i64::MAX).max(0);
    let sizes: Vec<i64> = code.args.iter().map(|a| len(a.layout.len).saturating_mul(a.dtype.size() as i64)).collect();
    let own = code.locals.iter().map(|a| len(a.layout.len)).fold(0, i64::saturating_add);
    let work = winograph_compiler::render::item_cost(code);
    let items = winograph_compiler::render::grid_items(code, &least).unwrap_or(i64::MAX);
    let small = sizes.iter().copied().fold(own, i64::saturating_add) < 1 << 20
        && (work as i64).max(1).saturating_mul(items.max(1)) < 1 << 16
        && work < 1 << 16;
    if !small {
        return;
    }
    let mut args: Vec<Vec<u8>> = sizes.iter().map(|&s| vec![0; s as usize]).collect();
    if let Err(e @ (InterpError::OutOfBounds { .. } | InterpError::AxisOutOfBounds { .. })) =
        interp::linear::run(code, &mut args, &least)
    {
        panic!("the verifier passed it: {e}\n{}", text::print_linear(code));
    }
}

/// Arguments of the command, one a line: they are refused, or understood. Nothing is run.
pub fn command_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let args = std::iter::once("winograph").chain(text.lines().take(64)).map(Into::into);
    if let Err(message) = winograph_cli::check(args) {
        assert!(!message.trim().is_empty());
    }
}

/// A `.npy` file: what is read is written and read again as the same.
pub fn npy(data: &[u8]) {
    let Ok(t) = Tensor::read_npy(&mut &data[..]) else { return };
    let bytes = t.to_npy().unwrap_or_else(|e| panic!("{e}"));
    let again = Tensor::read_npy(&mut &bytes[..]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((again.dtype(), again.shape()), (t.dtype(), t.shape()));
    assert_eq!(again.to_npy().unwrap_or_else(|e| panic!("{e}")), bytes);
}

/// A safetensors file: what is read is written and read again as the same.
pub fn safetensors(data: &[u8]) {
    let Ok(file) = SafeTensors::from_bytes(data) else { return };
    let bytes = file.to_bytes().unwrap_or_else(|e| panic!("{e}"));
    let again = SafeTensors::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.metadata(), file.metadata());
    let of =
        |f: &SafeTensors| f.tensors().map(|(n, t)| (n.to_string(), t.dtype(), t.shape().to_vec())).collect::<Vec<_>>();
    assert_eq!(of(&again), of(&file));
    assert_eq!(again.to_bytes().unwrap_or_else(|e| panic!("{e}")), bytes);
}

/// An exported program, as it stands and as a header (up to the first newline) with the hash that belongs to it: it is
/// refused, or says what it is. No code of it is run.
pub fn exported(data: &[u8]) {
    let at = data.iter().position(|&b| b == b'\n').unwrap_or(data.len());
    let (header, sections) = data.split_at(at);
    let device = &winograph::settings::settings().unwrap_or_else(|e| panic!("{e}")).device;
    for file in [data.to_vec(), seal(header, sections.get(1..).unwrap_or_default())] {
        let bytes = file.len();
        let checked = Exported::from_bytes(file).and_then(|e| {
            assert!(e.inputs().len() + e.outputs().len() < bytes);
            e.check(device)
        });
        if let Err(e) = checked {
            assert!(e.to_string().starts_with("exported program: "), "{e}");
        }
    }
}

/// Sections of so many bytes and more of the files of [`mapped`] are mapped, where the system maps files.
const MAPPED: usize = 64 << 10;

/// An exported program whose prepared memory and constant are mapped, and where its parts are.
struct File {
    bytes: Vec<u8>,
    header: Range<usize>,
    padding: Vec<Range<usize>>,
    sections: Vec<Range<usize>>,
}

impl File {
    fn new() -> Result<File, Box<dyn std::error::Error>> {
        let n = 20_000;
        let w = Tensor::arange(0f32, n as f32, 1.0)?;
        w.realize()?;
        let f = compile_function(&[ArgSpec::new(DType::F32, &[n])], |a| Ok(vec![a[0].mul(&w.sin()?)?.add(&w)?]))?;
        let path = temporary();
        f.export(&path)?;
        let written = std::fs::read(&path)?;
        std::fs::remove_file(path)?;
        let length = written.get(12..16).and_then(|l| l.first_chunk()).ok_or("no length")?;
        let header = 48..48 + u32::from_le_bytes(*length) as usize;
        let text = String::from_utf8(written[header.clone()].to_vec())?;
        let (_, list) = text.split_once("\"sections\":[").ok_or("no sections")?;
        // The same sections, as far from each other as large ones are.
        let (mut bytes, mut from) = (written[..header.end].to_vec(), header.end);
        let (mut padding, mut sections) = (Vec::new(), Vec::new());
        for item in list.split("\"bytes\":").skip(1) {
            let size: usize = item.split(',').next().ok_or("no size")?.parse()?;
            let (end, section) = (bytes.len(), written.get(from..from + size).ok_or("a section is missing")?);
            let at = if size >= MAPPED { end.next_multiple_of(64 << 10) } else { end };
            bytes.resize(at, 0);
            bytes.extend(section);
            padding.push(end..at);
            sections.push(at..at + size);
            from += size;
        }
        padding.retain(|p| !p.is_empty());
        assert!(padding.len() == 2 && sections.len() == 3 && from == written.len(), "{padding:?} {sections:?}");
        Ok(File { bytes, header, padding, sections })
    }
}

/// The name of a file of this thread.
fn temporary() -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    std::env::temp_dir().join(format!("winograph-fuzz-{}-{thread}.wg", std::process::id()))
}

/// Edits of an exported program with mapped sections, whose header gets its right hash if asked for, before or after it is
/// opened. Whatever is changed of a section, of the padding or of the length is found; no page beyond the file's end is read.
pub fn mapped(data: &[u8]) {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| File::new().unwrap_or_else(|e| panic!("{e}")));
    let Some((flags, edits)) = data.split_first() else { return };
    // Where files are not mapped they are read when they are opened.
    let (sealed, late) = (flags & 1 != 0, cfg!(unix) && flags & 2 != 0);
    let mut bytes = file.bytes.clone();
    for edit in edits.chunks_exact(6).take(16) {
        let [part, how, at @ ..] = edit else { continue };
        let at = at.first_chunk().map_or(0, |at| u32::from_le_bytes(*at)) as usize;
        let nth = |list: &[Range<usize>]| list.get(at / (1 << 24) % list.len().max(1)).cloned();
        let range = match part % 4 {
            0 => Some(file.header.clone()),
            1 => nth(&file.padding),
            2 => nth(&file.sections),
            _ => None,
        };
        let range = range.unwrap_or(0..file.bytes.len());
        let at = range.start + at % range.len().max(1);
        match (part / 4 % 8, bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.resize(bytes.len() + at % (3 * MAPPED), *how),
            (2, Some(_)) => {
                // A digit for a digit: the header stays one.
                if let Some(digit) = bytes.iter_mut().skip(at).find(|b| b.is_ascii_digit()) {
                    *digit = b'0' + how % 10;
                }
            }
            (3, Some(byte)) => *byte = *how,
            (_, Some(byte)) => *byte ^= how,
            (_, None) => {}
        }
    }
    if sealed && let Some(header) = bytes.get(file.header.clone()) {
        let start = seal(header, &[]);
        bytes[..file.header.start].copy_from_slice(&start[..file.header.start]);
    }
    let same = |range: &Range<usize>| bytes.get(range.clone()) == file.bytes.get(range.clone());
    let right = match late {
        true => bytes.len() == file.bytes.len() && file.sections.iter().all(same),
        false => bytes == file.bytes,
    };
    let device = &winograph::settings::settings().unwrap_or_else(|e| panic!("{e}")).device;
    let path = temporary();
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    write(if late { &file.bytes } else { &bytes });
    let checked = Exported::open_mapping(&path, MAPPED as u64).and_then(|e| {
        if late {
            write(&bytes);
        }
        e.check(device)
    });
    let _ = std::fs::remove_file(&path);
    match checked {
        Ok(()) => assert!(right || sealed && !late && !same(&file.header), "a change was not found"),
        Err(e) => assert!(!right && e.to_string().starts_with(&*path.to_string_lossy()), "{e}"),
    }
}

/// A model in ONNX's format: it is refused with a message, or becomes tensors. Nothing is compiled or run.
pub fn onnx(data: &[u8]) {
    let model = match Model::from_onnx(data) {
        Ok(model) => model,
        Err(e) => return assert!(!e.to_string().trim().is_empty()),
    };
    let mut inputs = Vec::new();
    for port in model.inputs() {
        let PortType::Tensor { dtype, shape } = port.of else { return };
        let shape: Vec<usize> = shape.unwrap_or_default().into_iter().map(|s| s.unwrap_or(2)).collect();
        if shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).is_none_or(|n| n > 1 << 16) {
            return;
        }
        // A constant: shapes may follow from its elements.
        let Ok(zeros) = Tensor::zeros(&shape, dtype) else { return };
        inputs.push((port.name, Value::Tensor(zeros)));
    }
    if let Err(e) = model.trace(&inputs) {
        assert!(!e.to_string().trim().is_empty());
    }
}

/// Small graphs that plans are tried on.
fn graphs() -> Vec<TensorGraph> {
    let window = "%0 = input 0 : f32[1, 4, 6, 7]
        %1 = input 1 : f32[8, 4, 3, 3]
        %2 = pad %0 before [0, 0, 1, 1] after [0, 0, 1, 1] value 0.0f32 : f32[1, 4, 8, 9]
        %3 = unfold %2 axis 2 size 3 stride 1 dilation 1 : f32[1, 4, 6, 9, 3]
        %4 = unfold %3 axis 3 size 3 stride 1 dilation 1 : f32[1, 4, 6, 7, 3, 3]
        %5 = reshape %4 : f32[1, 1, 4, 6, 7, 3, 3]
        %6 = expand %5 : f32[1, 8, 4, 6, 7, 3, 3]
        %7 = reshape %1 : f32[1, 8, 4, 1, 1, 3, 3]
        %8 = expand %7 : f32[1, 8, 4, 6, 7, 3, 3]
        %9 = mul %6, %8 : f32[1, 8, 4, 6, 7, 3, 3]
        %10 = reduce add any fused [2, 5, 6] %9 : f32[1, 8, 6, 7]
        output %10";
    let product = "%0 = input 0 : f32[8, 12]
        %1 = input 1 : f32[12, 16]
        %2 = reshape %0 : f32[8, 12, 1]
        %3 = expand %2 : f32[8, 12, 16]
        %4 = reshape %1 : f32[1, 12, 16]
        %5 = expand %4 : f32[8, 12, 16]
        %6 = mul %3, %5 : f32[8, 12, 16]
        %7 = reduce add any fused [1] %6 : f32[8, 16]
        output %7";
    let sized = "param n 1..9
        inputs argument
        %0 = input 0 : f32[n, 10]
        %1 = add %0, %0 : f32[n, 10]
        %2 = reduce max any [1] %1 : f32[n]
        output %2";
    [window, product, sized].into_iter().map(|t| text::parse_tensor(t).unwrap_or_else(|e| panic!("{e}\n{t}"))).collect()
}

/// Compiles each graph with plans; the programs.
pub fn with_plans(plans: &StoredPlans) -> Vec<Program> {
    let mut out = Vec::new();
    for g in graphs() {
        for (target, algorithm) in [
            (Target::cpu(32), Algorithm::Winograd),
            (Target::cpu(64), Algorithm::Direct),
            (Target::by_name("cuda:sm_80").unwrap_or(Target::cpu(16)), Algorithm::Direct),
        ] {
            let options = Options { plans: plans.clone(), algorithm, ..Options::default() };
            if let Ok((program, _)) = compile(&g, &target, &options) {
                out.push(program);
            }
        }
    }
    out
}

/// A file of plans: whatever it says, a kernel that is compiled with it has passed the verifier, and does not leave its
/// memory in the interpreter.
pub fn plans(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(plans) = StoredPlans::parse(&text) else { return };
    // Code of thousands of copies takes long and shows nothing new.
    let copies = |p: &winograph_compiler::optimize::plan::Plan| {
        let factors = p.loops.iter().chain(&p.reduces).flatten();
        let copied = factors.filter(|f| matches!(f.kind, Kind::Unroll | Kind::Vector));
        copied.map(|f| f.size.unwrap_or(8)).fold(1i64, i64::saturating_mul)
    };
    if plans.plans.iter().any(|p| copies(&p.1) > 512) {
        return;
    }
    for program in with_plans(&plans) {
        for code in &program.kernels {
            verify::linear::verify(code).unwrap_or_else(|e| panic!("{e}\n{}", text::print_linear(code)));
            runs_in_bounds(code);
        }
    }
}

/// The plans that the heuristics choose, as files of plans: what a fuzzer may begin with.
pub fn own_plans() -> Vec<String> {
    let mut out = Vec::new();
    for g in graphs() {
        for algorithm in [Algorithm::Winograd, Algorithm::Direct] {
            let options = Options { algorithm, ..Options::default() };
            if let Ok((_, explanation)) = compile(&g, &Target::cpu(32), &options) {
                let nests = explanation.kernels.iter().flat_map(|k| &k.nests);
                out.push(nests.map(|n| format!("{}: {}\n", n.output, n.plan)).collect());
            }
        }
    }
    out
}

/// Models of ncnn: the text of a `.param` file, a zero byte, and the bytes of a `.bin` file. What is read can be asked
/// for everything that it says, and its tensors can be built; they are not computed.
pub fn ncnn(data: &[u8]) {
    use winograph::model::{Model, PortType, Value};
    let cut = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    let bin = data.get(cut + 1..).unwrap_or_default();
    let Ok(model) = Model::from_ncnn(&data[..cut], bin) else { return };
    assert!(model.parameters() <= 4 * bin.len(), "weights from nowhere");
    let _ = (model.outputs(), model.operators());
    let input = |p: winograph::model::Port| {
        let PortType::Tensor { dtype, shape } = p.of else { return None };
        let shape: Vec<usize> = shape.unwrap_or_else(|| vec![None; 3]).into_iter().map(|s| s.unwrap_or(8)).collect();
        Some((p.name, Value::Tensor(winograph::Tensor::zeros(&shape, dtype).ok()?)))
    };
    if let Some(inputs) = model.inputs().into_iter().map(input).collect::<Option<Vec<_>>>() {
        let _ = model.trace(&inputs);
    }
}
