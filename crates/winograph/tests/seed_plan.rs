//! The write-up's schedule, replayed as a stored plan: names, vectors and sectors under each rule for layouts and grids,
//! for both forms of Winograd convolution; results on the virtual GPU.

mod common;

use std::sync::Arc;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{ArgSpec, ConvOptions, DType, FunctionOptions, Tensor, compile_with};
use winograph_compiler::explain::NestReport;
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::{Algorithm, Options, Program, Target};
use winograph_ir::indexed::{Origin, Role};
use winograph_ir::interp::gpu::{AccessKind, GpuModel, Space, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::Code;
use winograph_ir::text::print_linear;

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Tensor,
    Graph,
}

const RULES: [(LayoutRule, GridRule); 4] = [
    (LayoutRule::Creation, GridRule::RangeId),
    (LayoutRule::Creation, GridRule::Auto),
    (LayoutRule::Auto, GridRule::RangeId),
    (LayoutRule::Auto, GridRule::Auto),
];

fn options(form: Form, layout: LayoutRule, grid: GridRule, plans: &str) -> Options {
    let algorithm = if form == Form::Graph { Algorithm::Winograd } else { Algorithm::Direct };
    let plans = StoredPlans::known(plans).unwrap();
    Options { algorithm, tile: Some(vec![4.into()]), layout, grid, plans, ..Options::default() }
}

fn write(form: Form, x: &Tensor, w: &Tensor) -> winograph::Result<Vec<Tensor>> {
    let pad = ConvOptions::padding(1);
    Ok(vec![match form {
        Form::Graph => x.conv2d(w, None, &pad)?,
        Form::Tensor => x.conv_tensor_level(w, None, &pad, Some(&[4]), None)?.tensor,
    }])
}

/// The reference convolution at a size, planned for a target: the program, and what became of the plan of its
/// multiplication.
fn planned(form: Form, size: usize, target: &str, options: &Options) -> (Program, NestReport) {
    let target = Target::by_name(target).unwrap();
    let w = Tensor::randn(&[16, 16, 3, 3], DType::F32, 2).unwrap();
    let args = [ArgSpec::new(DType::F32, &[1, 16, size, size])];
    let planned = winograph::plan(&args, &target, options, false, |a| write(form, &a[0], &w));
    let (program, explanation) = planned.unwrap();
    let mut nests = explanation.kernels.iter().flat_map(|k| &k.nests).filter(|n| n.stored.is_some());
    let multiply = nests.next().cloned().unwrap();
    assert!(nests.next().is_none(), "the plan names one kernel");
    (program, multiply)
}

/// Lanes of the store of a kernel, its requests and sectors.
fn store_of(program: &Program, name: &str) -> (u32, u64, u64) {
    let code = program.kernels.iter().find(|k| k.name == name).unwrap();
    let counts = sectors::count(code, &[], &GpuModel::default()).unwrap();
    let mut out = (0, 0, 0);
    for (site, c) in sites(code).iter().zip(&counts) {
        if site.kind == AccessKind::Store && site.space == Space::Global {
            out = (site.lanes, out.1 + c.requests, out.2 + c.sectors);
        }
    }
    out
}

#[test]
fn the_reference_case_has_the_write_ups_names_and_stores() {
    // Fragments of 8 x 8: positions, tile rows, two register tiles.
    let fragments = 36 * 16 * 2 * 2;
    for (layout, grid) in RULES {
        for form in [Form::Tensor, Form::Graph] {
            let (program, multiply) = planned(form, 64, "metal", &options(form, layout, grid, "seed"));
            let what = format!("{form:?} {layout:?} {grid:?}");
            assert_eq!(multiply.stored, Some(Ok(())), "{what}");
            // The tile rows were made first by the graph-level rewrite, and only the old rule asks for that.
            let by_ordinal = form == Form::Graph && grid == GridRule::RangeId;
            let name = if by_ordinal { "r_16_6_6_32_2_2_2_2" } else { "r_6_6_16_32_2_2_2_2" };
            assert_eq!(multiply.name, name, "{what}");
            let (_, requests, sectors) = store_of(&program, name);
            // Its layout is [tile row][tile column][channel][position], which only the old rule keeps.
            if form == Form::Graph && layout == LayoutRule::Creation {
                assert_eq!((requests, sectors), (2 * fragments, 64 * fragments), "{what}: scattered");
            } else {
                assert_eq!((requests, sectors), (fragments, 8 * fragments), "{what}: two floats a lane");
            }
        }
    }
}

