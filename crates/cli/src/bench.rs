//! `winograph bench conv`: the forms of one convolution, run, checked and timed.

use crate::args::{Algo, BenchConv, Protocol};
use crate::certificate::{self, Certificate};
use crate::error::{Error, Result};
use crate::forms::{self, Data, Form};
use crate::json::{Kernel, Memory, Report, Row};
use crate::machine::{Machine, Name};
use crate::measure::{self, Subject, median};
use crate::progress::Progress;
use crate::shapes::Case;
use crate::{kernels, output, plans, reference, report, search, seed};
use std::time::Duration;
use winograph::Function;
use winograph_ir::interp::gpu::SiteCounts;
use winograph_ir::linear::Code;

/// Runs the command.
pub(crate) fn conv(args: &BenchConv) -> Result<()> {
    let mut case = Case::new(&args.conv)?;
    if args.plan.as_deref() == Some("") {
        return Err(Error::usage("--plan needs the name of a stored plan or of a file"));
    }
    case.rules.plans = plans::read(args.plan.as_deref())?;
    if let Some(twice) = (1..args.algo.len()).find(|&i| args.algo[..i].contains(&args.algo[i])) {
        return Err(Error::usage(format!("--algo: {} is there twice", args.algo[twice].name())));
    }
    if let (Some(_), Name::Virtual(_)) = (args.search, &case.device) {
        return Err(Error::usage("--search measures times, and a virtual device has none"));
    }
    if let Some(Protocol::Seed) = args.protocol {
        return seed::run(case, args.threads);
    }
    let report = bench(&case, args)?;
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&report::text(&report))
}

fn bench(case: &Case, args: &BenchConv) -> Result<Report> {
    let runs = args.runs as usize;
    let forms_at_most = args.algo.len() + 1;
    let mut progress = Progress::new((2 * forms_at_most + 1 + measure::steps(forms_at_most, runs)) as u64);
    let machine = Machine::open(&case.device, args.threads)?;
    let device = &machine.device;
    let data = Data::new(case)?;

    let mut built: Vec<Form> = Vec::new();
    let mut searches = Vec::new();
    let mut reference = None;
    for &algo in &args.algo {
        let (form, search) = match args.search.filter(|_| algo != Algo::Tensor) {
            None => {
                progress.step(&format!("compiling {}", algo.name()));
                (forms::build(algo, case, &data.w, device)?, None)
            }
            Some(seconds) => {
                let exact = match reference.take() {
                    Some(exact) => exact,
                    None => reference::convolution(case, &data.x_values, &data.w_values, machine.threads)?,
                };
                progress.step("searching");
                let found = search::run(algo, case, &data, device, (&exact, machine.threads), seconds, &mut progress)?;
                reference = Some(exact);
                found
            }
        };
        built.push(form);
        searches.push(search);
    }
    // Forms that do not apply show the direct form's figures.
    if built.iter().any(|f| !f.verdict.applied) && !args.algo.contains(&Algo::Direct) {
        progress.step("compiling direct");
        built.push(forms::build(Algo::Direct, case, &data.w, device)?);
    }
    let explanations: Vec<_> = built.iter().filter_map(|f| Some(f.function.as_ref()?.explanation())).collect();
    plans::check_used(args.plan.as_deref(), explanations)?;
    progress.step("computing in f64");
    let exact = match reference {
        Some(exact) => exact,
        None => reference::convolution(case, &data.x_values, &data.w_values, machine.threads)?,
    };

    let mut subjects: Vec<Subject<'_>> = Vec::new();
    // What the launches of each subject moved, where the device counts it.
    let mut counted: Vec<Option<Vec<Vec<SiteCounts>>>> = Vec::new();
    // For each form the subject that stands for it.
    let mut subject_of: Vec<Option<usize>> = Vec::new();
    for form in &built {
        let usable = form.function.as_ref().filter(|_| form.verdict.applied);
        subject_of.push(usable.map(|_| subjects.len()));
        if let Some(function) = usable {
            progress.step(&format!("first call of {}", form.algo.name()));
            let launched = || machine.virtual_gpu.as_ref().map(|gpu| gpu.take_launches());
            launched();
            subjects.push(Subject::new(function, &data.x, &data.w)?);
            counted.push(launched().map(|l| l.into_iter().map(|l| l.counts.sites).collect()));
        }
    }
    if machine.virtual_gpu.is_none() {
        measure::measure(&mut subjects, runs, &mut progress)?;
    }
    drop(progress);

    let direct = built.iter().position(|f| f.algo == Algo::Direct);
    let tensor = built.iter().position(|f| f.algo == Algo::Tensor && f.verdict.applied);
    let mut results = Vec::new();
    for (at, form) in built.iter().enumerate().take(args.algo.len()) {
        let shown = if subject_of[at].is_some() { Some(at) } else { direct };
        let found = shown.and_then(|i| Some((subject_of[i]?, built[i].function.as_ref()?)));
        let Some((subject_at, function)) = found else {
            return Err(Error::failure("cannot report the results", format!("{} was not run", form.algo.name())));
        };
        let subject = &subjects[subject_at];
        let tile = shown.map_or(&[][..], |i| &built[i].verdict.tile);
        let certificate = certificate::certify(
            case,
            tile,
            (&data.x_values, &data.w_values),
            &subject.result,
            &exact,
            machine.threads,
        );
        let mut row = row(case, form, subject, function, &exact, certificate);
        let counts = |n: usize, code: &Code| match &counted[subject_at] {
            Some(launches) => launches.get(n).cloned(),
            None => device.target().gpu.as_ref().and_then(|gpu| kernels::counts(code, gpu)),
        };
        if device.target().gpu.is_none() {
            row.memory = Some(Memory::new(&function.held(), case.bytes(), machine.threads));
        }
        row.plans = plans::fates(function.explanation());
        row.search = searches.get_mut(at).and_then(Option::take);
        row.kernels =
            launches(function, &subject.kernels_us, form.algo == Algo::Tensor && form.verdict.applied, counts);
        if machine.virtual_gpu.is_some() {
            // The interpreter's times are nobody's business.
            (row.first_ms, row.prepare_ms) = (f64::NAN, f64::NAN);
        }
        if let (Algo::Graph | Algo::Auto, true, Some(t)) = (form.algo, form.verdict.applied, tensor)
            && form.verdict.tile == built[t].verdict.tile
            && let Some(rival) = subject_of[t].map(|i| &subjects[i])
        {
            row.bitwise_equal_to_tensor = Some(same_bits(&subject.result, &rival.result));
        }
        results.push(row);
    }
    Ok(Report {
        device: device.name().to_string(),
        threads: machine.threads,
        shape: case.into(),
        flops: case.flops(),
        results,
    })
}

