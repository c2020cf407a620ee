//! Pooling. ONNX's borders may be wider than half the window and its windows dilated, so the windows are made here.

use super::super::node::{Lowering, Node, one};
use super::window::Window;
use crate::error::Result;
use crate::model::{Value, reach};
use crate::tensor::{Tensor, shape};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "MaxPool" => max_pool,
        "AveragePool" => average_pool,
        "LpPool" => lp_pool,
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global,
        "MaxUnpool" => max_unpool,
        _ => return None,
    })
}

fn window(n: &Node<'_>) -> Result<Window> {
    let x = n.x(0)?;
    let kernel = n.sizes("kernel_shape")?.ok_or_else(|| n.wrong("kernel_shape is missing"))?;
    if x.rank() < 3 {
        return Err(n.wrong(format!("an input {:?} without spatial axes", x.shape())));
    }
    Window::new(n, kernel, &x.shape()[2..])
}

/// Windows that have taps which no element is ever under, without these; `None` where all have a use.
fn clipped(x: &Tensor, w: &Window) -> Option<Window> {
    let slides = w.slides(&x.shape()[2..]);
    let beyond = slides.iter().any(|s| s.reaches_beyond());
    let clipped: Vec<reach::Slide> = slides.into_iter().map(reach::Slide::clipped).collect();
    beyond.then(|| Window {
        kernel: clipped.iter().map(|s| s.kernel).collect(),
        stride: w.stride.clone(),
        dilation: w.dilation.clone(),
        // As much as is needed after it is added.
        padding: clipped.iter().map(|s| (s.before, 0)).collect(),
        out: w.out.clone(),
    })
}

