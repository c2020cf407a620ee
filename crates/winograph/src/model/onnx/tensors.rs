//! Arrays of ONNX files as tensors.

use super::proto::{SparseTensorProto, StringEntry, TensorProto};
use crate::error::{Error, Result};
use crate::files;
use crate::model::ModelError;
use crate::model::budget::Budget;
use crate::tensor::storage::Storage;
use crate::tensor::{Tensor, shape};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use winograph_ir::{DType, Scalar};

/// The dtype with a number of `TensorProto.DataType`, or the name of one that there is none for.
pub(crate) fn dtype(number: i32) -> Result<DType, String> {
    const NAMES: [&str; 24] = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
    ];
    Ok(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::BF16,
        n => {
            let name = usize::try_from(n).ok().and_then(|n| NAMES.get(n)).copied();
            return Err(name.map_or_else(|| format!("number {n}"), str::to_string));
        }
    })
}

/// The folder of a model's file, for elements in other files.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As it was named.
    path: PathBuf,
    /// Where such files may be: the folder, and the one where the model's file is when all links are followed, as in a cache
    /// whose folders hold links to the files of all versions.
    roots: [PathBuf; 2],
}

impl Folder {
    /// That of a model in a file.
    ///
    /// # Errors
    /// A file or folder that is not there.
    pub(crate) fn of(model: &Path) -> std::io::Result<Folder> {
        let folder = |path: &Path| match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let path = folder(model);
        let roots = [path.canonicalize()?, folder(&model.canonicalize()?)];
        Ok(Folder { path, roots })
    }
}

/// The tensor of an array. `folder` is the model's, for elements in other files.
///
/// # Errors
/// Element types that there are no dtypes for, sizes that contradict the number of elements, files that are missing,
/// too short or outside of the folder.
pub(crate) fn tensor(proto: &TensorProto, folder: Option<&Folder>) -> Result<Tensor> {
    let raw = (!proto.raw_data.is_empty()).then(|| Storage::from_bytes(&proto.raw_data)).transpose()?;
    tensor_of(proto, raw, folder)
}

/// [`tensor`] of an array whose `raw_data` is in a storage already.
///
/// # Errors
/// Those of [`tensor`].
pub(super) fn tensor_of(proto: &TensorProto, raw: Option<Storage>, folder: Option<&Folder>) -> Result<Tensor> {
    let part = || format!("tensor {:?}", proto.name);
    let wrong = |cause: String| ModelError::format(part(), cause);
    let dtype = dtype(proto.data_type).map_err(|name| wrong(unheld(&name)))?;
    one_field(proto, dtype, raw.as_ref()).map_err(wrong)?;
    let dims = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
    let dims = dims.ok_or_else(|| wrong(format!("the shape {:?} has a negative size", proto.dims)))?;
    let count = shape::check_size("load", dtype, &dims).map_err(|e| wrong(e.to_string()))?;
    let bytes = count * dtype.size();

    let data = if proto.data_location == 1 {
        external(&proto.external_data, folder, bytes).map_err(|e| match e {
            Cause::Io(path, source) => ModelError::Io { path, source },
            Cause::Text(cause) => wrong(cause),
        })?
    } else if let Some(raw) = raw {
        let given = raw.len();
        if given != bytes {
            return Err(wrong(format!("{given} bytes for shape {dims:?} of {dtype}, which has {bytes}")).into());
        }
        raw
    } else {
        let mut values: Vec<Scalar> = match dtype {
            DType::F32 => proto.float_data.iter().map(|&x| Scalar::from_bits(dtype, x.to_bits() as u64)).collect(),
            DType::F64 => proto.double_data.iter().map(|&x| Scalar::from_f64(dtype, x)).collect(),
            DType::I64 => proto.int64_data.iter().map(|&x| Scalar::from_i64(dtype, x)).collect(),
            // Half floats are stored as their bits.
            DType::F16 | DType::BF16 => proto.int32_data.iter().map(|&x| Scalar::from_bits(dtype, x as u64)).collect(),
            _ => proto.int32_data.iter().map(|&x| Scalar::from_i64(dtype, x as i64)).collect(),
        };
        if values.len() != count {
            let given = values.len();
            return Err(wrong(format!("{given} elements for shape {dims:?}, which has {count}")).into());
        }
        let mut data = Storage::zeroed(bytes).map_err(in_memory(part()))?;
        for (out, s) in data.bytes_mut().chunks_exact_mut(dtype.size()).zip(values.drain(..)) {
            out.copy_from_slice(&s.bits().to_le_bytes()[..dtype.size()]);
        }
        data
    };
    let mut data = data;
    if dtype == DType::Bool {
        data.bytes_mut().iter_mut().for_each(|b| *b = (*b != 0) as u8);
    }
    Ok(Tensor::ready(Arc::new(data), dtype, dims))
}

