//! Exported programs: they compute what the function computes, without a compiler, and refuse what is wrong.

use std::path::Path;
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::env::Env;
use winograph::export::{Exported, seal};
use winograph::{ArgSpec, ConvOptions, DType, Error, Function, FunctionOptions, Tensor, compile_with};

/// A device that finds no compiler and keeps no kernels.
fn bare(threads: usize) -> Arc<dyn Device> {
    let options = CpuOptions {
        cc: Some("/no/such/compiler".into()),
        path: None,
        cache_dir: None,
        threads: Some(threads),
        ..CpuOptions::from_env(&Env::read().unwrap())
    };
    Arc::new(CpuDevice::new(options).unwrap())
}

fn network(algorithm: winograph::Algorithm) -> (Function, Tensor) {
    let w = Tensor::randn(&[8, 4, 3, 3], DType::F32, 1).unwrap();
    let scale = Tensor::rand(&[8, 1, 1], DType::F32, 2).unwrap();
    let table = Tensor::randn(&[1, 8, 16, 16], DType::F32, 3).unwrap();
    Tensor::realize_all(&[&w, &scale, &table]).unwrap();
    let compiler = winograph::Options { algorithm, ..winograph::Options::default() };
    let options = FunctionOptions { compiler: Some(compiler), ..FunctionOptions::default() };
    let f = compile_with(&[ArgSpec::new(DType::F32, &[1, 4, 16, 16])], &options, |a| {
        let y = a[0].conv2d(&w.mul(2)?, None, &ConvOptions::padding(1))?.mul(&scale.exp()?)?.relu()?;
        Ok(vec![y.add(&table)?, y.sum(&[1, 2, 3], false)?, a[0].cast(DType::F16)?])
    })
    .unwrap();
    (f, Tensor::rand(&[1, 4, 16, 16], DType::F32, 4).unwrap())
}

fn bits(t: &Tensor) -> Vec<u64> {
    let wide = t.cast(DType::F64).unwrap();
    wide.to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
}