#[test]
fn other_sizes_have_their_names_or_another_plan_and_the_reason() {
    let auto = |form| options(form, LayoutRule::Auto, GridRule::Auto, "seed");
    for form in [Form::Tensor, Form::Graph] {
        for (size, name) in [(32, "r_6_6_8_32_2_2_2"), (96, "r_6_6_24_32_2_2_3_2")] {
            let (_, multiply) = planned(form, size, "metal", &auto(form));
            assert_eq!((multiply.name.as_str(), &multiply.stored), (name, &Some(Ok(()))), "{form:?} {size}");
        }
        for (size, tiles) in [(24, 6), (40, 10), (48, 12)] {
            let (_, multiply) = planned(form, size, "metal", &auto(form));
            let Some(Err(why)) = &multiply.stored else { panic!("{form:?} {size}: {multiply:?}") };
            assert!(why.contains(&format!("a4 of {tiles} is no multiple of the 8 of unit 8x8x8")), "{why}");
            assert!(!multiply.plan.to_string().contains("matrix"), "{}", multiply.plan);
        }
        let (_, multiply) = planned(form, 64, "cuda:sm_90", &auto(form));
        let Some(Err(why)) = multiply.stored else { panic!("a unit for f32 on {}", multiply.name) };
        assert!(why.contains("no matrix unit for f32"), "{why}");
    }
}

/// A kernel without names of buffers and without its role, which say how the program was written.
fn anonymous(code: &Code) -> String {
    let mut code = code.clone();
    code.role = Role::Other;
    for (n, arg) in code.args.iter_mut().enumerate() {
        arg.name = format!("b{n}");
        arg.origin = Origin::Internal;
    }
    print_linear(&code)
}

#[test]
fn both_forms_are_the_same_program_under_auto() {
    for (target, plans) in [("metal", "seed"), ("cuda:sm_90", "seed-tf32"), ("cuda:sm_90", "seed-cores")] {
        for size in [24, 64] {
            let program = |form| planned(form, size, target, &options(form, LayoutRule::Auto, GridRule::Auto, plans)).0;
            let (tensor, graph) = (program(Form::Tensor), program(Form::Graph));
            let kernels = |p: &Program| p.run.iter().map(|s| anonymous(&p.kernels[s.kernel])).collect::<Vec<_>>();
            assert_eq!(kernels(&tensor), kernels(&graph), "{target} {plans} {size}");
        }
    }
}

#[test]
fn replayed_plans_compute_the_convolution() -> winograph::Result<()> {
    let w = Tensor::randn(&[16, 16, 3, 3], DType::F32, 2)?;
    let x = Tensor::randn(&[1, 16, 32, 32], DType::F32, 1)?;
    let expected = x.conv2d(&w, None, &ConvOptions::padding(1))?.to_vec::<f32>()?;
    // Rounding factors to 11 bits costs more than the order of sums does.
    let all = [("metal", "seed", 2e-5), ("cuda:sm_90", "seed-tf32", 2e-2), ("cuda:sm_90", "seed-cores", 2e-5)];
    for (target, plans, bound) in all {
        for (layout, grid) in [RULES[0], RULES[3]] {
            for form in [Form::Tensor, Form::Graph] {
                let device = VirtualGpu::new(target).unwrap();
                let compiler = Some(options(form, layout, grid, plans));
                let options =
                    FunctionOptions { device: Some(Arc::new(device)), compiler, ..FunctionOptions::default() };
                let f =
                    compile_with(&[ArgSpec::new(DType::F32, &[1, 16, 32, 32])], &options, |a| write(form, &a[0], &w))?;
                let got = f.call(&[&x])?[0].to_vec::<f32>()?;
                let square = |v: &mut dyn Iterator<Item = f64>| v.map(|e| e * e).sum::<f64>().sqrt();
                let difference = square(&mut got.iter().zip(&expected).map(|(a, b)| (a - b) as f64));
                let error = difference / square(&mut expected.iter().map(|&x| x as f64));
                assert!(error < bound, "{target} {plans} {layout:?} {grid:?} {form:?}: {error:e}");
            }
        }
    }
    Ok(())
}
