//! `winograph run`: a model's answer to arrays and pictures.

mod elements;
pub(crate) mod inputs;
mod picture;
mod report;

use crate::args::RunArgs;
use crate::error::{Error, Result};
use crate::machine::{Machine, Name};
use crate::measure::{median, ms};
use crate::progress::Progress;
use crate::{output, profile, shapes};
use inputs::{Given, Pixels};
use report::{Report, Value};
use std::path::PathBuf;
use std::time::Instant;
use winograph::model::{Model, PictureAxes, Session};
use winograph::{FunctionOptions, Options, Tensor};

/// Runs in which kernels are timed one by one.
const PROFILED: usize = 9;

/// Refuses what can be refused without reading the model.
pub(crate) fn check(args: &RunArgs) -> Result<()> {
    Name::parse(&args.device)?;
    // Which part of each is the name is known when the model is.
    for (option, list) in [("--input", &args.input), ("--shape", &args.shape), ("--output", &args.output)] {
        for item in list {
            let (name, value) = inputs::split(option, item, &[])?;
            if option == "--output" {
                inputs::writable(name, value)?;
            }
        }
    }
    Pixels::new(&args.picture)?;
    args.tolerance.as_deref().map(shapes::tolerance).transpose()?;
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    check(args)?;
    let pixels = Pixels::new(&args.picture)?;
    let mut progress = Progress::new(5 + u64::from(args.runs));
    progress.step("reading the model");
    let start = Instant::now();
    let model = Model::load(&args.model).map_err(|e| Error::of("cannot load the model", e))?;
    let load_ms = ms(start.elapsed());
    let (mut ports, defaults) = (model.inputs(), model.defaults());
    ports.extend(defaults.iter().cloned());
    let shapes = inputs::shapes(&args.shape, &ports)?;
    let mut given: Vec<Given> = Vec::new();
    for (i, (name, value)) in inputs::named("--input", &args.input, &ports)?.into_iter().enumerate() {
        let port = inputs::known(&ports, &name, "--input")?;
        let seed = args.seed.wrapping_add(i as u64);
        given.push(inputs::read(port, &value, &shapes, &pixels, seed, args.tile_size.is_some())?);
    }
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let outputs = model.outputs();
    for (name, file) in inputs::named("--output", &args.output, &outputs)? {
        inputs::known(&outputs, &name, "--output")?;
        let file = inputs::writable(&name, &file)?;
        inputs::has_folder(&file)?;
        files.push((name.clone(), file));
    }
    let machine = Machine::open(&Name::parse(&args.device)?, args.threads)?;
    let compiler = match &args.tolerance {
        Some(text) => {
            let defaults = winograph::settings::settings().map_err(|e| Error::of("cannot read the environment", e))?;
            Some(Options { tolerance: Some(shapes::tolerance(text)?), ..defaults.options.clone() })
        }
        None => None,
    };
    let options = FunctionOptions { device: Some(machine.device.clone()), compiler, dumps: false };

    progress.step("compiling");
    let start = Instant::now();
    if let Some(tile) = args.tile_size {
        let Tiled { result, tiles, compile_ms, run_ms } =
            tiled(tile as usize, &model, options, &given, &pixels, progress)?;
        let mut report = Report::new(args, &machine, load_ms, compile_ms, run_ms);
        report.tiles = Some(tiles);
        return finish(args, report, &given, &[result], &files, &pixels);
    }
    let session = match given.iter().any(|g| defaults.iter().any(|p| p.name == g.name)) {
        // Compiled for the inputs alone that have to be given, it could take no other any more.
        true => model.session(options),
        false => model.compile_with(options).map_err(|e| Error::of("cannot compile the model", e))?,
    };
    // The session may have no use for its weights any more.
    drop(model);
    let borrowed: Vec<(&str, &Tensor)> = given.iter().map(|g| (g.name.as_str(), &g.tensor)).collect();
    session.compile_for(&borrowed).map_err(|e| inputs::cannot_take(e, session.model(), &given))?;
    let compile_ms = ms(start.elapsed());
    progress.step("running");
    let start = Instant::now();
    let results = results(&session, &borrowed)?;
    let first_ms = ms(start.elapsed());

    let mut report = Report::new(args, &machine, load_ms, compile_ms, first_ms);
    timed(args, &session, &borrowed, &mut report, &mut progress)?;
    drop(progress);
    finish(args, report, &given, &results, &files, &pixels)
}

