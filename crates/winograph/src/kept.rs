//! Compiled programs that a device keeps from one process to the next, beside its kernels: a graph that was compiled before is
//! neither scheduled nor lowered nor rendered again.
//!
//! An entry is the program's outline (launches, buffers, where the kernels are) under the hash of all that a program
//! depends on: the graph, the target, the options, stored plans, the C compiler, and the file that this code is in. It begins
//! with a hash of its text; its numbers are compared with each other and with the graph's before anything is run.
//! Whatever does not hold, and whatever is missing, is compiled as if there were no entry.

use crate::device::{Device, KeptUnit, Module, ProgramStore};
use crate::execute::planned_with;
use crate::image::KernelData;
use crate::outline::{At, Buffer, Kernel, Launch, Outline, Room};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;
use winograph_compiler::explain::Explanation;
use winograph_compiler::tune::TuningRule;
use winograph_compiler::{Options, Program, Step};
use winograph_ir::tensor::{NodeId, TensorGraph, TensorOp};
use winograph_ir::{DType, IntId, text};

/// Part of every key: changes with the meaning of what is stored.
const FORMAT: &str = "winograph programs 1\n";

/// A program in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Kernels one after another, by the libraries they are in.
    units: Vec<Unit>,
    buffers: Vec<Buffer>,
    prepare: Vec<Launch>,
    run: Vec<Launch>,
    arena_bytes: usize,
    prepared_bytes: usize,
    prepare_arena_bytes: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    name: String,
    kernels: Vec<Kernel>,
}

/// Where a graph's program is kept, if it is.
pub(crate) struct Place<'a> {
    store: &'a dyn ProgramStore,
    key: String,
}

impl<'a> Place<'a> {
    /// The place of a graph's program on a device; `None` where it keeps none, for graphs with parameters, and for tunings that are
    /// being tried.
    pub(crate) fn of(graph: &TensorGraph, device: &'a dyn Device, options: &Options) -> Option<Place<'a>> {
        let store = device.programs()?;
        if !graph.ints.params().is_empty() || matches!(options.tuning, TuningRule::Given(_)) {
            return None;
        }
        let key = store.key(&[
            FORMAT,
            build()?,
            &text::print_tensor(graph),
            &format!("{:?}", device.target()),
            &format!("{options:?}"),
            &device.plans().map(|p| p.state()).unwrap_or_default(),
        ])?;
        Some(Place { store, key })
    }

    /// The program that is kept and its kernels. `constants` are the bytes of the graph's inputs from `first` on.
    pub(crate) fn find(
        &self,
        graph: &TensorGraph,
        first: usize,
        constants: &[usize],
    ) -> Option<(Program, Arc<dyn Module>)> {
        let entry: Entry = serde_json::from_slice(&self.store.read(&self.key)?).ok()?;
        let bytes = |dtype: DType, shape: &[IntId]| {
            let sizes = shape.iter().map(|&s| usize::try_from(graph.ints.as_const(s)?).ok());
            sizes.into_iter().try_fold(dtype.size(), |n, s| n.checked_mul(s?))
        };
        let mut inputs = vec![0; first];
        for node in graph.nodes() {
            if let TensorOp::Input { slot, dtype, shape } = &node.op
                && let Some(to) = inputs.get_mut(*slot)
            {
                *to = bytes(*dtype, shape)?;
            }
        }
        let output = |&id: &NodeId| bytes(graph.node(id).dtype, &graph.node(id).shape);
        let room = Room {
            inputs: &inputs,
            outputs: &graph.outputs.iter().map(output).collect::<Option<Vec<_>>>()?,
            constant: &|n| n.checked_sub(first).and_then(|at| constants.get(at).copied()),
            prepared: entry.prepared_bytes,
            arenas: [entry.prepare_arena_bytes, entry.arena_bytes],
        };
        let outline = Outline {
            kernels: entry.units.iter().flat_map(|u| &u.kernels).collect(),
            buffers: &entry.buffers,
            prepare: &entry.prepare,
            run: &entry.run,
        };
        let program = outline.check(&self.store.platform(), &room).ok()?;
        let unit = |u: Unit| KeptUnit { name: u.name, kernels: u.kernels.into_iter().map(|k| k.launch).collect() };
        let module = self.store.module(entry.units.into_iter().map(unit).collect())?;
        Some((program, module))
    }

    /// Keeps a program whose kernels a module has, unless they themselves are not kept.
    pub(crate) fn keep(&self, program: &Program, module: &dyn Module) {
        let Some(units) = module.kept() else { return };
        let mut codes = program.kernels.iter();
        let mut kernel = |launch: KernelData| codes.next().map(|c| Kernel { role: c.role.name().to_string(), launch });
        let unit = |u: KeptUnit| {
            Some(Unit { name: u.name, kernels: u.kernels.into_iter().map(&mut kernel).collect::<Option<_>>()? })
        };
        let Some(units) = units.into_iter().map(unit).collect::<Option<Vec<_>>>() else { return };
        let launches = |list: &[Step]| list.iter().map(|s| Launch::new(s, s.args.clone())).collect::<Vec<_>>();
        let entry = Entry {
            units,
            buffers: program.buffers.iter().map(|b| Buffer::new(b, At::from(b.place))).collect(),
            prepare: launches(&program.prepare),
            run: launches(&program.run),
            arena_bytes: program.arena_bytes,
            prepared_bytes: program.prepared_bytes,
            prepare_arena_bytes: program.prepare_arena_bytes,
        };
        if let Ok(text) = serde_json::to_vec(&entry) {
            self.store.write(&self.key, &text);
        }
    }
}

/// Which build this is: the file that its code was loaded from, with its size and time of change. `None` where that is not
/// known.
fn build() -> Option<&'static str> {
    static BUILD: OnceLock<Option<String>> = OnceLock::new();
    let found = BUILD.get_or_init(|| {
        let file = own_file()?;
        let about = fs::metadata(&file).ok()?;
        let changed = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        Some(format!("{} {} {} {changed}\n", env!("CARGO_PKG_VERSION"), file.display(), about.len()))
    });
    found.as_deref()
}

