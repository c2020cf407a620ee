//! `.npy` files: round trips, NumPy's variants, and files that are truncated or lie.

mod common;
use common::assert_error;
use proptest::prelude::*;
use winograph::{DType, Tensor};

fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"\x93NUMPY".to_vec();
    out.extend([version, 0]);
    if version == 1 {
        out.extend((header.len() as u16).to_le_bytes());
    } else {
        out.extend((header.len() as u32).to_le_bytes());
    }
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

fn read(bytes: &[u8]) -> winograph::Result<Tensor> {
    Tensor::read_npy(&mut &bytes[..])
}

#[test]
fn round_trips() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in DType::ALL.into_iter().filter(|&d| d != DType::BF16) {
        for shape in [&[][..], &[5], &[2, 3], &[0, 4], &[2, 1, 3, 2]] {
            let t = Tensor::randint(-9, 9, shape, DType::I32, 5).unwrap().cast(dtype).unwrap();
            let path = dir.path().join("t.npy");
            t.save_npy(&path).unwrap();
            let back = Tensor::load_npy(&path).unwrap();
            assert_eq!((back.dtype(), back.shape()), (dtype, shape));
            assert_eq!(back.to_npy().unwrap(), std::fs::read(&path).unwrap());
            let same = back.eq(&t).unwrap().to_vec::<bool>().unwrap();
            assert!(same.iter().all(|&b| b), "{dtype} {shape:?}");
        }
    }
    let b = Tensor::ones(&[2], DType::BF16).unwrap();
    assert_error(b.save_npy(dir.path().join("b.npy")), &["save_npy", "bf16", "f32"]);
    assert_error(Tensor::load_npy(dir.path().join("none.npy")), &["load_npy", "none.npy"]);
}

/// What `numpy.save` 2.x writes for `numpy.arange(3, dtype="<f4")`.
#[test]
fn header_as_numpy_writes_it() {
    let bytes = Tensor::arange(0f32, 3.0, 1.0).unwrap().to_npy().unwrap();
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
    assert_eq!(&bytes[10..10 + text.len()], text.as_bytes());
    assert_eq!((bytes.len(), bytes[127]), (128 + 12, b'\n'));
}

#[test]
fn variants() {
    let data: Vec<u8> = [1i32, 2, 3, 4, 5, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
    let header = "{\"shape\": (2, 3L), 'fortran_order': True, 'descr': '>i4'}\n";
    for version in 1..=3 {
        let t = read(&file(version, header, &data)).unwrap();
        assert_eq!((t.shape(), t.to_vec::<i32>().unwrap()), (&[2, 3][..], vec![1, 3, 5, 2, 4, 6]));
    }
    let t = read(&file(1, "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", &[0, 1, 7])).unwrap();
    assert_eq!(t.to_vec::<bool>().unwrap(), [false, true, true]);
    // Streams may go on; files may not.
    let two = [Tensor::scalar(1f64).to_npy().unwrap(), Tensor::scalar(2f64).to_npy().unwrap()].concat();
    let mut stream = &two[..];
    assert_eq!(Tensor::read_npy(&mut stream).unwrap().item::<f64>().unwrap(), 1.0);
    assert_eq!(Tensor::read_npy(&mut stream).unwrap().item::<f64>().unwrap(), 2.0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.npy");
    std::fs::write(&path, &two).unwrap();
    assert_error(Tensor::load_npy(&path), &["long.npy", "more bytes"]);
}

#[test]
fn every_truncation_is_an_error() {
    let whole = Tensor::arange(0i64, 4, 1).unwrap().to_npy().unwrap();
    for n in 0..whole.len() {
        assert_error(read(&whole[..n]), &["npy", "truncated"]);
    }
    assert!(read(&whole).is_ok());
}

#[test]
fn lies_are_errors() {
    let with = |descr: &str, shape: &str| {
        read(&file(1, &format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"), &[0; 64]))
    };
    assert_error(with("'<f4'", "(1000000000000,)"), &["truncated", "4000000000000 bytes", "64"]);
    assert_error(with("'<f8'", "(4294967296, 4294967296)"), &["overflow", "4294967296"]);
    assert_error(with("'<f8'", "(99999999999999999999,)"), &["npy", "size"]);
    assert_error(with("'<f4'", "(-1,)"), &["npy", "at least 0"]);
    assert_error(with("'<f4'", "(4)"), &["npy", "tuple"]);
    assert_error(with("'<c8'", "(1,)"), &["npy", "<c8", "not supported"]);
    assert_error(with("'é4'", "(1,)"), &["npy", "not supported"]);
    assert_error(with("''", "(1,)"), &["npy", "not supported"]);
    assert_error(with("'|f4'", "(1,)"), &["npy", "byte order"]);
    assert_error(with("[('a', '<f4')]", "(1,)"), &["npy", "expected a string"]);
    assert_error(with("'<f4'", "(1,), 'shape': (2,)"), &["npy", "twice"]);
    assert_error(with("'<f4'", "(1,), 'more': (2,)"), &["npy", "more"]);
    assert_error(read(&file(1, "{'descr': '<f4', 'shape': (1,)}", &[0; 4])), &["npy", "fortran_order"]);
    assert_error(read(&file(1, "{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}", &[])), &["True or False"]);
    assert_error(read(&file(4, "{}", &[])), &["npy", "version 4"]);
    assert_error(read(b"PK\x03\x04 not an array"), &["npy", "not a .npy"]);
    let mut huge = file(2, "{}", &[]);
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_error(read(&huge), &["npy", "4294967295"]);
    assert_error(read(&file(1, &format!("{{'descr': '<f4', 'shape': ({})}}", "1,".repeat(99)), &[])), &["64 axes"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes, reading ends in a tensor or an error.
    #[test]
    fn any_bytes(mut tail in proptest::collection::vec(any::<u8>(), 0..200), place in 0usize..140, value in any::<u8>()) {
        let _ = read(&tail);
        let mut whole = Tensor::ones(&[2, 3], DType::F16).unwrap().to_npy().unwrap();
        if let Some(b) = whole.get_mut(place) {
            *b = value;
        }
        let _ = read(&whole);
        let mut start = b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', 'shape': (".to_vec();
        start.append(&mut tail);
        let _ = read(&start);
    }
}
