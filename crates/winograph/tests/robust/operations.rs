//! Every operation on tensors, with random arguments. `coverage.rs` compares the list with the source.

use super::source::Source;
use winograph::{DType, Element, Number, Operand, Result, Scalar, Tensor, TensorBuffer, bf16, f16};
use winograph_ir::ReduceOp;

/// Tensors that operations may be given: those of any size, and those that can be computed at once.
pub struct Pool {
    pub any: Vec<Tensor>,
    pub few: Vec<Tensor>,
}

/// Calls an operation; what it gives.
pub type Call = fn(&mut Source, &Pool) -> Result<Vec<Tensor>>;

/// All that compile nothing.
pub fn all() -> Vec<&'static (&'static str, Call)> {
    UNARY.iter().chain(BINARY).chain(OTHERS).collect()
}

fn one(t: Result<Tensor>) -> Result<Vec<Tensor>> {
    t.map(|t| vec![t])
}

/// What does something else than making a tensor.
fn done<T>(r: Result<T>) -> Result<Vec<Tensor>> {
    r.map(|_| vec![])
}

/// An operand that is a tensor, a number of some type, or a switch.
enum Any {
    Tensor(Tensor),
    Float(f64),
    Int(i64),
    Bool(bool),
}

fn operand(s: &mut Source, p: &Pool) -> Any {
    match s.below(8) {
        0 => Any::Float(s.number()),
        1 => Any::Int(s.place() as i64),
        2 => Any::Bool(s.flag()),
        _ => Any::Tensor(s.pick(&p.any)),
    }
}

impl Operand for Any {
    fn operand(&self, op: &'static str, like: &Tensor) -> Result<Tensor> {
        match self {
            Any::Tensor(t) => t.operand(op, like),
            Any::Float(n) => n.operand(op, like),
            Any::Int(n) => n.operand(op, like),
            Any::Bool(b) => b.operand(op, like),
        }
    }
}

fn unary(s: &mut Source, p: &Pool, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    one(f(&s.pick(&p.any)))
}

/// An operation on two tensors.
fn pair(s: &mut Source, p: &Pool, f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    one(f(&s.pick(&p.any), &s.pick(&p.any)))
}

fn axes(s: &mut Source, p: &Pool, f: impl Fn(&Tensor, &[isize], bool) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    one(f(&s.pick(&p.any), &s.list(3, Source::place), s.flag()))
}

fn number(s: &mut Source) -> Number {
    match s.below(3) {
        0 => s.number().into(),
        1 => (s.place() as i64).into(),
        _ => s.flag().into(),
    }
}

fn parts(s: &mut Source, p: &Pool) -> Vec<Tensor> {
    s.list(3, |s| s.pick(&p.any))
}

/// Calls a function with elements of a random type.
macro_rules! of_any_type {
    ($s:expr, |$t:ident| $body:expr) => {
        match $s.below(9) {
            0 => {
                type $t = f32;
                $body
            }
            1 => {
                type $t = f64;
                $body
            }
            2 => {
                type $t = f16;
                $body
            }
            3 => {
                type $t = bf16;
                $body
            }
            4 => {
                type $t = i8;
                $body
            }
            5 => {
                type $t = i32;
                $body
            }
            6 => {
                type $t = i64;
                $body
            }
            7 => {
                type $t = u8;
                $body
            }
            _ => {
                type $t = bool;
                $body
            }
        }
    };
}

macro_rules! unaries {
    ($($name:ident)*) => {
        &[$((concat!("Tensor::", stringify!($name)), |s, p| unary(s, p, |x| x.$name()))),*]
    };
}

/// Operations without arguments.
pub const UNARY: &[(&str, Call)] = unaries! {
    neg abs exp log sqrt sin cos tanh erf floor ceil trunc round rsqrt reciprocal square sign isnan relu sigmoid silu gelu
    gelu_tanh tan atan asin acos sinh cosh asinh acosh atanh logical_not bitwise_not contiguous
};

