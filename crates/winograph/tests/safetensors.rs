//! Files of named tensors: round trips, files as others write them, and files that are truncated or lie.

mod common;
use common::assert_error;
use std::collections::BTreeMap;
use winograph::safetensors::SafeTensors;
use winograph::{DType, Tensor};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

#[test]
fn round_trips() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let shapes: [&[usize]; 5] = [&[], &[5], &[2, 3], &[0, 4], &[2, 1, 3, 2]];
    let mut all = Vec::new();
    for dtype in DType::ALL {
        for shape in shapes {
            let t = Tensor::randint(-9, 9, shape, DType::I32, 5).unwrap().cast(dtype).unwrap();
            all.push((format!("{dtype} \"{shape:?}\" é"), t));
        }
    }
    let notes = BTreeMap::from([("format".to_string(), "pt \"\n".to_string())]);
    let written = SafeTensors::new(all.clone()).unwrap().with_metadata(notes.clone());
    written.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes, written.to_bytes().unwrap());
    for back in [SafeTensors::load(&path).unwrap(), SafeTensors::from_bytes(&bytes).unwrap()] {
        assert_eq!(back.metadata(), &notes);
        assert_eq!(back.tensors().count(), all.len());
        for (name, t) in &all {
            let b = back.get(name).unwrap();
            assert_eq!((b.dtype(), b.shape()), (t.dtype(), t.shape()));
        }
        assert_eq!(back.to_bytes().unwrap(), bytes);
    }
    let none = SafeTensors::new(vec![]).unwrap().with_metadata(notes);
    assert_eq!(SafeTensors::from_bytes(&none.to_bytes().unwrap()).unwrap().metadata().len(), 1);
    assert_eq!(SafeTensors::from_bytes(&file("{}", b"")).unwrap().tensors().count(), 0);
}

/// Numbers of two types in the order of their names, with notes and blanks after the header.
#[test]
fn files_of_others_are_read() {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},
        "a":{"dtype":"F32","shape":[1,2],"data_offsets":[3,11]},"c":{"dtype":"BOOL","shape":[2],"data_offsets":[11,13]}}    "#;
    let data = [&[1u8, 0xff, 3][..], &1.5f32.to_le_bytes(), &(-2f32).to_le_bytes(), &[7, 0]].concat();
    let read = SafeTensors::from_bytes(&file(header, &data)).unwrap();
    assert_eq!(read.get("b").unwrap().to_vec::<i8>().unwrap(), [1, -1, 3]);
    assert_eq!(read.get("a").unwrap().to_vec::<f32>().unwrap(), [1.5, -2.0]);
    assert_eq!(read.get("c").unwrap().to_vec::<bool>().unwrap(), [true, false]);
    assert!(read.get("d").is_none());
}

#[test]
fn files_that_lie_are_refused() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"w\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let read = |header: &str, data: &[u8]| SafeTensors::from_bytes(&file(header, data));
    let huge = "[1152921504606846976,1152921504606846976]";
    for (header, bytes, parts) in [
        (entry("F32", "[2]", "[0,8]"), 7, &["\"w\"", "truncated"][..]),
        (entry("F32", "[2]", "[0,8]"), 9, &["8 bytes", "9"]),
        (entry("F32", "[2]", "[0,4]"), 8, &["\"w\"", "8 bytes for shape [2]"]),
        (entry("F32", "[2]", "[8,0]"), 8, &["\"w\""]),
        (entry("F32", "[2]", "[4,12]"), 12, &["\"w\"", "begins at byte 4"]),
        (entry("F32", huge, "[0,8]"), 8, &["\"w\"", "overflow"]),
        (entry("F32", "[1099511627776]", "[0,4398046511104]"), 8, &["\"w\"", "truncated"]),
        (entry("F32", "[-1]", "[0,8]"), 8, &["header is wrong"]),
        (entry("F32", "[2.5]", "[0,8]"), 8, &["header is wrong"]),
        (entry("F8_E4M3", "[8]", "[0,8]"), 8, &["\"w\"", "F8_E4M3", "BF16"]),
        (entry("F32", &format!("[{}1]", "1,".repeat(64)), "[0,4]"), 4, &["\"w\"", "axes"]),
        ("{\"w\":{\"dtype\":\"U8\",\"shape\":[]}}".into(), 1, &["data_offsets"]),
        ("{\"w\":3}".into(), 1, &["header is wrong"]),
        ("{\"__metadata__\":{\"a\":3}}".into(), 0, &["header is wrong"]),
        ("[]".into(), 0, &["header is wrong", "each tensor"]),
        ("{} x".into(), 0, &["header is wrong"]),
        ("".into(), 0, &["header is wrong"]),
        ("{".repeat(9999), 0, &["header is wrong"]),
    ] {
        assert_error(read(&header, &vec![0; bytes]), &[&["safetensors"], parts].concat());
    }
    let one = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    assert_error(read(&format!("{{{one},{one}}}"), b"x"), &["\"w\" is there twice"]);
    let other = one.replace("\"w\"", "\"v\"");
    assert_error(read(&format!("{{{one},{other}}}"), b"x"), &["begins at byte 0"]);
    for bytes in [&b""[..], b"1234567", &[255; 8], &[255; 200], &[9, 0, 0, 0, 0, 0, 0, 0, b'{']] {
        assert_error(SafeTensors::from_bytes(bytes), &["safetensors: "]);
    }
    let t = Tensor::ones(&[1], DType::F32).unwrap();
    assert_error(SafeTensors::new(vec![("a".into(), t.clone()), ("a".into(), t.clone())]), &["\"a\""]);
    assert_error(SafeTensors::new(vec![("__metadata__".into(), t)]), &["__metadata__"]);
    assert_error(SafeTensors::load("/none/w.safetensors"), &["w.safetensors"]);
}
