//! Operations that move elements, against index arithmetic.

mod common;
use common::{Array, assert_close, assert_error};
use winograph::{DType, SliceRange, Tensor};

fn sample(shape: &[usize]) -> (Array, Tensor) {
    let a = Array::sample(shape);
    let t = a.to(DType::F32);
    (a, t)
}

#[test]
fn reshape_and_kin() {
    let (a, t) = sample(&[2, 3, 4]);
    let same = |t: &Tensor, shape: &[usize]| {
        assert_close(t, &Array { shape: shape.to_vec(), data: a.data.clone() }, 0.0);
    };
    same(&t.reshape(&[4, 6]).unwrap(), &[4, 6]);
    same(&t.reshape(&[-1, 8]).unwrap(), &[3, 8]);
    same(&t.flatten(0, -1).unwrap(), &[24]);
    same(&t.flatten(1, 2).unwrap(), &[2, 12]);
    same(&t.unsqueeze(-1).unwrap(), &[2, 3, 4, 1]);
    same(&t.unsqueeze(1).unwrap().squeeze(&[]).unwrap(), &[2, 3, 4]);
    same(&t.unsqueeze(1).unwrap().squeeze(&[0]).unwrap(), &[2, 1, 3, 4]);
    assert_eq!(Tensor::scalar(1f32).flatten(0, -1).unwrap().shape(), [1]);
    assert_error(t.reshape(&[5, -1]), &["reshape", "[2, 3, 4]", "[5, -1]", "divides 24"]);
    assert_error(t.reshape(&[-1, -1]), &["reshape", "[2, 3, 4]", "at most one"]);
    assert_error(t.reshape(&[-2, 12]), &["reshape", "[-2, 12]", "at least 0"]);
    assert_error(t.reshape(&[5, 5]), &["reshape", "24 elements"]);
    assert_error(t.flatten(2, 1), &["flatten", "2..=1", "[2, 3, 4]"]);
    assert_error(t.unsqueeze(4), &["unsqueeze", "axis 4", "-4..4"]);
}

#[test]
fn permute_transpose_flip() {
    let (a, t) = sample(&[2, 3, 4]);
    let p = t.permute(&[2, 0, -2]).unwrap();
    assert_close(&p, &Array::new(&[4, 2, 3], |i| a.at(&[i[1], i[2], i[0]])), 0.0);
    let p = t.transpose(0, -1).unwrap();
    assert_close(&p, &Array::new(&[4, 3, 2], |i| a.at(&[i[2], i[1], i[0]])), 0.0);
    let p = t.flip(&[0, -1]).unwrap();
    assert_close(&p, &Array::new(&[2, 3, 4], |i| a.at(&[1 - i[0], i[1], 3 - i[2]])), 0.0);
    assert_error(t.permute(&[0, 1]), &["permute", "[0, 1]", "[2, 3, 4]"]);
    assert_error(t.permute(&[0, 1, 1]), &["permute", "once"]);
    assert_error(t.permute(&[0, 1, 3]), &["permute", "axis 3"]);
    assert_error(t.transpose(0, 3), &["transpose", "axis 3", "-3..3"]);
    assert_error(t.flip(&[1, -2]), &["flip", "at most once"]);
}

#[test]
fn expand() {
    let (a, t) = sample(&[3, 1]);
    let expected = Array::new(&[2, 3, 4], |i| a.at(&[i[1], 0]));
    assert_close(&t.expand(&[2, -1, 4]).unwrap(), &expected, 0.0);
    assert_close(&t.broadcast_to(&[2, 3, 4]).unwrap(), &expected, 0.0);
    assert_error(t.expand(&[-1, 3, 4]), &["expand", "[3, 1]", "-1"]);
    assert_error(t.broadcast_to(&[2, 4]), &["broadcast_to", "[3, 1]", "[2, 4]"]);
    assert_error(t.broadcast_to(&[3]), &["broadcast_to", "[3, 1]", "[3]"]);
    let (_, u) = sample(&[2, 3]);
    assert_error(u.add(sample(&[3, 2]).1), &["add", "[2, 3]", "[3, 2]", "broadcast"]);
}

