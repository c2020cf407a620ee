//! Graphs whose sizes are bounded parameters share a plan: after the second choice of sizes nothing is planned or
//! compiled, and results are those of graphs of their own.

use std::sync::Mutex;
use winograph::{ConvOptions, DType, PoolOptions, Result, Tensor, programs_planned};

/// The counter is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

type Graph = fn(&Tensor, f32) -> Result<Tensor>;

/// Whole numbers, so that any order of sums gives the same bits.
fn data(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 13) as f32 - 6.0).collect();
    Tensor::from_slice(&values, shape).unwrap()
}

/// Computes the graph of tensors of several sizes on an axis.
fn shared(name: &str, shape: &[usize], axis: usize, sizes: &[usize], graph: Graph) {
    for (i, &n) in sizes.iter().enumerate() {
        let mut shape = shape.to_vec();
        shape[axis] = n;
        let (x, k) = (data(&shape), 1.0 + i as f32);
        let want = graph(&x, k).unwrap().to_vec::<f32>().unwrap();
        let before = programs_planned();
        let got = graph(&x.bounded(axis as isize, 1, 64).unwrap(), k).unwrap();
        assert_eq!(got.to_vec::<f32>().unwrap(), want, "{name} of {shape:?}");
        let planned = programs_planned() - before;
        assert!(planned == 0 || i < 2, "{name}: {planned} programs were planned for {shape:?}");
    }
}

const GRAPHS: [(&str, &[usize], usize, Graph); 9] = [
    ("elementwise", &[0, 5], 0, |x, k| x.mul(k)?.add(1.0)?.maximum(x)),
    ("a sum of all", &[3, 0], 1, |x, k| x.mul(k)?.sum(&[], false)),
    ("rows", &[0, 7], 0, |x, k| x.sub(x.max(&[1], true)?)?.mul(k)?.sum(&[1], true)),
    ("a product", &[0, 6], 0, |x, _| x.matmul(&data(&[6, 4]))),
    ("a product by itself", &[0, 6], 0, |x, _| x.matmul(&x.transpose(0, 1)?)),
    ("movements", &[0, 4], 0, |x, k| {
        let flat = x.flip(&[0])?.pad(&[(1, 2), (0, 0)], 0)?.transpose(0, 1)?.flatten(0, -1)?.mul(k)?;
        Tensor::cat(&[&flat, &flat], 0)
    }),
    ("a batch of convolutions", &[0, 3, 9, 9], 0, |x, _| {
        x.conv2d(&data(&[4, 3, 3, 3]), None, &ConvOptions::padding(1))?.relu()
    }),
    ("a pooled picture of any width", &[1, 2, 8, 0], 3, |x, _| {
        x.max_pool(&[2, 2], &PoolOptions { stride: vec![1], ..PoolOptions::default() })
    }),
    ("a window", &[0, 3], 0, |x, k| x.slice(&[(1..).into()])?.mul(k)?.add(x.slice(&[(..-1).into()])?)),
];

#[test]
fn graphs_that_differ_in_bounded_sizes_share_a_plan() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    for (name, shape, axis, graph) in GRAPHS {
        shared(name, shape, axis, &[5, 9, 4, 17, 64, 3], graph);
    }
}

#[test]
fn sizes_beyond_their_bounds_and_graphs_that_are_not_alike_get_their_own() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let sum = |n: usize, most: usize| {
        let x = data(&[n]).bounded(0, 2, most)?;
        x.mul(3.0)?.sum(&[], false)?.item::<f32>()
    };
    let want = |n: usize| data(&[n]).mul(3.0).unwrap().sum(&[], false).unwrap().item::<f32>().unwrap();
    for n in [5, 9, 20, 30] {
        assert_eq!(sum(n, 30).unwrap(), want(n));
    }
    assert_eq!(sum(31, 40).unwrap(), want(31), "other bounds");
    assert!(
        sum(31, 30).unwrap_err().to_string().contains("bounded: the bounds 2..=30 of axis 0 does not fit shape [31]")
    );
    assert!(sum(1, 30).is_err());
    // Two tensors, equal in size at first and then not.
    for (n, m) in [(3, 3), (4, 4), (5, 5), (5, 6), (7, 3), (9, 4)] {
        let (x, y) = (data(&[n]).bounded(0, 1, 64).unwrap(), data(&[m, 2]).bounded(0, 1, 64).unwrap());
        let both = x.sum(&[], false).unwrap().add(y.sum(&[], false).unwrap()).unwrap();
        let plain = |t: Tensor| t.sum(&[], false).unwrap().item::<f32>().unwrap();
        assert_eq!(both.item::<f32>().unwrap(), plain(data(&[n])) + plain(data(&[m, 2])), "{n} {m}");
    }
    // A number that no polynomial of the size gives: half of it, rounded.
    for n in [5usize, 8, 13, 4, 21, 9] {
        let x = data(&[n]).bounded(0, 1, 64).unwrap();
        let half = x.narrow(0, 0, n / 2).unwrap();
        assert_eq!(half.to_vec::<f32>().unwrap(), data(&[n]).to_vec::<f32>().unwrap()[..n / 2]);
    }
}

#[test]
fn what_depends_on_a_bounded_tensor_has_its_elements() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let x = Tensor::arange(0i64, 6, 1).unwrap().reshape(&[2, 3]).unwrap();
    let y = x.bounded(0, 1, 9).unwrap().bounded(-1, 3, 4).unwrap();
    assert!(y.is_realized());
    assert_eq!((y.shape(), y.dtype()), (&[2, 3][..], DType::I64));
    assert_eq!(y.to_vec::<i64>().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert!(x.bounded(2, 1, 9).is_err());
    assert!(x.bounded(0, 1, usize::MAX).is_err(), "more elements than can be counted");
}
