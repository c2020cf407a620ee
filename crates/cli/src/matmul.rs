//! `winograph bench matmul`: a product of matrices, run, checked and timed. The second factor is constant.

use crate::args::{Algo, BenchMatmul};
use crate::certificate::Certificate;
use crate::error::{Error, Result};
use crate::forms::{self, Data, Form};
use crate::json::Row;
use crate::machine::{Machine, Name};
use crate::measure::{self, Subject};
use crate::progress::Progress;
use crate::shapes::Case;
use crate::{bench, output, reference, report};
use serde::Serialize;
use std::sync::Arc;
use winograph::device::Device;
use winograph::{ArgSpec, DType, FunctionOptions, Tensor, compile_with};

#[derive(Serialize)]
struct Report {
    device: String,
    threads: usize,
    /// Rows and columns of the result, and terms of each of its elements.
    size: [usize; 3],
    flops: u64,
    results: [Row; 1],
}

/// The product `[m, k] x [k, n]` as the convolution that has the same sums: an image for each row, a channel for each
/// term, no window. Its weight is the second factor transposed; the data's tensors are the factors as they are.
pub(crate) fn case(size: &str) -> Result<(Case, Data)> {
    let case = Case::matmul(size)?;
    let (m, n, k) = (case.input[0], case.weight[0], case.input[1]);
    let mut data = Data::new(&case)?;
    let transposed: Vec<f32> = (0..k * n).filter_map(|i| data.w_values.get(i % n * k + i / n)).copied().collect();
    let factors =
        Tensor::from_slice(&data.x_values, &[m, k]).and_then(|x| Ok((x, Tensor::from_slice(&transposed, &[k, n])?)));
    (data.x, data.w) = factors.map_err(|e| Error::of("cannot make the tensors", e))?;
    Ok((case, data))
}

/// Compiles the product.
pub(crate) fn build(case: &Case, w: &Tensor, device: &Arc<dyn Device>) -> Result<Form> {
    let how = FunctionOptions {
        device: Some(device.clone()),
        compiler: Some(forms::options(Algo::Auto, case)),
        ..Default::default()
    };
    let args = [ArgSpec::new(DType::F32, &case.input[..2])];
    let function = compile_with(&args, &how, |args| Ok(vec![args[0].matmul(w)?]))
        .map_err(|e| Error::of("cannot compile the product", e))?;
    let verdict = forms::verdict(Algo::Auto, None, function.explanation());
    Ok(Form { algo: Algo::Auto, verdict, function: Some(function) })
}

/// Runs the command.
pub(crate) fn run(args: &BenchMatmul) -> Result<()> {
    let runs = args.runs as usize;
    let mut progress = Progress::new((3 + measure::steps(1, runs)) as u64);
    let (case, data) = case(&args.size.size)?;
    let machine = Machine::open(&Name::Cpu, args.threads)?;
    progress.step("compiling");
    let form = build(&case, &data.w, &machine.device)?;
    progress.step("computing in f64");
    let exact = reference::convolution(&case, &data.x_values, &data.w_values, machine.threads)?;
    let Some(function) = &form.function else {
        return Err(Error::failure("cannot report the results", "the product was not compiled"));
    };
    progress.step("first call");
    let mut subjects = [Subject::new(function, &data.x, &data.w)?];
    measure::measure(&mut subjects, runs, &mut progress)?;
    drop(progress);
    let [subject] = &subjects;
    // Products of matrices have no certificate of their own.
    let none = Certificate { error_bound: f64::NAN, max_err_over_bound: f64::NAN, expected_err_over_direct: f64::NAN };
    let mut row = bench::row(&case, &form, subject, function, &exact, none);
    row.kernels = bench::launches(function, &subject.kernels_us, false, |_, _| None);
    let report = Report {
        device: machine.device.name().to_string(),
        threads: machine.threads,
        size: [case.input[0], case.weight[0], case.input[1]],
        flops: case.flops(),
        results: [row],
    };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    let [m, n, k] = report.size;
    let head = format!(
        "{} with {} thread{}: [{m}, {k}] x [{k}, {n}], {:.3} GFLOP\n\n",
        report.device,
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        report.flops as f64 / 1e9
    );
    output::print(&(head + &report::table(&report.results)))
}