#[test]
fn pad() {
    let (a, t) = sample(&[2, 3]);
    let p = t.pad(&[(1, 0), (2, 3)], 0.5).unwrap();
    let expected =
        Array::new(&[3, 8], |i| if i[0] >= 1 && (2..5).contains(&i[1]) { a.at(&[i[0] - 1, i[1] - 2]) } else { 0.5 });
    assert_close(&p, &expected, 0.0);
    let p = t.pad(&[(0, -1), (-1, 1)], 9).unwrap();
    assert_close(&p, &Array::new(&[1, 3], |i| if i[1] < 2 { a.at(&[0, i[1] + 1]) } else { 9.0 }), 0.0);
    assert_error(t.pad(&[(0, 0)], 0), &["pad", "[2, 3]", "each axis"]);
    assert_error(t.pad(&[(0, -3), (0, 0)], 0), &["pad", "[2, 3]", "at least 0"]);
    assert_error(t.pad(&[(isize::MAX, isize::MAX), (0, 0)], 0), &["pad"]);
    assert_error(t.cast(DType::U8).unwrap().pad(&[(1, 1), (0, 0)], -1), &["pad", "-1", "u8"]);
}

/// Every start, stop and step of a small axis, against Python's rules written out.
#[test]
fn slices_as_in_python() {
    for n in 0..4isize {
        let x = Tensor::arange(0i64, n as i64, 1).unwrap();
        let ends: Vec<Option<isize>> = (-5..=5).map(Some).chain([None]).collect();
        for &start in &ends {
            for &stop in &ends {
                for step in [-3, -2, -1, 1, 2, 3] {
                    let at = |p: isize| if p < 0 { p + n } else { p };
                    let first = start.map_or(if step > 0 { 0 } else { n - 1 }, at);
                    let last = stop.map_or(if step > 0 { n } else { -1 }, at);
                    let mut expected = vec![];
                    // Walk from a place before everything, clamped as Python clamps.
                    let mut i = if step > 0 { first.max(0) } else { first.min(n - 1) };
                    while (step > 0 && i < last.min(n)) || (step < 0 && i > last.max(-1)) {
                        if (0..n).contains(&i) {
                            expected.push(i as i64);
                        }
                        i += step;
                    }
                    let got = x.slice(&[SliceRange { start, stop, step }]).unwrap().to_vec::<i64>().unwrap();
                    assert_eq!(got, expected, "n {n} [{start:?}:{stop:?}:{step}]");
                }
            }
        }
    }
    let x = Tensor::arange(0i64, 4, 1).unwrap();
    let extreme = SliceRange { start: Some(isize::MAX), stop: Some(isize::MIN), step: isize::MIN };
    assert_eq!(x.slice(&[extreme]).unwrap().to_vec::<i64>().unwrap(), [3]);
    assert_error(x.slice(&[SliceRange::from(..).step(0)]), &["slice", "step of 0"]);
    assert_error(x.slice(&[(..).into(), (..).into()]), &["slice", "2 ranges", "[4]"]);
}

#[test]
fn parts() {
    let (a, t) = sample(&[3, 4]);
    let s = t.slice_axis(1, SliceRange { start: Some(3), stop: Some(0), step: -2 }).unwrap();
    assert_close(&s, &Array::new(&[3, 2], |i| a.at(&[i[0], 3 - 2 * i[1]])), 0.0);
    assert_close(&t.select(0, -1).unwrap(), &Array::new(&[4], |i| a.at(&[2, i[0]])), 0.0);
    assert_close(&t.narrow(1, 1, 2).unwrap(), &Array::new(&[3, 2], |i| a.at(&[i[0], i[1] + 1])), 0.0);
    assert_error(t.select(0, 3), &["select", "index 3", "-3..3"]);
    assert_error(t.narrow(1, 3, 2), &["narrow", "[3, 4]", "at most 4"]);
    assert_error(t.narrow(1, usize::MAX, 2), &["narrow"]);
}