fn bytes_of(f: &Function) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.wg");
    f.export(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_function_is_the_same_without_a_compiler() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [winograph::Algorithm::Direct, winograph::Algorithm::Winograd] {
        let (f, x) = network(algorithm);
        let path = dir.path().join("f.wg");
        f.export(&path).unwrap();
        x.realize().unwrap();
        let want: Vec<_> = f.call(&[&x]).unwrap().iter().map(bits).collect();
        for threads in [1, 3] {
            let g = Function::load(&path, &bare(threads)).unwrap();
            assert_eq!((g.args(), g.outputs()), (f.args(), f.outputs()));
            for _ in 0..2 {
                let got: Vec<_> = g.call(&[&x]).unwrap().iter().map(bits).collect();
                assert_eq!(got, want);
            }
            let names = |f: &Function| -> Vec<String> {
                f.program().run.iter().map(|s| f.program().kernels[s.kernel].name.clone()).collect()
            };
            assert_eq!(names(&g), names(&f));
            let e = g.export(dir.path().join("again.wg")).unwrap_err().to_string();
            assert!(e.contains("copy that file"), "{e}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
}

#[test]
fn functions_without_arguments_constants_or_kernels_are_exported_too() {
    let device = bare(2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.wg");
    let empty = ArgSpec::new(DType::F32, &[0, 3]);
    let options = FunctionOptions::default();
    let none = compile_with(&[empty], &options, |a| Ok(vec![a[0].add(1)?])).unwrap();
    none.export(&path).unwrap();
    let g = Function::load(&path, &device).unwrap();
    assert_eq!(g.call(&[&Tensor::zeros(&[0, 3], DType::F32).unwrap()]).unwrap()[0].shape(), [0, 3]);
    let seven = compile_with(&[], &options, |_| Ok(vec![Tensor::full(&[3], 7)?])).unwrap();
    seven.export(&path).unwrap();
    assert_eq!(Function::load(&path, &device).unwrap().call(&[]).unwrap()[0].to_vec::<i32>().unwrap(), [7; 3]);
}

#[test]
fn a_device_without_a_compiler_loads_and_compiles_nothing() {
    let device = bare(1);
    let failed = compile_with(&[], &FunctionOptions { device: Some(device), ..FunctionOptions::default() }, |_| {
        Ok(vec![Tensor::full(&[3], 7)?.add(&Tensor::from_slice(&[1i32], &[1])?)?])
    });
    assert!(failed.unwrap_err().to_string().contains("/no/such/compiler"));
}

#[test]
fn every_altered_byte_and_every_truncation_is_found() {
    let (f, _) = network(winograph::Algorithm::Winograd);
    let good = bytes_of(&f);
    let device = bare(1);
    let look = |bytes: Vec<u8>| Exported::from_bytes(bytes).and_then(|e| e.check(&device));
    look(good.clone()).unwrap();
    let header = 48 + u32::from_le_bytes(good[12..16].try_into().unwrap()) as usize;
    let step = (good.len() / 60).max(1);
    for at in (0..header.min(120)).chain((0..good.len()).step_by(step)).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let e = look(bad).unwrap_err();
        assert!(matches!(e, Error::Exported { .. }), "byte {at}: {e}");
    }
    for len in (0..100).chain((100..good.len()).step_by(step)).chain([good.len() - 1]) {
        let e = look(good[..len].to_vec()).unwrap_err().to_string();
        let said = ["truncated", "not an exported program"].iter().any(|s| e.contains(s));
        assert!(said, "{len} of {}: {e}", good.len());
    }
    let e = look([&good[..], b"x"].concat()).unwrap_err().to_string();
    assert!(e.contains("added to"), "{e}");
}

/// A file with another header and its right hash.
fn with_header(good: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    let end = 48 + u32::from_le_bytes(good[12..16].try_into().unwrap()) as usize;
    let old = String::from_utf8(good[48..end].to_vec()).unwrap();
    let new = change(old.clone());
    assert_ne!(old, new, "nothing was changed");
    seal(new.as_bytes(), &good[end..])
}

/// Replaces what stands between a text and the next comma or bracket.
fn set(header: String, before: &str, value: &str) -> String {
    let at = header.find(before).expect(before) + before.len();
    let end = at + header[at..].find([',', '}', ']']).unwrap();
    format!("{}{value}{}", &header[..at], &header[end..])
}

#[test]
fn other_machines_and_formats_are_refused_by_name() {
    let (f, _) = network(winograph::Algorithm::Direct);
    let good = bytes_of(&f);
    let device = bare(1);
    let said = |bytes: Vec<u8>| Exported::from_bytes(bytes).and_then(|e| e.load(&device)).unwrap_err().to_string();
    let swap = |from: &'static str, to: &'static str| {
        with_header(&good, |h| {
            assert!(h.contains(from), "{from} in {h}");
            h.replacen(from, to, 1)
        })
    };
    let e = said(swap("\"features\":[", "\"features\":[\"avx1024\","));
    assert!(e.contains("another kind of machine") && e.contains("lacks avx1024"), "{e}");
    let arch = format!("\"arch\":\"{}\"", std::env::consts::ARCH).leak();
    let e = said(swap(arch, "\"arch\":\"vax\""));
    assert!(e.contains("\"vax\"") && e.contains(std::env::consts::ARCH), "{e}");
    let os = format!("\"os\":\"{}\"", std::env::consts::OS).leak();
    assert!(said(swap(os, "\"os\":\"plan9\"")).contains("plan9"));
    assert!(said(with_header(&good, |h| set(h, "\"vector_bytes\":", "4096"))).contains("4096 bytes"));
    let cpu = |h: &str| h[h.find("\"cpu\":{\"arch").unwrap()..].split_once('}').unwrap().0.to_string() + "}";
    let e = said(with_header(&good, |h| h.replacen(&cpu(&h), "\"cuda\":{\"capability\":90,\"form\":\"exact\"}", 1)));
    assert!(e.contains("kernel 0") && e.contains("another kind of machine than the file"), "{e}");
    let spec = ArgSpec::new(DType::F32, &[0, 3]);
    let empty = compile_with(&[spec], &FunctionOptions::default(), |a| Ok(vec![a[0].add(1)?])).unwrap();
    let empty = bytes_of(&empty);
    let e = said(with_header(&empty, |h| h.replacen(&cpu(&h), "\"cuda\":{\"capability\":90,\"form\":\"exact\"}", 1)));
    assert!(e.contains("compute capability 9.0") && e.contains("cuda:0"), "{e}");
    let mut other = good.clone();
    other[8] = 77;
    let e = said(other);
    assert!(e.contains("format 77") && e.contains("export it again"), "{e}");
    assert!(said(b"ONNX".to_vec()).contains("not an exported program"));
    let dir = tempfile::tempdir().unwrap();
    let e = Function::load(dir.path().join("none.wg"), &device).unwrap_err().to_string();
    assert!(e.contains("none.wg") && e.contains("cannot be read"), "{e}");
}

#[test]
fn headers_that_contradict_themselves_are_refused_before_anything_is_allocated() {
    let (f, _) = network(winograph::Algorithm::Winograd);
    let good = bytes_of(&f);
    let device = bare(1);
    let cases: [(&str, &str, &str); 14] = [
        ("\"arena_bytes\":", "18446744073709551615", "memory"),
        ("\"arena_bytes\":", "0", "buffer"),
        ("\"shape\":[", "18446744073709551615", "input"),
        ("\"dtype\":", "\"f31\"", "f31"),
        ("\"kernel\":", "999", "no kernel 999"),
        ("\"args\":[", "999", "no buffer 999"),
        ("\"argument\":", "9", "no input 9"),
        ("\"output\":", "9", "no output 9"),
        ("\"prepared\":", "1", "multiple of 64"),
        ("\"prepared\":", "1152921504606846976", "out of bounds"),
        ("\"len\":", "18446744073709551615", "overflow"),
        ("\"role\":", "\"wizard\"", "wizard"),
        ("\"symbol\":", "\"a b\"", "name of a function"),
        ("\"sections\":[{\"bytes\":", "18446744073709551615", "overflow"),
    ];
    for (before, value, said) in cases {
        let bad = with_header(&good, |h| set(h, before, value));
        let e = Exported::from_bytes(bad).and_then(|e| e.check(&device)).unwrap_err().to_string();
        assert!(e.contains(said), "{before}{value}: {e}");
    }
    // A result that was made larger would have elements that nothing computes.
    let larger = with_header(&good, |h| {
        let at = h.find("\"outputs\":[").unwrap();
        format!("{}{}", &h[..at], set(h[at..].to_string(), "\"shape\":[", "4096"))
    });
    let e = Exported::from_bytes(larger).unwrap_err().to_string();
    assert!(e.contains("buffer") && e.contains("where there are"), "{e}");
    let axes = "{\"height\":0,\"width\":1}";
    for axis in ["{\"clean\":[0,9],\"period\":[0,1]}", "{\"clean\":[5,4],\"period\":[1,1]}"] {
        let tiling = format!("[{{\"input\":{axes},\"output\":{axes},\"rows\":{axis},\"columns\":{axis}}}]");
        let bad = with_header(&good, |h| h.replacen("\"tilings\":[]", &format!("\"tilings\":{tiling}"), 1));
        let e = Exported::from_bytes(bad).unwrap_err().to_string();
        assert!(e.contains("tiling 0"), "{e}");
    }
    for text in ["", "{}", "[]", "null", "{\"version\":3}", &"[".repeat(100_000)] {
        let bad = with_header(&good, |_| text.to_string());
        let e = Exported::from_bytes(bad).unwrap_err().to_string();
        assert!(e.contains("header is wrong"), "{text:.20}: {e}");
    }
    // What profiles tell of each launch, too.
    let works = |change: &dyn Fn(&str) -> String| {
        let bad = with_header(&good, |h| {
            let at = h.find("\"works\":[").unwrap();
            let end = at + h[at..].find("}]").unwrap() + 2;
            format!("{}{}{}", &h[..at], change(&h[at..end]), &h[end..])
        });
        Exported::from_bytes(bad).unwrap_err().to_string()
    };
    let e = works(&|_| "\"works\":[]".to_string());
    assert!(e.contains("works: 0 where there are"), "{e}");
    let e = works(&|list| list.replacen("\"access\":[", "\"access\":[\"r\",", 1));
    assert!(e.contains("work 0: it tells of"), "{e}");
    let e = works(&|list| list.replace("\"r\"", "\"w\""));
    assert!(e.contains("neither a result nor an intermediate"), "{e}");
    let e = works(&|list| list.replacen("\"flops\":", "\"amplification\":-1.0,\"flops\":", 1));
    assert!(e.contains("amplification"), "{e}");
    let e = works(&|list| list.replacen("\"r\"", "\"x\"", 1));
    assert!(e.contains("unknown variant"), "{e}");
    let twice = with_header(&good, |h| h.replacen("\"out1\"", "\"out0\"", 1));
    assert!(Exported::from_bytes(twice).unwrap_err().to_string().contains("two have the name"));
}

#[test]
fn files_that_cannot_be_written_leave_nothing() {
    let (f, _) = network(winograph::Algorithm::Direct);
    let dir = tempfile::tempdir().unwrap();
    let e = f.export(dir.path().join("none").join("f.wg")).unwrap_err().to_string();
    assert!(e.contains("cannot be written") && e.contains("f.wg"), "{e}");
    assert!(f.export(dir.path()).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!Path::new("f.wg").exists());
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// `y = Relu(x)` of f32[?, 3] in ONNX's protobuf.
fn onnx() -> Vec<u8> {
    let axes = [field(1, &field(2, b"n")), field(1, &[1 << 3, 3])].concat();
    let tensor = field(1, &[vec![1 << 3, 1], field(2, &axes)].concat());
    let port = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &port(b"x")), field(12, &port(b"y"))].concat();
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 13])].concat()
}

