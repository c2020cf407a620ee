//! Operations called with arguments that are often wrong: they end in a tensor whose elements can be computed, or in
//! an error, never in a panic.

use proptest::prelude::*;
use winograph::{ConvOptions, DType, Matrices, PoolOptions, Result, SliceRange, Tensor};

/// Results of more elements are not computed: the tests are to be quick.
const FEW: usize = 4096;

/// Random numbers of a proptest case, one after the other.
struct Source<'a> {
    numbers: &'a [u32],
    place: usize,
}

impl Source<'_> {
    fn next(&mut self) -> usize {
        self.place += 1;
        self.numbers.get(self.place - 1).copied().unwrap_or(self.place as u32 * 7) as usize
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }

    /// Mostly a small size, now and then one that nothing can hold.
    fn size(&mut self) -> usize {
        match self.below(40) {
            0 => usize::MAX,
            1 => 1 << 62,
            2 => 1 << 40,
            n => [0, 1, 1, 2, 2, 3, 3, 4, 5][n % 9],
        }
    }

    /// Mostly a place near 0, now and then one beyond everything.
    fn place(&mut self) -> isize {
        match self.below(40) {
            0 => isize::MIN,
            1 => isize::MAX,
            n => n as isize % 9 - 4,
        }
    }

    fn list<T>(&mut self, most: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| f(self)).collect()
    }

    fn dtype(&mut self) -> DType {
        // Floats often, so that operands often agree.
        *[DType::F32, DType::F32, DType::F32].iter().chain(&DType::ALL).nth(self.below(12)).unwrap_or(&DType::F32)
    }

    fn tensor(&mut self) -> Tensor {
        let shape = self.list(4, |s| [0, 1, 1, 2, 2, 3, 4][s.below(7)]);
        let dtype = self.dtype();
        match self.below(3) {
            0 => Tensor::ones(&shape, dtype).unwrap(),
            _ => Tensor::randint(-3, 4, &shape, DType::I8, 1).unwrap().cast(dtype).unwrap(),
        }
    }

    /// `right`, or now and then something else.
    fn nearly(&mut self, right: usize) -> usize {
        if self.below(25) == 0 { self.size() } else { right }
    }

    /// No list, or one for all axes, or one with a number for each; now and then of another length.
    fn per_axis<T: Copy>(&mut self, rank: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = [0, 1, rank][self.below(3)];
        let n = self.nearly(n).min(5);
        (0..n).map(|_| f(self)).collect()
    }

    /// Ones, or no elements if the shape is too large.
    fn ones(&mut self, shape: &[usize]) -> Tensor {
        let dtype = if self.below(9) == 0 { self.dtype() } else { DType::F32 };
        Tensor::ones(shape, dtype).unwrap_or_else(|_| Tensor::zeros(&[0], DType::F32).unwrap())
    }

    fn convolution(&mut self) -> Result<Tensor> {
        let (rank, groups, c, k) = (1 + self.below(3), 1 + self.below(3), self.below(3), self.below(3));
        let (mut x, mut w) = (vec![self.below(3), groups * c], vec![groups * k, c]);
        for _ in 0..rank {
            x.push(3 + self.below(3));
            w.push(1 + self.below(3));
        }
        let w: Vec<usize> = w.into_iter().map(|s| self.nearly(s)).collect();
        let x: Vec<usize> = x.into_iter().map(|s| self.nearly(s)).collect();
        let options = ConvOptions {
            stride: self.per_axis(rank, |s| 1 + s.below(3)),
            padding: self.per_axis(rank, |s| (s.below(3), s.nearly(1))),
            dilation: self.per_axis(rank, |s| s.nearly(1)),
            groups: self.nearly(groups),
            ..ConvOptions::default()
        };
        let bias = vec![self.nearly(w[0])];
        let (x, w, bias) = (self.ones(&x), self.ones(&w), self.ones(&bias));
        let bias = (self.below(2) == 0).then_some(&bias);
        if self.below(3) > 0 {
            return x.conv(&w, bias, &options);
        }
        let options = ConvOptions { stride: vec![self.nearly(1)], dilation: vec![], ..options };
        let tile: Vec<usize> = (0..self.nearly(rank).min(5)).map(|_| self.nearly(2)).collect();
        let rows = |n: usize, m: usize| vec![vec![1.0; m]; n];
        let matrices = tile.iter().zip(w.shape().iter().skip(2)).map(|(&m, &r)| {
            let (m, r) = (m.min(9), r.min(9));
            let n = (m + r).saturating_sub(1);
            Matrices { at: rows(m, n), g: rows(n, r), bt: rows(n, n) }
        });
        x.conv_winograd(&w, bias, &options, &tile, &matrices.collect::<Vec<_>>())
    }

    fn pooling(&mut self) -> Result<Tensor> {
        let rank = 1 + self.below(3);
        let mut shape = vec![self.below(3), self.below(3)];
        let mut kernel = vec![];
        for _ in 0..rank {
            let size = 1 + self.below(3);
            kernel.push(self.nearly(size));
            shape.push(self.below(3) + 3);
        }
        let shape: Vec<usize> = shape.into_iter().map(|s| self.nearly(s)).collect();
        let x = self.ones(&shape);
        let options = PoolOptions {
            stride: self.per_axis(rank, |s| {
                let stride = 1 + s.below(3);
                s.nearly(stride)
            }),
            padding: self.per_axis(rank, |s| (s.nearly(0), s.nearly(0))),
            dilation: self.per_axis(rank, |s| s.nearly(1)),
            ceil_mode: self.below(2) == 1,
            count_include_pad: self.below(2) == 1,
        };
        if self.below(2) == 0 { x.max_pool(&kernel, &options) } else { x.avg_pool(&kernel, &options) }
    }

    fn operation(&mut self, pool: &[Tensor]) -> Result<Tensor> {
        let x = pool[self.below(pool.len())].clone();
        let y = pool[self.below(pool.len())].clone();
        let z = pool[self.below(pool.len())].clone();
        let flag = self.below(2) == 1;
        match self.below(62) {
            0 => x.add(&y),
            1 => x.sub(&y),
            2 => x.mul(&y),
            3 => x.div(&y),
            4 => x.fmod(&y),
            5 => x.remainder(&y),
            6 => x.pow(&y),
            7 => x.pow(self.place() as i64),
            8 => x.maximum(&y),
            9 => x.minimum(1.5),
            10 => x.lt(&y),
            11 => x.ge(&y),
            12 => x.eq(&y),
            13 => x.logical_xor(&y),
            14 => x.bitwise_and(&y),
            15 => x.where_(&y, &z),
            16 => x.clamp(flag.then_some(f64::NAN), Some(self.place() as f64)),
            17 => x.neg(),
            18 => x.abs(),
            19 => x.exp(),
            20 => x.log(),
            21 => x.rsqrt(),
            22 => x.gelu(),
            23 => x.silu(),
            24 => x.sigmoid(),
            25 => x.prelu(&y),
            26 => x.leaky_relu(0.1),
            27 => x.cast(self.dtype()),
            28 => x.reshape(&self.list(4, Self::place)),
            29 => x.flatten(self.place(), self.place()),
            30 => x.permute(&self.list(4, Self::place)),
            31 => x.transpose(self.place(), self.place()),
            32 => x.expand(&self.list(4, Self::place)),
            33 => x.broadcast_to(&self.list(4, Self::size)),
            34 => x.pad(&(0..x.rank()).map(|_| (self.place(), self.place())).collect::<Vec<_>>(), 1),
            35 => {
                let ends = |s: &mut Self| (s.below(2) == 1).then(|| s.place());
                let ranges = self.list(4, |s| SliceRange { start: ends(s), stop: ends(s), step: s.place() });
                x.slice(&ranges)
            }
            36 => x.flip(&self.list(3, Self::place)),
            37 => Tensor::cat(&[&x, &y], self.place()),
            38 => Tensor::stack(&[&x, &y], self.place()),
            39 => x.squeeze(&self.list(3, Self::place)),
            40 => x.unsqueeze(self.place()),
            41 => x.unfold_dilated(self.place(), self.size(), self.size(), self.size()),
            42 => x.gather(self.place(), &y),
            43 => x.index_select(self.place(), &y),
            44 => x.sum(&self.list(3, Self::place), flag),
            45 => x.mean(&self.list(3, Self::place), flag),
            46 => x.max(&self.list(3, Self::place), flag),
            47 => x.prod(&self.list(3, Self::place), flag),
            48 => x.argmax(if flag { None } else { Some(self.place()) }, flag),
            49 => x.var(&self.list(3, Self::place), flag, true),
            50 => x.softmax(self.place()),
            51 => x.matmul(&y),
            52 => x.linear(&y, flag.then_some(&z)),
            53..=56 => self.convolution(),
            57 | 58 => self.pooling(),
            59 => x.tril(self.place() as i64),
            60 => Tensor::arange(self.place() as i64, self.place() as i64, self.place() as i64),
            _ => Tensor::zeros(&self.list(4, Self::size), self.dtype()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_a_panic(numbers in proptest::collection::vec(any::<u32>(), 0..300)) {
        let mut source = Source { numbers: &numbers, place: 0 };
        let mut pool: Vec<Tensor> = (0..4).map(|_| source.tensor()).collect();
        let mut small = pool.clone();
        for _ in 0..12 {
            match source.operation(&pool) {
                Ok(t) => {
                    if t.numel() <= FEW {
                        small.push(t.clone());
                    }
                    pool.push(t);
                }
                Err(e) => prop_assert!(e.to_string().contains(':'), "{}", e),
            }
        }
    }

    /// Only from small tensors, so that all can be computed.
    #[test]
    fn what_is_accepted_can_be_computed(numbers in proptest::collection::vec(any::<u32>(), 0..120)) {
        let mut source = Source { numbers: &numbers, place: 0 };
        let mut pool: Vec<Tensor> = (0..4).map(|_| source.tensor()).collect();
        for _ in 0..4 {
            if let Ok(t) = source.operation(&pool) && t.numel() <= FEW {
                let values = t.cast(DType::F64).and_then(|t| t.to_vec::<f64>());
                prop_assert!(values.is_ok(), "{:?}: {:?}", t, values);
                prop_assert_eq!(values.map(|v| v.len()).unwrap_or(0), t.numel());
                pool.push(t);
            }
        }
    }
}
