//! Convolutions between others whose channels lie last: what their stages store lies along channels too.

use winograph::{ArgSpec, ConvOptions, DType, Options, Result, Tensor, TensorBuffer, plan};
use winograph_compiler::Target;
use winograph_ir::indexed::Role;
use winograph_ir::linear::{Code, Memory, Stmt};

fn conv(x: &Tensor, c: usize, k: usize, side: usize) -> Result<Tensor> {
    let weights = TensorBuffer::new(DType::F32, &[k, c, side, side])?.into_tensor();
    x.conv2d(&weights, None, &ConvOptions { padding: vec![(side / 2, side / 2); 2], ..ConvOptions::default() })
}

/// Stores to scratch memory: those that are no full vectors, and all.
fn stores(code: &Code) -> (usize, usize) {
    let mut out = (0, 0);
    code.for_each_stmt(&mut |s| match s {
        Stmt::Store { access, .. } if matches!(access.mem, Memory::Local(_)) => {
            let lanes = access.lane.and_then(|r| code.ints.const_size(r)).unwrap_or(1);
            out.0 += usize::from(lanes < 16);
            out.1 += 1;
        }
        _ => {}
    });
    out
}

/// 3x3 convolutions between those of 1x1, as residual networks have them: the 1x1 ones would have channels last.
#[test]
fn stages_between_convolutions_of_one_pixel_are_stored_by_full_vectors() {
    for (wide, narrow, side) in [(1024, 256, 14), (2048, 512, 7)] {
        let build = |args: &[Tensor]| {
            let mut x = args[0].clone();
            for _ in 0..3 {
                let y = conv(&x, wide, narrow, 1)?.relu()?;
                let y = conv(&y, narrow, narrow, 3)?.relu()?;
                x = conv(&y, narrow, wide, 1)?.add(&x)?.relu()?;
            }
            Ok(vec![x.mean(&[2, 3], false)?])
        };
        let target = Target { threads: 2, l2: 2 << 20, ..Target::cpu(64) };
        let spec = ArgSpec::new(DType::F32, &[1, wide, side, side]);
        let (program, _) = plan(&[spec], &target, &Options::default(), false, build).unwrap();
        let fused = program.run.iter().map(|s| &program.kernels[s.kernel]).filter(|k| k.role == Role::Fused);
        let found: Vec<(usize, usize)> = fused.map(stores).collect();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|&(part, all)| part == 0 && all > 0), "{narrow} channels at {side}: {found:?}");
    }
}