#[test]
fn a_model_is_exported_for_the_shapes_it_was_compiled_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.wg");
    let model = winograph::Model::from_onnx(&onnx()).unwrap();
    let session = model.compile_with(FunctionOptions::default()).unwrap();
    let e = session.export(&path).unwrap_err().to_string();
    assert!(e.contains("0 combinations"), "{e}");
    let x = Tensor::from_slice(&[-1f32, 2.0, -3.0, 4.0, 5.0, -6.0], &[2, 3]).unwrap();
    session.compile_for(&[("x", &x)]).unwrap();
    session.export(&path).unwrap();

    let loaded = winograph::Model::load(&path).unwrap();
    let ports = model.outputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    assert_eq!(loaded.outputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>(), ports);
    assert_eq!((loaded.operators(), loaded.parameters()), (model.operators(), model.parameters()));
    let session = loaded.compile(&bare(2)).unwrap();
    let y = session.run(&[("x", &x)]).unwrap();
    assert_eq!((y[0].0.as_str(), y[0].1.to_vec::<f32>().unwrap()), ("y", vec![0.0, 2.0, 0.0, 4.0, 5.0, 0.0]));
    let three = Tensor::from_slice(&[0f32; 9], &[3, 3]).unwrap();
    let e = session.run(&[("x", &three)]).unwrap_err().to_string();
    assert!(e.contains("\"x\"") && e.contains("f32[3,3]") && e.contains("f32[2,3]"), "{e}");
    let e = session.export(&path).unwrap_err().to_string();
    assert!(e.contains("copy that file"), "{e}");
    // Another name is another format: code is loaded only where it is asked for.
    let other = dir.path().join("m.onnx");
    std::fs::copy(&path, &other).unwrap();
    assert!(winograph::Model::load(&other).is_err());
}

