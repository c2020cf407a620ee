//! Tuning: decisions about single sums of products that heuristics make, as data.
//!
//! A [`Problem`] names a sum of products by its structure and by what is asked of it. Whoever measures may hand in a
//! [`Tuning`] for it, through the options or through the observer; what a tuning leaves open the heuristics decide, and
//! what of it does not fit is left out, with the reason. The compiler measures nothing: [`neighbours()`] says what could
//! be tried next.

pub mod neighbours;
pub mod problem;
pub mod tuning;

pub use neighbours::neighbours;
pub use problem::Problem;
pub use tuning::{Blocks, Ends, Registers, Staging, Stores, Tuning, TuningRule};

use crate::optimize::plan::Plan;
use crate::options::Products;
use crate::provenance::Reads;
use crate::schedule::block_cost::Extents;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Graph, Role};
use winograph_ir::rule::AxisTile;

/// Where a tuning came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: heuristics decided.
    Heuristics,
    /// The observer had it: a plan that a search has stored.
    Stored,
    /// The options give it.
    Given,
}

impl Origin {
    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Heuristics => "heuristics",
            Origin::Stored => "search",
            Origin::Given => "given",
        }
    }
}

/// What was decided about one sum of products.
#[derive(Clone, Debug)]
pub struct SumReport {
    /// Which sum it is.
    pub problem: Problem,
    /// The buffer that it was defined to write.
    pub buffer: String,
    /// Multiply-adds of the direct sum.
    pub work: f64,
    /// Where its tuning is from.
    pub origin: Origin,
    /// The tuning that was found or given.
    pub asked: Tuning,
    /// Parts of it that were not used, and why.
    pub refused: Vec<String>,
    /// What was decided, by tuning or by heuristics: a tuning that gives the same program.
    pub used: Tuning,
    /// Tiles that the tolerance admits and that are not estimated to be much slower; none is the direct sum. Only where
    /// the options do not leave tuning to the observer.
    pub tiles: Vec<Vec<AxisTile>>,
    /// Sizes of the launch that its kernels are one of, if they are.
    pub extents: Option<Extents>,
    /// Chunks at most for which its launches can be repeated; 1 where they cannot.
    pub chunks: i64,
    /// Blocks in which a workgroup could run all of its kernels, on a GPU.
    pub fused: Option<Blocks>,
}

/// What planning one kernel leaves for the report of its sum.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// A tuning's plan for kernels of a role is taken.
    Plan(Role, Plan),
    /// Results are stored so.
    Stores(Stores),
    /// A part of a tuning is not, and why.
    Refused(String, String),
    /// The register block and what became of rows that fill no vector.
    Registers(Option<Registers>, Option<Ends>),
}

/// The sums of one compilation and the buffers that belong to each.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    pub(crate) reports: Vec<SumReport>,
    of: FxHashMap<BufId, usize>,
    /// Buffers whose sums may be of products in three terms.
    split: FxHashSet<BufId>,
    /// Buffers whose sums the rewrite counted on being in one launch with what is around them.
    gathered: FxHashSet<BufId>,
}

impl Sums {
    /// Adds a sum whose definition writes `buffer`.
    pub(crate) fn add(&mut self, buffer: BufId, report: SumReport) {
        self.of.insert(buffer, self.reports.len());
        self.reports.push(report);
    }

    /// Notes that a stage of the sum that `buffer` belongs to writes `stage`.
    pub(crate) fn stage(&mut self, buffer: BufId, stage: BufId) {
        if let Some(&n) = self.of.get(&buffer) {
            self.of.insert(stage, n);
        }
    }

    /// Whether anything is known of any sum.
    pub(crate) fn has_any(&self) -> bool {
        !(self.reports.is_empty() && self.split.is_empty())
    }

    /// Notes that the expected error of the sum that writes `buffer` is within the tolerance with products in three terms.
    pub(crate) fn admit_split(&mut self, buffer: BufId) {
        self.split.insert(buffer);
    }

    /// Notes that the sum that writes `buffer` was chosen for being in one launch with what is around it.
    pub(crate) fn gather(&mut self, buffer: BufId) {
        self.gathered.insert(buffer);
    }

    /// Whether it was.
    pub(crate) fn is_gathered(&self, buffer: BufId) -> bool {
        self.gathered.contains(&buffer)
    }

    /// How the products of a kernel that writes `buffer` may be rounded, under what the options ask for.
    pub(crate) fn products(&self, buffer: Option<BufId>, asked: Products) -> Products {
        match asked {
            Products::Auto if buffer.is_some_and(|b| self.split.contains(&b)) => Products::Tf32x3,
            // What a rewrite rounds is half floats already.
            Products::Auto | Products::Half => Products::Exact,
            asked => asked,
        }
    }

    /// A definition into which one of a sum has gone belongs to the sum; `reads` is what there was before.
    pub(crate) fn follow(&mut self, reads: &Reads, g: &Graph) {
        let left: FxHashSet<BufId> = g.defs.iter().map(|d| d.buffer).collect();
        // Writers come before readers.
        for (reader, buffers) in reads {
            let gone = buffers.iter().filter(|b| !left.contains(b)).find_map(|b| self.number(*b));
            if let (Some(n), None) = (gone, self.number(*reader)) {
                self.of.insert(*reader, n);
            }
            if buffers.iter().any(|b| !left.contains(b) && self.split.contains(b)) {
                self.split.insert(*reader);
            }
        }
    }

    /// The terms that the definition of `reader` summed are summed in `stage` now.
    pub(crate) fn moved(&mut self, reader: BufId, stage: BufId) {
        if let Some(n) = self.of.remove(&reader) {
            self.of.insert(stage, n);
        }
        if self.split.remove(&reader) {
            self.split.insert(stage);
        }
    }

    /// The number of the sum that a buffer of the program belongs to.
    pub(crate) fn number(&self, buffer: BufId) -> Option<usize> {
        self.of.get(&buffer).copied()
    }

    pub(crate) fn get(&self, buffer: BufId) -> Option<&SumReport> {
        self.reports.get(self.number(buffer)?)
    }

    pub(crate) fn get_mut(&mut self, buffer: BufId) -> Option<&mut SumReport> {
        let n = self.number(buffer)?;
        self.reports.get_mut(n)
    }

    /// What is asked of the sum that a buffer belongs to.
    pub(crate) fn asked(&self, buffer: BufId) -> Option<&Tuning> {
        self.get(buffer).map(|s| &s.asked)
    }

    /// Takes down what planning a kernel that writes `buffer` leaves.
    pub(crate) fn note(&mut self, buffer: BufId, note: Note) {
        match (note, self.get_mut(buffer)) {
            (Note::Plan(role, plan), Some(sum)) => sum.used = sum.used.with_plan(role, plan),
            (Note::Registers(registers, ends), Some(sum)) => {
                (sum.used.registers, sum.used.ends) = (registers, ends);
            }
            (Note::Stores(stores), Some(sum)) => sum.used.stores = Some(stores),
            (Note::Refused(what, why), Some(_)) => self.refuse(buffer, &what, &why),
            (_, None) => {}
        }
    }

    /// Notes that a part of what is asked does not fit.
    pub(crate) fn refuse(&mut self, buffer: BufId, what: &str, why: &str) {
        if let Some(report) = self.get_mut(buffer) {
            let note = format!("{what}: {why}");
            if !report.refused.contains(&note) {
                report.refused.push(note);
            }
        }
    }
}