/// The windows of the spatial axes, `[n, c, out.., window..]`, in a border of `fill`.
fn windows(x: &Tensor, w: &Window, fill: Scalar) -> Result<Tensor> {
    let name = "pool";
    let mut amounts = vec![(0, 0); 2];
    amounts.extend(w.cover(&x.shape()[2..]));
    let mut x = x.pad_to(name, &amounts, fill)?;
    for i in 0..w.out.len() {
        let used = (w.out[i] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1;
        x = x.narrow(2 + i as isize, 0, used)?.unfold_to(name, 2 + i, w.kernel[i], w.stride[i], w.dilation[i])?;
    }
    Ok(x)
}

/// The axes inside of windows.
fn inner(w: &Window) -> Vec<usize> {
    let rank = w.out.len();
    (2 + rank..2 + 2 * rank).collect()
}

fn sums(x: &Tensor, w: &Window) -> Result<Tensor> {
    windows(x, w, Scalar::zero(x.dtype()))?.reduce("pool", ReduceOp::Add, &inner(w), SumOrder::Any)
}

fn max_pool(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let w = window(n)?;
    let w = clipped(x, &w).unwrap_or(w);
    let low = ReduceOp::Max.identity(x.dtype());
    let all = windows(x, &w, low)?;
    let most = all.reduce("pool", ReduceOp::Max, &inner(&w), SumOrder::Any)?;
    if !n.wants(1) {
        return one(most);
    }
    // The place in the whole input of the first largest element.
    let name = "pool";
    let places = places(x.shape(), n.flag("storage_order"))?;
    let beyond = Scalar::from_i64(DType::I64, i64::MAX);
    let places = windows(&places, &w, beyond)?;
    let mut shape = most.shape().to_vec();
    shape.extend(std::iter::repeat_n(1, w.out.len()));
    let hit = all.eq(most.reshape_to(name, &shape)?.expand_as(name, all.shape())?)?;
    let other = Tensor::full_scalar(name, beyond, all.shape())?;
    let index = hit.where_(&places, &other)?.reduce(name, ReduceOp::Min, &inner(&w), SumOrder::Any)?;
    Ok(vec![most.into(), index.into()])
}

/// The number of each element in the flattened tensor; with `columns` the spatial axes are counted column-major.
fn places(shape: &[usize], columns: bool) -> Result<Tensor> {
    let name = "pool";
    let mut total = Tensor::zeros(shape, DType::I64)?;
    for axis in 0..shape.len() {
        let stride = match (columns, axis) {
            (true, 2..) => shape::count(&shape[2..axis]),
            _ => shape::count(&shape[axis + 1..]),
        };
        total = total.add(Tensor::iota(name, DType::I64, shape, axis)?.mul(stride as i64)?)?;
    }
    Ok(total)
}

fn average_pool(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let w = window(n)?;
    x.require_float("average_pool")?;
    if let Some(clipped) = clipped(x, &w) {
        return average_of_clipped(n, &w, &clipped);
    }
    let mut shape = vec![1, 1];
    shape.extend(&x.shape()[2..]);
    // The number of elements in each window is the pool of ones; with count_include_pad the border has ones, too.
    let ones = Tensor::ones(&shape, x.dtype().compute())?;
    let counts = if n.flag("count_include_pad") {
        let mut amounts = vec![(0, 0); 2];
        amounts.extend(&w.padding);
        let bordered = ones.pad_to("pool", &amounts, Scalar::one(ones.dtype()))?;
        let rest = Window {
            kernel: w.kernel.clone(),
            stride: w.stride.clone(),
            dilation: w.dilation.clone(),
            padding: vec![(0, 0); w.out.len()],
            out: w.out.clone(),
        };
        sums(&bordered, &rest)?
    } else {
        sums(&ones, &w)?
    };
    let whole: usize = w.kernel.iter().product();
    let all_inside = w.cover(&x.shape()[2..]).iter().all(|&p| p == (0, 0));
    one(x.computed(|x| {
        let total = sums(x, &w)?;
        if all_inside { total.div(whole as f64) } else { total.binary("pool", BinaryOp::Div, &counts) }
    })?)
}

/// The mean of windows that reach beyond the input: sums of what they meet, by how many taps they have.
fn average_of_clipped(n: &Node<'_>, w: &Window, clipped: &Window) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let spatial = &x.shape()[2..];
    one(x.computed(|x| {
        let mut total = sums(x, clipped)?;
        for (i, s) in w.slides(spatial).into_iter().enumerate() {
            let inside = s.before..s.before.saturating_add(s.size);
            let within =
                if n.flag("count_include_pad") { 0..inside.end.saturating_add(w.padding[i].1) } else { inside };
            n.table(s.out)?;
            let mut shape = vec![1; x.rank()];
            shape[2 + i] = s.out;
            let counts = Tensor::from_slice(&s.counts(within), &shape)?.cast(x.dtype())?;
            total = total.div(&counts)?;
        }
        Ok(total)
    })?)
}

fn lp_pool(n: &Node<'_>) -> Result<Vec<Value>> {
    let w = window(n)?;
    let w = clipped(n.x(0)?, &w).unwrap_or(w);
    let p = n.int("p", 2) as f64;
    one(n.x(0)?.computed(|x| sums(&x.abs()?.pow(p)?, &w)?.pow(1.0 / p))?)
}

fn global(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    if x.rank() < 3 {
        return Err(n.wrong(format!("an input {:?} without spatial axes", x.shape())));
    }
    let axes: Vec<isize> = (2..x.rank() as isize).collect();
    let p = n.int("p", 2) as f64;
    one(match n.op() {
        "GlobalMaxPool" => x.max(&axes, true)?,
        "GlobalAveragePool" => x.mean(&axes, true)?,
        _ => x.computed(|x| x.abs()?.pow(p)?.sum(&axes, true)?.pow(1.0 / p))?,
    })
}

fn max_unpool(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "max_unpool";
    let (x, index) = (n.x(0)?, n.x(1)?);
    let kernel = n.sizes("kernel_shape")?.ok_or_else(|| n.wrong("kernel_shape is missing"))?;
    let rank = kernel.len();
    if x.rank() != rank + 2 {
        return Err(n.wrong(format!("a window {kernel:?} and an input {:?}", x.shape())));
    }
    let stride = n.sizes("strides")?.unwrap_or_else(|| vec![1; rank]);
    let pads = n.sizes("pads")?.unwrap_or_else(|| vec![0; 2 * rank]);
    if stride.len() != rank || pads.len() != 2 * rank {
        return Err(n.wrong("strides or pads of another length than the window"));
    }
    let mut inferred = x.shape()[..2].to_vec();
    for i in 0..rank {
        let whole = (x.shape()[2 + i].saturating_sub(1)).saturating_mul(stride[i]).saturating_add(kernel[i]);
        inferred.push(whole.saturating_sub(pads[i] + pads[i + rank]));
    }
    let shape = match n.host_ints(2)? {
        Some(list) => n.as_sizes("the output shape", &list)?,
        None => inferred.clone(),
    };
    // Places are those of the inferred shape; a larger result holds it at its start.
    let flat = Tensor::zeros(&[shape::check_size(name, x.dtype(), &inferred)?], x.dtype())?;
    let count = x.numel();
    let index = index.reshape_to(name, &[count])?;
    let y = flat.scatter(0, &index, &x.reshape_to(name, &[count])?, None)?.reshape_to(name, &inferred)?;
    let grow = inferred.iter().zip(&shape).map(|(&a, &b)| b.checked_sub(a).map(|more| (0, more)));
    let grow = grow.collect::<Option<Vec<_>>>().filter(|g| g.len() == shape.len());
    let grow = grow.ok_or_else(|| n.wrong(format!("the output shape {shape:?} is smaller than {inferred:?}")))?;
    one(y.pad_to(name, &grow, Scalar::zero(y.dtype()))?)
}