#[test]
fn cat_and_stack() {
    let (a, t) = sample(&[2, 3]);
    let (b, u) = sample(&[2, 1]);
    let empty = Tensor::zeros(&[2, 0], DType::F32).unwrap();
    let c = Tensor::cat(&[&t, &empty, &u, &t], 1).unwrap();
    let expected = Array::new(&[2, 7], |i| match i[1] {
        0..3 => a.at(i),
        3 => b.at(&[i[0], 0]),
        j => a.at(&[i[0], j - 4]),
    });
    assert_close(&c, &expected, 0.0);
    let s = Tensor::stack(&[&t, &t, &t], -1).unwrap();
    assert_close(&s, &Array::new(&[2, 3, 3], |i| a.at(&i[..2])), 0.0);
    let nothing = Tensor::zeros(&[0], DType::F32).unwrap();
    let c = Tensor::cat(&[&nothing, &t, &nothing, &u], -1).unwrap();
    assert_close(&c, &Array::new(&[2, 4], |i| if i[1] < 3 { a.at(i) } else { b.at(&[i[0], 0]) }), 0.0);
    assert_eq!(Tensor::cat(&[&nothing, &nothing], 0).unwrap().shape(), [0]);
    assert_error(Tensor::cat(&[&nothing, &t, &u], 0), &["cat", "[2, 3]", "[2, 1]", "axis 0"]);
    assert_error(Tensor::cat(&[&nothing, &t.cast(DType::F64).unwrap()], 0), &["cat", "f64 and f32"]);
    assert_error(Tensor::cat(&[], 0), &["cat", "at least one"]);
    assert_error(Tensor::cat(&[&t, &u], 0), &["cat", "[2, 3]", "[2, 1]", "axis 0"]);
    assert_error(Tensor::cat(&[&t, &t.cast(DType::F64).unwrap()], 0), &["cat", "f32 and f64"]);
    assert_error(Tensor::stack(&[&t, &u], 0), &["stack", "[2, 3]", "[2, 1]"]);
}

#[test]
fn unfold() {
    let (a, t) = sample(&[2, 9]);
    let u = t.unfold(1, 3, 2).unwrap();
    assert_close(&u, &Array::new(&[2, 4, 3], |i| a.at(&[i[0], 2 * i[1] + i[2]])), 0.0);
    let u = t.unfold_dilated(-1, 3, 1, 4).unwrap();
    assert_close(&u, &Array::new(&[2, 1, 3], |i| a.at(&[i[0], i[1] + 4 * i[2]])), 0.0);
    let u = t.unfold(0, 1, 1).unwrap();
    assert_close(&u, &Array::new(&[2, 9, 1], |i| a.at(&i[..2])), 0.0);
    assert_error(t.unfold(1, 10, 1), &["unfold", "size 10", "[2, 9]", "no larger"]);
    assert_error(t.unfold(1, 3, 0), &["unfold", "step 0"]);
    assert_error(t.unfold(1, 0, 1), &["unfold", "size 0"]);
    assert_error(t.unfold_dilated(1, usize::MAX, 1, usize::MAX), &["unfold"]);
}

#[test]
fn lookups() {
    let (a, t) = sample(&[3, 4]);
    let index = Tensor::from_slice(&[2i64, 0, 2, 1], &[2, 2]).unwrap();
    let g = t.gather(1, &index).unwrap();
    let at = [[2, 0], [2, 1]];
    assert_close(&g, &Array::new(&[2, 2], |i| a.at(&[i[0], at[i[0]][i[1]]])), 0.0);
    let s = t.index_select(0, &Tensor::from_slice(&[2i32, 2, 0], &[3]).unwrap()).unwrap();
    assert_close(&s, &Array::new(&[3, 4], |i| a.at(&[[2, 2, 0][i[0]], i[1]])), 0.0);
    assert_error(t.gather(1, &t), &["gather", "f32", "i32 or i64"]);
    assert_error(t.gather(0, &Tensor::zeros(&[1, 5], DType::I64).unwrap()), &["gather", "[3, 4]", "[1, 5]"]);
    assert_error(t.index_select(0, &index), &["index_select", "[2, 2]"]);
    let empty = Tensor::zeros(&[0, 4], DType::F32).unwrap();
    assert_error(empty.index_select(0, &Tensor::zeros(&[1], DType::I64).unwrap()), &["index_select", "[0, 4]"]);
}
