//! Random arguments, often wrong.

use winograph::{Algorithm, AxisTile, Tolerance};
use winograph::{ConvOptions, DType, Matrices, PoolOptions, Result, SliceRange, Tensor, WindowRule};
use winograph_compiler::winograd::rational::Rational;

/// Results of more elements are not computed: the tests are to be quick.
pub const FEW: usize = 4096;

/// Random numbers of a case, one after the other.
pub struct Source<'a> {
    numbers: &'a [u32],
    place: usize,
}

impl<'a> Source<'a> {
    pub fn new(numbers: &'a [u32]) -> Source<'a> {
        Source { numbers, place: 0 }
    }

    pub fn next(&mut self) -> usize {
        self.place += 1;
        // Beyond the list its numbers are mixed, so that no case begins to repeat itself.
        let mixed = (self.place as u32).wrapping_mul(2654435761) ^ self.numbers.first().copied().unwrap_or(7);
        self.numbers.get(self.place - 1).copied().unwrap_or(mixed >> 8) as usize
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Mostly a small size, now and then one that nothing can hold.
    pub fn size(&mut self) -> usize {
        match self.below(40) {
            0 => usize::MAX,
            1 => 1 << 62,
            2 => 1 << 40,
            n => [0, 1, 1, 2, 2, 3, 3, 4, 5][n % 9],
        }
    }

    /// Mostly a place near 0, now and then one beyond everything.
    pub fn place(&mut self) -> isize {
        match self.below(40) {
            0 => isize::MIN,
            1 => isize::MAX,
            n => n as isize % 9 - 4,
        }
    }

    pub fn number(&mut self) -> f64 {
        [0.0, -0.0, 1.0, -1.5, 3.0, 1e300, -1e-300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, 255.0]
            [self.below(12)]
    }

    pub fn list<T>(&mut self, most: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| f(self)).collect()
    }

    pub fn dtype(&mut self) -> DType {
        // Floats often, so that operands often agree.
        *[DType::F32, DType::F32, DType::F32].iter().chain(&DType::ALL).nth(self.below(12)).unwrap_or(&DType::F32)
    }

    pub fn tensor(&mut self) -> Tensor {
        let shape = self.list(4, |s| [0, 1, 1, 2, 2, 3, 4][s.below(7)]);
        let dtype = self.dtype();
        match self.below(3) {
            0 => Tensor::ones(&shape, dtype).unwrap(),
            _ => Tensor::randint(-3, 4, &shape, DType::I8, 1).unwrap().cast(dtype).unwrap(),
        }
    }

    pub fn pick(&mut self, pool: &[Tensor]) -> Tensor {
        pool[self.below(pool.len())].clone()
    }

    pub fn text(&mut self) -> String {
        let words = ["", "cpu", "cuda:0", "virtual:cuda:sm_90", "metal", "/", "\0", "é", "-1", "18446744073709551616"];
        self.list(3, |s| words[s.below(words.len())]).concat()
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        self.list(most, |s| s.next() as u8)
    }

    pub fn range(&mut self) -> SliceRange {
        let ends = |s: &mut Self| s.flag().then(|| s.place());
        SliceRange { start: ends(self), stop: ends(self), step: self.place() }
    }

    /// `right`, or now and then something else.
    pub fn nearly(&mut self, right: usize) -> usize {
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

    pub fn axis_tile(&mut self) -> AxisTile {
        let sizes = self.list(AxisTile::MOST + 1, Self::size);
        AxisTile::of(&sizes).unwrap_or_else(|| self.size().into())
    }

    fn rule(&mut self) -> WindowRule {
        if self.below(3) > 0 {
            return WindowRule::default();
        }
        let algorithms = [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd];
        let tolerance = self.number();
        WindowRule {
            algorithm: self.flag().then(|| algorithms[self.below(3)]),
            tile: self.list(4, Self::axis_tile),
            tolerance: Tolerance::new(tolerance).ok(),
            exact_nonfinite: self.below(9) == 0,
        }
    }

    /// The arguments of a convolution, mostly such as fit, of one to three spatial axes or of as many as `rank` says.
    pub fn convolution(&mut self, rank: Option<usize>) -> Convolution {
        let any = 1 + self.below(3);
        let rank = if self.below(9) == 0 { any } else { rank.unwrap_or(any) };
        let (groups, c, k) = (1 + self.below(3), self.below(3), self.below(3));
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
            rule: self.rule(),
        };
        let bias = vec![self.nearly(w[0])];
        let (x, w, bias) = (self.ones(&x), self.ones(&w), self.ones(&bias));
        let bias = self.flag().then_some(bias);
        Convolution { x, w, bias, options, rank }
    }

    /// A convolution for the tensor-level form, whose windows do not jump.
    pub fn plain_convolution(&mut self) -> Convolution {
        let c = self.convolution(None);
        let options = ConvOptions { stride: vec![self.nearly(1)], dilation: vec![], ..c.options };
        Convolution { options, ..c }
    }

    /// A tile and matrices for a convolution, mostly of the sizes that it asks for.
    pub fn tile(&mut self, c: &Convolution) -> (Vec<usize>, Vec<Matrices>) {
        let tile: Vec<usize> = (0..self.nearly(c.rank).min(5)).map(|_| self.nearly(2)).collect();
        let rows = |n: usize, m: usize| vec![vec![1.0; m]; n];
        let matrices = tile.iter().zip(c.w.shape().iter().skip(2)).map(|(&m, &r)| {
            let (m, r) = (m.min(9), r.min(9));
            let n = (m + r).saturating_sub(1);
            Matrices { at: rows(m, n), g: rows(n, r), bt: rows(n, n) }
        });
        let matrices = matrices.collect();
        (tile, matrices)
    }

    pub fn points(&mut self) -> Vec<Rational> {
        self.list(6, |s| Rational::from([0i64, 1, -1, 2, -2, i64::MAX][s.below(6)]))
    }

    /// A tensor, a kernel and options of a pooling.
    pub fn pooling(&mut self) -> (Tensor, Vec<usize>, PoolOptions) {
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
            ceil_mode: self.flag(),
            count_include_pad: self.flag(),
        };
        (x, kernel, options)
    }
}

/// What a convolution is called with.
pub struct Convolution {
    pub x: Tensor,
    pub w: Tensor,
    pub bias: Option<Tensor>,
    pub options: ConvOptions,
    rank: usize,
}

impl Convolution {
    pub fn call(
        &self,
        f: impl FnOnce(&Tensor, &Tensor, Option<&Tensor>, &ConvOptions) -> Result<Tensor>,
    ) -> Result<Tensor> {
        f(&self.x, &self.w, self.bias.as_ref(), &self.options)
    }
}
