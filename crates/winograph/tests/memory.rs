//! How much memory programs need for intermediates: not much more than what lives at once.

#[path = "../../cli/src/graphs/generator.rs"]
mod generator;

use generator::{Random, arguments, graph};
use winograph::{ArgSpec, ConvOptions, DType, Options, Result, Tensor, cpu, plan};
use winograph_compiler::{Place, Program};

/// Most bytes of intermediates that are in use at one step.
fn live_peak(p: &Program) -> usize {
    let span = |i: usize| {
        let mut uses = p.run.iter().enumerate().filter(|(_, s)| s.args.contains(&i)).map(|(n, _)| n);
        let first = uses.next()?;
        Some((first, uses.next_back().unwrap_or(first)))
    };
    let lives: Vec<(usize, usize, usize)> = p
        .buffers
        .iter()
        .enumerate()
        .filter(|(_, b)| matches!(b.place, Place::Arena(_)))
        .filter_map(|(i, b)| span(i).map(|(first, last)| (b.len * b.dtype.size(), first, last)))
        .collect();
    let at = |n: usize| lives.iter().filter(|l| l.1 <= n && n <= l.2).map(|l| l.0.next_multiple_of(64).max(64)).sum();
    (0..p.run.len()).map(at).max().unwrap_or(0)
}

#[track_caller]
fn tight(args: &[ArgSpec], what: &str, f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> (usize, usize) {
    let (program, _) = plan(args, &cpu::host_target(), &Options::default(), false, f).unwrap();
    let peak = live_peak(&program);
    assert!(program.arena_bytes as f64 <= 1.1 * peak as f64, "{what}: {} bytes for {peak}", program.arena_bytes);
    (program.arena_bytes, program.run.len())
}

#[test]
fn random_graphs_need_little_more_than_what_lives_at_once() {
    let (mut with_arena, mut seed) = (0, 0);
    while with_arena < 50 {
        seed += 1;
        // Several together, so that there is something to place.
        let parts: Vec<(Vec<ArgSpec>, u64)> =
            (0..6).map(|i| (arguments(&mut Random::new(seed * 100 + i)), seed * 100 + i)).collect();
        let args: Vec<ArgSpec> = parts.iter().flat_map(|p| p.0.clone()).collect();
        let (bytes, _) = tight(&args, &format!("seed {seed}"), |args| {
            let mut at = 0;
            let mut out = Vec::new();
            for (own, seed) in &parts {
                out.extend(
                    graph(&mut Random::new(seed + (1 << 40)), &args[at..at + own.len()]).into_iter().map(|i| i.t),
                );
                at += own.len();
            }
            Ok(out)
        });
        with_arena += usize::from(bytes > 0);
        assert!(seed < 500, "{with_arena} graphs with intermediates");
    }
}

#[test]
fn residual_networks_need_little_more_than_what_lives_at_once() {
    let weight = |k: usize, c: usize| Tensor::full(&[k, c, 3, 3], 0.01f32).and_then(|w| w.contiguous());
    for blocks in [2, 5, 12] {
        let (_, kernels) = tight(&[ArgSpec::new(DType::F32, &[1, 8, 32, 32])], &format!("{blocks} blocks"), |args| {
            let (mut x, mut c) = (args[0].clone(), 8);
            for b in 0..blocks {
                // Every third block halves the picture and doubles the channels.
                let (stride, k) = if b % 3 == 2 { (2, 2 * c) } else { (1, c) };
                let first = ConvOptions { stride: vec![stride], ..ConvOptions::padding(1) };
                let y = x.conv2d(&weight(k, c)?, None, &first)?.relu()?;
                let y = y.conv2d(&weight(k, k)?, None, &ConvOptions::padding(1))?;
                let short = match stride {
                    1 => x.clone(),
                    _ => x.conv2d(
                        &Tensor::full(&[k, c, 1, 1], 0.1f32)?,
                        None,
                        &ConvOptions { stride: vec![2], ..ConvOptions::default() },
                    )?,
                };
                x = y.add(&short)?.relu()?;
                c = k;
            }
            Ok(vec![x.mean(&[2, 3], false)?])
        });
        assert!(kernels > 2 * blocks, "{kernels} kernels");
    }
}