/// Launches that are repeated have the numbers of their chunks in the file; numbers that there are not are refused.
#[test]
fn launches_of_chunks_are_the_same_without_a_compiler() {
    let w = Tensor::randn(&[4, 4, 3, 3], DType::F32, 1).unwrap();
    w.realize().unwrap();
    let stages = winograph_compiler::options::StageRule::Chunks(2);
    let compiler =
        winograph::Options { algorithm: winograph::Algorithm::Winograd, stages, ..winograph::Options::default() };
    let options = FunctionOptions { compiler: Some(compiler), ..FunctionOptions::default() };
    let f = compile_with(&[ArgSpec::new(DType::F32, &[3, 4, 8, 8])], &options, |a| {
        Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?])
    })
    .unwrap();
    assert!(f.program().run.iter().any(|s| s.host == [1]));
    let x = Tensor::rand(&[3, 4, 8, 8], DType::F32, 4).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.wg");
    f.export(&path).unwrap();
    let g = Function::load(&path, &bare(2)).unwrap();
    assert_eq!(bits(&g.call(&[&x]).unwrap()[0]), bits(&f.call(&[&x]).unwrap()[0]));
    let good = std::fs::read(&path).unwrap();
    for (from, to) in [("\"host\":[1]", "\"host\":[2]"), ("\"host\":[1]", "\"host\":[-1]"), (",\"host\":[1]", "")] {
        let bad = with_header(&good, |header| {
            assert!(header.contains(from), "{header}");
            header.replacen(from, to, 1)
        });
        std::fs::write(&path, bad).unwrap();
        let e = Function::load(&path, &bare(2)).unwrap_err().to_string();
        assert!(e.contains("parameter"), "{e}");
    }
}