/// The file that this function is in: the program, or a library that was loaded into it.
fn own_file() -> Option<PathBuf> {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return std::env::current_exe().ok() };
    containing(&maps, own_file as *const () as usize).map(PathBuf::from)
}

/// The file that is mapped at an address, by the text of `/proc/self/maps`.
fn containing(maps: &str, at: usize) -> Option<&str> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        let here = (number(from)?..number(to)?).contains(&at);
        here.then(|| rest.find('/').and_then(|path| rest.get(path..))).flatten()
    })
}

/// What a kept program was compiled from, to be planned again where somebody asks what was decided or how its kernels work.
pub(crate) struct Again {
    graph: TensorGraph,
    options: Options,
    device: Arc<dyn Device>,
    /// What it was kept under.
    key: String,
    planned: OnceLock<Option<(Program, Explanation)>>,
    source: OnceLock<String>,
}

impl Again {
    pub(crate) fn new(graph: &TensorGraph, device: &Arc<dyn Device>, options: &Options, from: &Place<'_>) -> Again {
        Again {
            graph: graph.clone(),
            options: options.clone(),
            device: device.clone(),
            key: from.key.clone(),
            planned: OnceLock::new(),
            source: OnceLock::new(),
        }
    }

    /// The program of an outline with its kernels' code, and what was decided; `None` where what it depends on has changed
    /// meanwhile, so that another would come out.
    pub(crate) fn planned(&self, outline: &Program) -> Option<&(Program, Explanation)> {
        let plan = || {
            let place = Place::of(&self.graph, &*self.device, &self.options)?;
            let (program, explanation) = planned_with(&self.graph, &*self.device, &self.options).ok()?;
            let same = place.key == self.key
                && (&program.prepare, &program.run) == (&outline.prepare, &outline.run)
                && program.buffers == outline.buffers;
            same.then_some((program, explanation))
        };
        self.planned.get_or_init(plan).as_ref()
    }

    /// The source text of the kernels.
    pub(crate) fn source(&self, outline: &Program) -> &str {
        self.source.get_or_init(|| {
            let module = self.planned(outline).and_then(|(program, _)| self.device.compile(&program.kernels).ok());
            module.map(|m| m.source().to_string()).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_an_address() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus daemon\n\
                    7f00-7f10 rw-p 00000000 00:00 0\n";
        assert_eq!(containing(maps, 0x40_0010), Some("/usr/bin/dbus daemon"));
        assert_eq!(containing(maps, 0x45_2000), None);
        assert_eq!(containing(maps, 0x7f01), None);
        assert_eq!(containing("nonsense\n1-\n", 1), None);
        assert!(build().is_some_and(|b| b.starts_with(env!("CARGO_PKG_VERSION"))));
    }
}