macro_rules! binaries {
    ($($name:ident)*) => {
        &[$((concat!("Tensor::", stringify!($name)), |s, p| {
            let x = s.pick(&p.any);
            one(x.$name(operand(s, p)))
        })),*]
    };
}

/// Operations with an operand that may be a number.
pub const BINARY: &[(&str, Call)] = binaries! {
    add sub mul div div_trunc div_floor fmod remainder pow maximum minimum lt le gt ge eq ne bitwise_and bitwise_or bitwise_xor
};

/// All others.
pub const OTHERS: &[(&str, Call)] = &[
    ("Tensor::logical_and", |s, p| pair(s, p, Tensor::logical_and)),
    ("Tensor::logical_or", |s, p| pair(s, p, Tensor::logical_or)),
    ("Tensor::logical_xor", |s, p| pair(s, p, Tensor::logical_xor)),
    ("Tensor::where_", |s, p| one(s.pick(&p.any).where_(&s.pick(&p.any), &s.pick(&p.any)))),
    ("Tensor::masked_fill", |s, p| one(s.pick(&p.any).masked_fill(&s.pick(&p.any), number(s)))),
    ("Tensor::clamp", |s, p| {
        let ends = |s: &mut Source| s.flag().then(|| s.number());
        one(s.pick(&p.any).clamp(ends(s), ends(s)))
    }),
    ("Tensor::cast", |s, p| one(s.pick(&p.any).cast(s.dtype()))),
    ("Tensor::leaky_relu", |s, p| one(s.pick(&p.any).leaky_relu(s.number()))),
    ("Tensor::prelu", |s, p| pair(s, p, Tensor::prelu)),
    ("Tensor::sum", |s, p| axes(s, p, Tensor::sum)),
    ("Tensor::prod", |s, p| axes(s, p, Tensor::prod)),
    ("Tensor::mean", |s, p| axes(s, p, Tensor::mean)),
    ("Tensor::max", |s, p| axes(s, p, Tensor::max)),
    ("Tensor::min", |s, p| axes(s, p, Tensor::min)),
    ("Tensor::var", |s, p| {
        let unbiased = s.flag();
        axes(s, p, |x, list, keep| x.var(list, unbiased, keep))
    }),
    ("Tensor::argmax", |s, p| one(s.pick(&p.any).argmax(s.flag().then(|| s.place()), s.flag()))),
    ("Tensor::argmin", |s, p| one(s.pick(&p.any).argmin(s.flag().then(|| s.place()), s.flag()))),
    ("Tensor::softmax", |s, p| one(s.pick(&p.any).softmax(s.place()))),
    ("Tensor::log_softmax", |s, p| one(s.pick(&p.any).log_softmax(s.place()))),
    ("Tensor::cumsum", |s, p| one(s.pick(&p.any).cumsum(s.place()))),
    ("Tensor::topk", |s, p| {
        let pair = s.pick(&p.any).topk(s.size(), s.place(), s.flag())?;
        Ok(vec![pair.0, pair.1])
    }),
    ("Tensor::slice", |s, p| one(s.pick(&p.any).slice(&s.list(4, Source::range)))),
    ("Tensor::slice_axis", |s, p| one(s.pick(&p.any).slice_axis(s.place(), s.range()))),
    ("SliceRange::step", |s, p| one(s.pick(&p.any).slice(&[s.range().step(s.place())]))),
    ("Tensor::narrow", |s, p| one(s.pick(&p.any).narrow(s.place(), s.size(), s.size()))),
    ("Tensor::select", |s, p| one(s.pick(&p.any).select(s.place(), s.place()))),
    ("Tensor::cat", |s, p| one(Tensor::cat(&parts(s, p).iter().collect::<Vec<_>>(), s.place()))),
    ("Tensor::stack", |s, p| one(Tensor::stack(&parts(s, p).iter().collect::<Vec<_>>(), s.place()))),
    ("Tensor::gather", |s, p| one(s.pick(&p.any).gather(s.place(), &s.pick(&p.any)))),
    ("Tensor::index_select", |s, p| one(s.pick(&p.any).index_select(s.place(), &s.pick(&p.any)))),
    ("Tensor::scatter", |s, p| {
        let reduce = [None, Some(ReduceOp::Add), Some(ReduceOp::Mul), Some(ReduceOp::Max), Some(ReduceOp::Min)];
        one(s.pick(&p.any).scatter(s.place(), &s.pick(&p.any), &s.pick(&p.any), reduce[s.below(5)]))
    }),
    ("Tensor::from_slice", |s, _| {
        let shape = s.list(4, Source::size);
        of_any_type!(s, |T| one(Tensor::from_slice(&vec![T::default(); s.below(9)], &shape)))
    }),
    ("Tensor::scalar", |s, _| of_any_type!(s, |T| Ok(vec![Tensor::scalar(T::default())]))),
    ("Tensor::full", |s, _| {
        let shape = s.list(4, Source::size);
        of_any_type!(s, |T| one(Tensor::full(&shape, T::default())))
    }),
    ("Tensor::zeros", |s, _| one(Tensor::zeros(&s.list(4, Source::size), s.dtype()))),
    ("Tensor::ones", |s, _| one(Tensor::ones(&s.list(4, Source::size), s.dtype()))),
    ("Tensor::full_like", |s, p| one(s.pick(&p.any).full_like(number(s)))),
    ("Tensor::arange", |s, _| match s.below(4) {
        0 => one(Tensor::arange(s.number(), s.number(), s.number())),
        1 => one(Tensor::arange(s.number() as f32, s.number() as f32, s.number() as f32)),
        2 => one(Tensor::arange(s.next() as u8, s.next() as u8, s.next() as u8)),
        _ => one(Tensor::arange(s.place() as i64, s.place() as i64, s.place() as i64)),
    }),
    ("Tensor::rand", |s, _| one(Tensor::rand(&s.list(4, Source::size), s.dtype(), s.next() as u64))),
    ("Tensor::randn", |s, _| one(Tensor::randn(&s.list(4, Source::size), s.dtype(), s.next() as u64))),
    ("Tensor::randint", |s, _| {
        let (low, high) = (s.place() as i64, s.place() as i64);
        one(Tensor::randint(low, high, &s.list(4, Source::size), s.dtype(), s.next() as u64))
    }),
    ("Tensor::eye", |s, _| one(Tensor::eye(s.size(), s.size(), s.dtype()))),
    ("Tensor::tril", |s, p| one(s.pick(&p.any).tril(s.place() as i64))),
    ("Tensor::triu", |s, p| one(s.pick(&p.any).triu(s.place() as i64))),
    ("Tensor::max_pool", |s, _| {
        let (x, kernel, options) = s.pooling();
        one(x.max_pool(&kernel, &options))
    }),
    ("Tensor::avg_pool", |s, _| {
        let (x, kernel, options) = s.pooling();
        one(x.avg_pool(&kernel, &options))
    }),
    ("Tensor::matmul", |s, p| pair(s, p, Tensor::matmul)),
    ("Tensor::linear", |s, p| {
        let bias = s.flag().then(|| s.pick(&p.any));
        pair(s, p, |x, w| x.linear(w, bias.as_ref()))
    }),
    ("Tensor::batch_norm", |s, p| {
        let (mean, variance, w) = (s.pick(&p.any), s.pick(&p.any), s.flag().then(|| s.pick(&p.any)));
        one(s.pick(&p.any).batch_norm(&mean, &variance, w.as_ref(), w.as_ref(), s.number()))
    }),
    ("Tensor::group_norm", |s, p| {
        let w = s.flag().then(|| s.pick(&p.any));
        one(s.pick(&p.any).group_norm(s.size(), w.as_ref(), w.as_ref(), s.number()))
    }),
    ("Tensor::layer_norm", |s, p| {
        let (x, w) = (s.pick(&p.any), s.flag().then(|| s.pick(&p.any)));
        let from = s.below(x.rank() + 1);
        one(x.layer_norm(&x.shape()[from..], w.as_ref(), None, s.number()))
    }),
    ("Tensor::reshape", |s, p| one(s.pick(&p.any).reshape(&s.list(4, Source::place)))),
    ("Tensor::flatten", |s, p| one(s.pick(&p.any).flatten(s.place(), s.place()))),
    ("Tensor::permute", |s, p| one(s.pick(&p.any).permute(&s.list(4, Source::place)))),
    ("Tensor::transpose", |s, p| one(s.pick(&p.any).transpose(s.place(), s.place()))),
    ("Tensor::expand", |s, p| one(s.pick(&p.any).expand(&s.list(4, Source::place)))),
    ("Tensor::broadcast_to", |s, p| one(s.pick(&p.any).broadcast_to(&s.list(4, Source::size)))),
    ("Tensor::squeeze", |s, p| one(s.pick(&p.any).squeeze(&s.list(3, Source::place)))),
    ("Tensor::unsqueeze", |s, p| one(s.pick(&p.any).unsqueeze(s.place()))),
    ("Tensor::pad", |s, p| {
        let x = s.pick(&p.any);
        let n = s.nearly(x.rank()).min(5);
        let amounts: Vec<_> = (0..n).map(|_| (s.place(), s.place())).collect();
        one(x.pad(&amounts, number(s)))
    }),
    ("Tensor::flip", |s, p| one(s.pick(&p.any).flip(&s.list(3, Source::place)))),
    ("Tensor::unfold", |s, p| one(s.pick(&p.any).unfold(s.place(), s.size(), s.size()))),
    ("Tensor::unfold_dilated", |s, p| one(s.pick(&p.any).unfold_dilated(s.place(), s.size(), s.size(), s.size()))),
    ("Tensor::conv", |s, _| one(s.convolution(None).call(Tensor::conv))),
    ("Tensor::conv_direct", |s, _| one(s.convolution(None).call(Tensor::conv_direct))),
    ("Tensor::conv1d", |s, _| one(s.convolution(Some(1)).call(Tensor::conv1d))),
    ("Tensor::conv2d", |s, _| one(s.convolution(Some(2)).call(Tensor::conv2d))),
    ("Tensor::conv3d", |s, _| one(s.convolution(Some(3)).call(Tensor::conv3d))),
    ("Tensor::conv_transpose", |s, _| {
        let extra = s.list(3, Source::size);
        one(s.convolution(None).call(|x, w, b, o| x.conv_transpose(w, b, o, &extra)))
    }),
    ("Tensor::conv_winograd", |s, _| {
        let c = s.plain_convolution();
        let (tile, matrices) = s.tile(&c);
        one(c.call(|x, w, b, o| x.conv_winograd(w, b, o, &tile, &matrices)))
    }),
    ("Tensor::conv_tensor_level", |s, _| {
        let c = s.plain_convolution();
        let tile = s.flag().then(|| s.list(4, Source::size));
        let points = (s.below(4) == 0).then(|| s.points());
        one(c.call(|x, w, b, o| Ok(x.conv_tensor_level(w, b, o, tile.as_deref(), points.as_deref())?.tensor)))
    }),
    ("ConvOptions::padding", |s, _| {
        let c = s.convolution(None);
        let options = winograph::ConvOptions::padding(s.size());
        one(c.call(|x, w, b, _| x.conv(w, b, &options)))
    }),
    ("Tensor::shape", |s, p| {
        let x = s.pick(&p.any);
        assert_eq!(x.shape().len(), x.rank());
        Ok(vec![])
    }),
    ("Tensor::dtype", |s, p| {
        let x = s.pick(&p.any);
        assert!(DType::ALL.contains(&x.dtype()));
        Ok(vec![])
    }),
    ("Tensor::rank", |s, p| {
        assert!(s.pick(&p.any).rank() < 64);
        Ok(vec![])
    }),
    ("Tensor::numel", |s, p| {
        let x = s.pick(&p.any);
        assert_eq!(x.numel() == 0, x.shape().contains(&0));
        Ok(vec![])
    }),
    ("Tensor::is_realized", |s, p| {
        let x = s.pick(&p.any);
        let _ = x.is_realized();
        Ok(vec![])
    }),
    ("Operand::operand", |s, p| {
        let x = s.pick(&p.any);
        one(operand(s, p).operand("test", &x))
    }),
    ("Element::from_scalar", |s, p| {
        let value = Scalar::from_f64(s.dtype(), s.number());
        of_any_type!(s, |T| Ok(vec![Tensor::scalar(T::from_scalar(value)), s.pick(&p.any)]))
    }),
    ("Element::to_scalar", |s, _| {
        of_any_type!(s, |T| {
            assert_eq!(T::default().to_scalar().dtype(), T::DTYPE);
            Ok(vec![])
        })
    }),
    ("Element::read", |s, _| {
        let bytes = s.bytes(9);
        of_any_type!(s, |T| Ok(vec![Tensor::scalar(T::read(&bytes))]))
    }),
    ("Element::write", |s, _| {
        let mut bytes = s.bytes(9);
        of_any_type!(s, |T| {
            T::default().write(&mut bytes);
            Ok(vec![])
        })
    }),
    ("TensorBuffer::new", |s, _| done(TensorBuffer::new(s.dtype(), &s.list(4, Source::size)))),
    ("TensorBuffer::dtype", |s, _| {
        let dtype = s.dtype();
        assert_eq!(TensorBuffer::new(dtype, &[2])?.dtype(), dtype);
        Ok(vec![])
    }),
    ("TensorBuffer::shape", |s, _| {
        let n = s.below(5);
        assert_eq!(TensorBuffer::new(s.dtype(), &[n])?.shape(), [n]);
        Ok(vec![])
    }),
    ("TensorBuffer::to_vec", |s, _| {
        let buffer = TensorBuffer::new(s.dtype(), &[3])?;
        of_any_type!(s, |T| done(buffer.to_vec::<T>()))
    }),
    ("TensorBuffer::into_tensor", |s, _| Ok(vec![TensorBuffer::new(s.dtype(), &[s.below(5)])?.into_tensor()])),
    ("Tensor::load_npy", |s, _| one(Tensor::load_npy(format!("/nowhere/{}", s.text())))),
    ("Tensor::read_npy", |s, _| {
        let mut bytes = Tensor::ones(&[2, 3], DType::F32)?.to_npy()?;
        for _ in 0..s.below(4) {
            let at = s.below(bytes.len());
            bytes[at] = s.next() as u8;
        }
        bytes.truncate(s.nearly(bytes.len()).min(bytes.len()));
        one(Tensor::read_npy(&mut &bytes[..]))
    }),
    ("Tensor::save_npy", |s, p| done(s.pick(&p.few).save_npy(format!("/nowhere/{}", s.text())))),
    // Only of what is computed at once: a program for each of thousands of graphs would take minutes.
    ("Tensor::to_npy", |s, _| done(s.tensor().slice(&[]).and_then(|t| t.to_npy()))),
];

/// Operations that compile: each call costs a run of the C compiler where the program is new.
pub const COMPILING: &[(&str, Call)] = &[
    ("Tensor::to_host", |s, p| one(s.pick(&p.few).to_host())),
    ("Tensor::to", |s, p| {
        let gpu = winograph::virtual_gpu::VirtualGpu::new("cuda:sm_90").expect("a target that there is");
        one(s.pick(&p.few).to(&gpu))
    }),
    ("Tensor::realize", |s, p| done(s.pick(&p.few).realize())),
    ("Tensor::realize_all", |s, p| {
        let list = s.list(3, |s| s.pick(&p.few));
        done(Tensor::realize_all(&list.iter().collect::<Vec<_>>()))
    }),
    ("Tensor::to_vec", |s, p| of_any_type!(s, |T| done(s.pick(&p.few).to_vec::<T>()))),
    ("Tensor::bounded", |s, p| one(s.pick(&p.few).bounded(s.place(), s.size(), s.size()))),
    ("Tensor::item", |s, p| of_any_type!(s, |T| done(s.pick(&p.few).item::<T>()))),
];