/// A section of 8 MiB and more is mapped where the system maps files.
#[test]
fn large_sections_are_what_was_written_or_refused() {
    let w = Tensor::rand(&[2048, 1100], DType::F32, 7).unwrap();
    w.realize().unwrap();
    let f = compile_with(&[ArgSpec::new(DType::F32, &[3, 2048])], &FunctionOptions::default(), |a| {
        Ok(vec![a[0].matmul(&w)?, w.sum(&[0], false)?.add(&a[0].sum(&[0, 1], false)?)?])
    })
    .unwrap();
    let x = Tensor::rand(&[3, 2048], DType::F32, 8).unwrap();
    x.realize().unwrap();
    let want: Vec<_> = f.call(&[&x]).unwrap().iter().map(bits).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.wg");
    f.export(&path).unwrap();
    let load = |path: &Path| Function::load(path, &bare(2)).map_err(|e| e.to_string());
    let good = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let g = load(&path).unwrap();
        // Another file may take the name meanwhile.
        let other = dir.path().join("other.wg");
        std::fs::write(&other, &good).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(g.call(&[&x]).unwrap().iter().map(bits).collect::<Vec<_>>(), want);
    }
    // The header ends where the padding begins, up to a multiple of 64 KiB; the last section ends the file.
    let changed = |at: usize, what: &str| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let file = dir.path().join("changed.wg");
        std::fs::write(&file, &bytes).unwrap();
        let error = load(&file).unwrap_err();
        assert!(error.contains(what), "byte {at}: {error}");
        assert!(Exported::from_bytes(bytes).and_then(|e| e.load(&bare(1))).is_err());
    };
    let large = good.len() - (8 << 20);
    changed(large, "it is damaged");
    changed(good.len() - 1, "it is damaged");
    let padding =
        (0..good.len() / (64 << 10)).map(|n| n * (64 << 10)).find(|&at| at > 0 && good[at - 64..at] == [0; 64]);
    changed(padding.unwrap() - 1, "the padding of a section");
    // What is cut off or added between opening a file and loading it.
    for length in [good.len() as u64 - 4096, good.len() as u64 + 1] {
        std::fs::write(&path, &good).unwrap();
        let opened = Exported::open(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let error = opened.load(&bare(1)).unwrap_err().to_string();
        assert!(error.contains("truncated or has been added to"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused() {
    for path in ["/dev/zero", "/dev", "/dev/null"] {
        let error = Exported::open(path).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{path}: {error}");
    }
}