/// The results of a run, on the host.
fn results(session: &Session, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let results = session.run(inputs).and_then(|all| all.into_iter().map(|(n, t)| Ok((n, t.to_host()?))).collect());
    results.map_err(|e| Error::of("cannot run the model", e))
}

/// Writes the outputs that are wanted as files, and tells what there is.
fn finish(
    args: &RunArgs,
    mut report: Report,
    given: &[Given],
    results: &[(String, Tensor)],
    files: &[(String, PathBuf)],
    pixels: &Pixels,
) -> Result<()> {
    for (name, path) in files {
        if let Some((_, t)) = results.iter().find(|(n, _)| n == name) {
            inputs::write(name, t, path, pixels)?;
        }
    }
    let failed = |e| Error::of("cannot read the result", e);
    for g in given {
        let mut value = Value::of(&g.name, &g.tensor, None).map_err(failed)?;
        value.scaled_from = g.scaled_from;
        report.inputs.push(value);
    }
    for (name, t) in results {
        let file = files.iter().find(|(n, _)| n == name).map(|(_, f)| f.display().to_string());
        report.outputs.push(Value::of(name, t, file).map_err(failed)?);
    }
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&report.text())
}

/// What a picture's run in tiles gives and takes.
struct Tiled {
    result: (String, Tensor),
    tiles: usize,
    /// Until the first tile runs.
    compile_ms: f64,
    run_ms: f64,
}

/// Runs a picture in tiles, and counts them.
fn tiled(
    tile: usize,
    model: &Model,
    options: FunctionOptions,
    given: &[Given],
    pixels: &Pixels,
    compiling: Progress,
) -> Result<Tiled> {
    let [Given { name, tensor: x, .. }] = given else {
        return Err(Error::usage(format!("--tile-size: one input is to be given, not {}", given.len())));
    };
    let shape: Vec<Option<usize>> = x.shape().iter().map(|&s| Some(s)).collect();
    let Some(axes) = pixels.axes(&shape) else {
        let text = format!("--tile-size: input {name} of shape {} is no picture", inputs::sizes(&shape));
        return Err(Error::usage(text));
    };
    let axes = PictureAxes { height: axes.height, width: axes.width };
    let failed = |e| Error::of("cannot run the model in tiles", e);
    let start = Instant::now();
    // Compiled for the tiles alone; a session that has compiled a model cannot be asked about it any more.
    let session = model.session(options);
    let mut progress = Some(compiling);
    let mut compiled = None;
    let mut tiles = 0;
    let result = session.run_tiled((name, x, axes), axes, tile, &mut |done, all| {
        if compiled.is_none() {
            compiled = Some(start.elapsed());
            // One bar at a time.
            progress = None;
            progress = Some(Progress::new(all as u64));
        }
        tiles = all;
        if let Some(progress) = &mut progress {
            progress.step(&format!("tile {done} of {all}"));
        }
    });
    let result = result.map_err(failed)?;
    let compile_ms = compiled.map_or(0.0, ms);
    Ok(Tiled { result, tiles, compile_ms, run_ms: ms(start.elapsed()) - compile_ms })
}

/// Times calls beyond the first, and kernels one by one.
fn timed(
    args: &RunArgs,
    session: &Session,
    inputs: &[(&str, &Tensor)],
    report: &mut Report,
    progress: &mut Progress,
) -> Result<()> {
    let failed = |e| Error::of("cannot run the model", e);
    let mut times = Vec::new();
    for _ in 0..args.runs {
        progress.step("timing");
        let start = Instant::now();
        results(session, inputs)?;
        times.push(ms(start.elapsed()));
    }
    if args.profile {
        report.kernels = Some(profile::rows(session.profile(inputs, PROFILED).map_err(failed)?));
    }
    times.sort_by(f64::total_cmp);
    report.runs = times.len();
    report.min_ms = times.first().copied();
    report.median_ms = (!times.is_empty()).then(|| median(&times));
    Ok(())
}
