//! Elements of tensors in every dtype, on the host: exported models run where no kernel that converts them can be compiled.

use winograph::{DType, Element, Result, Tensor};

/// What a function makes of the elements of a tensor that has been computed, which it gets one after another: a large result is in
/// memory once more, in its own dtype.
pub(super) fn of<R>(t: &Tensor, f: impl FnOnce(&mut dyn Iterator<Item = f64>) -> R) -> Result<R> {
    Ok(match t.dtype() {
        DType::Bool => f(&mut t.to_vec::<bool>()?.into_iter().map(f64::from)),
        DType::U8 => f(&mut t.to_vec::<u8>()?.into_iter().map(f64::from)),
        DType::I8 => f(&mut t.to_vec::<i8>()?.into_iter().map(f64::from)),
        DType::I32 => f(&mut t.to_vec::<i32>()?.into_iter().map(f64::from)),
        DType::I64 => f(&mut t.to_vec::<i64>()?.into_iter().map(|v| v as f64)),
        DType::F16 => f(&mut t.to_vec::<winograph::f16>()?.into_iter().map(f64::from)),
        DType::BF16 => f(&mut t.to_vec::<winograph::bf16>()?.into_iter().map(f64::from)),
        DType::F32 => f(&mut t.to_vec::<f32>()?.into_iter().map(f64::from)),
        DType::F64 => f(&mut t.to_vec::<f64>()?.into_iter()),
    })
}

/// A tensor of numbers in a dtype.
pub(super) fn tensor(values: &[f32], dtype: DType, shape: &[usize]) -> Result<Tensor> {
    fn of<T: Element>(values: &[f32], shape: &[usize]) -> Result<Tensor> {
        let values: Vec<T> = values.iter().map(|v| T::from_scalar(v.to_scalar())).collect();
        Tensor::from_slice(&values, shape)
    }
    match dtype {
        DType::Bool => of::<bool>(values, shape),
        DType::U8 => of::<u8>(values, shape),
        DType::I8 => of::<i8>(values, shape),
        DType::I32 => of::<i32>(values, shape),
        DType::I64 => of::<i64>(values, shape),
        DType::F16 => of::<winograph::f16>(values, shape),
        DType::BF16 => of::<winograph::bf16>(values, shape),
        DType::F32 => Tensor::from_slice(values, shape),
        DType::F64 => of::<f64>(values, shape),
    }
}
