//! Memory planning: offsets in arenas for intermediates, by lifetime.

use crate::program::{ALIGNMENT, Place, ProgramBuffer, Step};

/// Gives every buffer that `wanted` selects an offset in one arena such that buffers in use at the same step do not
/// overlap; gives the arena's size in bytes. Larger buffers are placed first, each at the lowest offset that is free
/// during its life.
pub fn plan(
    buffers: &mut [ProgramBuffer],
    steps: &[Step],
    wanted: &dyn Fn(usize) -> bool,
    place: &dyn Fn(usize) -> Place,
) -> usize {
    let mut lives: Vec<(usize, usize, usize, usize)> = Vec::new();
    for (i, b) in buffers.iter().enumerate() {
        if !wanted(i) {
            continue;
        }
        let uses: Vec<usize> = steps.iter().enumerate().filter(|(_, s)| s.args.contains(&i)).map(|(n, _)| n).collect();
        let (Some(&first), Some(&last)) = (uses.first(), uses.last()) else { continue };
        let bytes = (b.len * b.dtype.size()).div_ceil(ALIGNMENT).max(1) * ALIGNMENT;
        lives.push((bytes, first, last, i));
    }
    lives.sort_by_key(|l| (std::cmp::Reverse(l.0), l.1, l.3));
    let mut placed: Vec<(usize, usize, usize, usize)> = Vec::new();
    let mut total = 0;
    for (bytes, first, last, i) in lives {
        let mut busy: Vec<(usize, usize)> =
            placed.iter().filter(|p| p.2 <= last && first <= p.3).map(|p| (p.0, p.0 + p.1)).collect();
        busy.sort_unstable();
        let mut offset = 0;
        for (begin, end) in busy {
            if offset + bytes <= begin {
                break;
            }
            offset = offset.max(end);
        }
        placed.push((offset, bytes, first, last));
        total = total.max(offset + bytes);
        buffers[i].place = place(offset);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_ir::DType;

    fn buffers(lens: &[usize]) -> Vec<ProgramBuffer> {
        lens.iter()
            .map(|&len| ProgramBuffer { name: String::new(), dtype: DType::F32, len, place: Place::Argument(0) })
            .collect()
    }

    fn step(args: &[usize]) -> Step {
        Step { kernel: 0, args: args.to_vec() }
    }

    #[test]
    fn a_chain_needs_two_buffers_at_a_time() {
        let mut b = buffers(&[16, 16, 16, 16]);
        let steps = [step(&[0]), step(&[0, 1]), step(&[1, 2]), step(&[2, 3])];
        let total = plan(&mut b, &steps, &|_| true, &Place::Arena);
        assert_eq!(total, 2 * 64);
    }

    #[test]
    fn buffers_in_use_together_do_not_overlap() {
        let mut b = buffers(&[100, 7, 33, 64]);
        let steps = [step(&[0, 1]), step(&[1, 2, 3]), step(&[0, 3])];
        plan(&mut b, &steps, &|_| true, &Place::Arena);
        let span = |i: usize| match b[i].place {
            Place::Arena(o) => (o, o + b[i].len * 4),
            _ => unreachable!(),
        };
        for (x, y) in [(0, 1), (1, 2), (1, 3), (2, 3), (0, 3), (0, 2)] {
            let (a, c) = (span(x), span(y));
            assert!(a.1 <= c.0 || c.1 <= a.0, "{x} and {y} overlap");
        }
    }
}
