//! Memory planning: offsets in arenas for intermediates, by lifetime.

use crate::program::{ALIGNMENT, Place, ProgramBuffer, Step};
use std::cmp::Reverse;

/// A buffer's life: from the first step that uses it to the last.
#[derive(Clone, Copy, Debug)]
struct Life {
    buffer: usize,
    bytes: usize,
    first: usize,
    last: usize,
}

/// Gives every buffer that `wanted` selects an offset in one arena such that buffers in use at the same step do not
/// overlap; gives the arena's size in bytes. Buffers are placed one by one, each at the lowest offset that is free
/// during its life: larger ones first or, where that takes more than what lives at once, in some other orders, of which
/// the best counts.
pub fn plan(
    buffers: &mut [ProgramBuffer],
    steps: &[Step],
    wanted: &dyn Fn(usize) -> bool,
    place: &dyn Fn(usize) -> Place,
) -> usize {
    let mut lives = lives(buffers, steps, wanted);
    let least = peak(&lives, steps.len());
    let area = |l: &Life| l.bytes as u128 * (l.last - l.first + 1) as u128;
    let mut best: Option<(usize, Vec<(usize, usize)>)> = None;
    for order in 0..4 {
        match order {
            0 => lives.sort_by_key(|l| (Reverse(l.bytes), l.first, l.buffer)),
            1 => lives.sort_by_key(|l| (Reverse(area(l)), l.first, l.buffer)),
            2 => lives.sort_by_key(|l| (l.first, Reverse(l.bytes), l.buffer)),
            _ => lives.sort_by_key(|l| (Reverse(l.last - l.first), Reverse(l.bytes), l.first, l.buffer)),
        }
        let found = offsets(&lives);
        if best.as_ref().is_none_or(|b| found.0 < b.0) {
            best = Some(found);
        }
        if best.as_ref().is_some_and(|b| b.0 <= least) {
            break;
        }
    }
    let (total, offsets) = best.unwrap_or_default();
    for (buffer, offset) in offsets {
        buffers[buffer].place = place(offset);
    }
    total
}

fn lives(buffers: &[ProgramBuffer], steps: &[Step], wanted: &dyn Fn(usize) -> bool) -> Vec<Life> {
    let mut of: Vec<Option<Life>> = vec![None; buffers.len()];
    for (n, step) in steps.iter().enumerate() {
        for &i in &step.args {
            let Some(b) = buffers.get(i) else { continue };
            let bytes = (b.len * b.dtype.size()).div_ceil(ALIGNMENT).max(1) * ALIGNMENT;
            of[i].get_or_insert(Life { buffer: i, bytes, first: n, last: n }).last = n;
        }
    }
    of.into_iter().flatten().filter(|l| wanted(l.buffer)).collect()
}

/// Most bytes that live at one step: no arena can be smaller.
fn peak(lives: &[Life], steps: usize) -> usize {
    let mut change = vec![0i128; steps + 1];
    for l in lives {
        change[l.first] += l.bytes as i128;
        change[l.last + 1] -= l.bytes as i128;
    }
    let running = change.iter().scan(0i128, |sum, &c| {
        *sum += c;
        Some(*sum)
    });
    running.max().unwrap_or(0).max(0) as usize
}

/// The size of an arena and the buffers' offsets in it, placed in this order.
fn offsets(lives: &[Life]) -> (usize, Vec<(usize, usize)>) {
    // Those placed so far as begin and end in the arena, in this order, and their lives. Long lives are common (what is read at
    // the end lives from where it is written), so that nothing is kept for each step of one.
    let mut placed: Vec<(usize, usize, usize, usize)> = Vec::with_capacity(lives.len());
    let mut total = 0;
    let mut out = Vec::with_capacity(lives.len());
    for l in lives {
        let mut offset = 0;
        for &(begin, end, first, last) in &placed {
            if first > l.last || last < l.first {
                continue;
            }
            if offset + l.bytes <= begin {
                break;
            }
            offset = offset.max(end);
        }
        let place = (offset, offset + l.bytes, l.first, l.last);
        placed.insert(placed.partition_point(|p| *p <= place), place);
        total = total.max(offset + l.bytes);
        out.push((l.buffer, offset));
    }
    (total, out)
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
        Step { kernel: 0, args: args.to_vec(), host: vec![] }
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

    #[test]
    fn many_buffers_that_live_until_the_end_are_placed_in_the_square_of_their_number() {
        // Each is written at a step of its own, from the one before, and the last step reads all.
        let count = 8_000;
        let mut b = buffers(&vec![16; count]);
        let mut steps: Vec<Step> = (1..count).map(|i| step(&[i - 1, i])).collect();
        steps.push(step(&(0..count).collect::<Vec<_>>()));
        let start = std::time::Instant::now();
        let total = plan(&mut b, &steps, &|_| true, &Place::Arena);
        assert_eq!(total, count * 64);
        // By steps of lives it would be the cube, and hours.
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