/// The figures of one form.
pub(crate) fn row(
    case: &Case,
    form: &Form,
    subject: &Subject<'_>,
    function: &Function,
    exact: &[f64],
    certificate: Certificate,
) -> Row {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let times = function.times();
    let median_ms = median(&subject.runs_ms);
    let (max_abs_err, rel_l2_err) = reference::errors(&subject.result, exact);
    Row {
        algo: form.algo.name(),
        applied: form.verdict.applied,
        reason: form.verdict.reason.clone(),
        tile: form.verdict.tile.clone(),
        compile_ms: ms(times.plan + times.kernels),
        prepare_ms: ms(times.prepare),
        first_ms: subject.first_ms,
        min_ms: subject.runs_ms.first().copied().unwrap_or(f64::NAN),
        median_ms,
        gflops: case.flops() as f64 / (median_ms * 1e6),
        max_abs_err,
        rel_l2_err,
        amplification: form.verdict.amplification,
        error_bound: certificate.error_bound,
        max_err_over_bound: certificate.max_err_over_bound,
        expected_err_over_direct: certificate.expected_err_over_direct,
        bitwise_equal_to_tensor: None,
        memory: None,
        plans: vec![],
        search: None,
        kernels: vec![],
    }
}

/// The launches of each call with their times; `counts` knows what the accesses of a step move.
pub(crate) fn launches(
    function: &Function,
    times: &[f64],
    tensor_level: bool,
    counts: impl Fn(usize, &Code) -> Option<Vec<SiteCounts>>,
) -> Vec<Kernel> {
    let program = function.program();
    let times = times.iter().copied().chain(std::iter::repeat(f64::NAN));
    program
        .run
        .iter()
        .zip(times)
        .zip(kernels::roles(program, tensor_level))
        .enumerate()
        .filter_map(|(n, ((step, time_us), role))| {
            let code = program.kernels.get(step.kernel)?;
            Kernel::new(program, step, role, time_us, counts(n, code).as_deref())
        })
        .collect()
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