/// What is said of elements that there is no dtype for.
pub(super) fn unheld(name: &str) -> String {
    format!("elements of type {name} are not supported")
}

/// That the elements of an array are in one place; else in which they are.
fn one_field(proto: &TensorProto, dtype: DType, raw: Option<&Storage>) -> Result<(), String> {
    let fields = [
        ("raw_data", raw.map_or(0, Storage::len)),
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
    ];
    let given: Vec<&str> = fields.iter().filter(|f| f.1 > 0).map(|f| f.0).collect();
    match given.len() > 1 {
        true => {
            Err(format!("its elements, of {dtype}, are given as {}: one of these is to be there", given.join(" and ")))
        }
        false => Ok(()),
    }
}

/// Says of what there is no memory for.
fn in_memory(part: String) -> impl FnOnce(Error) -> Error {
    |e| match e {
        Error::OutOfMemory { bytes } => ModelError::Memory { part, bytes }.into(),
        e => e,
    }
}

/// Why elements in another file cannot be had.
enum Cause {
    Io(PathBuf, std::io::Error),
    Text(String),
}

fn external(entries: &[StringEntry], folder: Option<&Folder>, bytes: usize) -> Result<Storage, Cause> {
    let text = |s: &str| Cause::Text(s.to_string());
    let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").ok_or_else(|| text("its elements are in another file that is not named"))?;
    let folder = folder.ok_or_else(|| text("its elements are in another file, and the model was not read from one"))?;
    let relative = Path::new(location);
    if location.is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Cause::Text(format!("its elements are in {location:?}, which is outside of the model's folder")));
    }
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(t) => t.parse::<u64>().map(Some).map_err(|_| Cause::Text(format!("its {key} {t:?} is not a number"))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if length.is_some_and(|l| l != bytes as u64) {
        return Err(Cause::Text(format!("it has {bytes} bytes and names {} in {location:?}", length.unwrap_or(0))));
    }
    let path = folder.path.join(relative);
    let io = |source| Cause::Io(path.clone(), source);
    // A link may lead out of the folder all the same.
    let real = path.canonicalize().map_err(io)?;
    if !folder.roots.iter().any(|root| real.starts_with(root)) {
        return Err(Cause::Text(format!(
            "its elements are in {location:?}, which is a link out of the model's folder, and of that of the file that the \
             model is a link to"
        )));
    }
    let (file, whole) = files::open(&real).map_err(io)?;
    if offset.checked_add(bytes as u64).is_none_or(|end| end > whole) {
        return Err(Cause::Text(format!("{bytes} bytes from {offset} on of {location:?}, which has {whole}")));
    }
    Storage::read_at(&file, offset, bytes).map_err(io)
}

/// The dense tensor of a sparse array.
///
/// # Errors
/// Those of [`tensor`], and indices that do not fit.
pub(crate) fn sparse(proto: &SparseTensorProto, folder: Option<&Folder>, budget: &Budget) -> Result<Tensor> {
    let name = proto.values.as_ref().map_or("", |v| &v.name);
    let part = || format!("sparse tensor {name:?}");
    let wrong = |cause: &str| ModelError::format(part(), cause);
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err(wrong("values or indices are missing").into());
    };
    let (values, indices) = (tensor(values, folder)?, tensor(indices, folder)?);
    let dims = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
    let dims = dims.ok_or_else(|| wrong("a negative size"))?;
    let dtype = values.dtype();
    let count = shape::check_size("load", dtype, &dims).map_err(|e| wrong(&e.to_string()))?;
    budget.admit(count as u64 * dtype.size() as u64).map_err(|e| wrong(&format!("dense, {e}")))?;
    let places = indices.to_vec::<i64>()?;
    let n = values.numel();
    let size = dtype.size();
    let source = values.data("load")?;
    let mut data = Storage::zeroed(count * size).map_err(in_memory(part()))?;
    for (i, value) in source.bytes("load")?.chunks_exact(size).enumerate() {
        let flat = if indices.rank() == 2 {
            let row = places.get(i * dims.len()..(i + 1) * dims.len()).ok_or_else(|| wrong("too few indices"))?;
            row.iter().zip(&dims).try_fold(0usize, |at, (&p, &d)| {
                usize::try_from(p).ok().filter(|&p| p < d).and_then(|p| at.checked_mul(d)?.checked_add(p))
            })
        } else {
            places.get(i).and_then(|&p| usize::try_from(p).ok())
        };
        let at = flat.filter(|&f| f < count).ok_or_else(|| wrong(&format!("an index of its {n} is out of bounds")))?;
        data.bytes_mut()[at * size..(at + 1) * size].copy_from_slice(value);
    }
    Ok(Tensor::ready(Arc::new(data), dtype, dims))
}
