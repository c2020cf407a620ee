//! Tunings as data and as text.
//!
//! ```text
//! tile=4,4
//! stages=scratch block=1,2,14 columns=32 parts=1
//! registers=3x8
//! ends=masked
//! stores=streamed
//! plan output_transform: a0=grid a1=vector:16 order=a0,a1
//! ```
//!
//! Each line may be missing. A tile is the number of its outputs or several of them, as `4+2`, which cover an axis one after
//! the other; what follows is then about the first region of the result. A tile of no outputs, `tile=direct`, is the direct sum; `stages=global` makes each kernel a
//! launch of its own, `stages=shared` with blocks the one that computes the product's operand, `stages=chunks:4` all of them
//! for each of four chunks, `stages=fused` with blocks all of them one of a GPU; plans are those of kernels by their role, as in a file of [stored plans].
//!
//! [stored plans]: crate::optimize::stored

use crate::optimize::plan::Plan;
use crate::schedule::host::MOST_CHUNKS;
use std::fmt;
use winograph_ir::indexed::Role;
use winograph_ir::rule::AxisTile;

/// Longest text that is read, in bytes.
pub const MOST_TEXT: usize = 64 << 10;
/// Most plans of a tuning, one for each role.
const MOST_PLANS: usize = Role::ALL.len();
/// Most axes of a tile.
const MOST_AXES: usize = 3;
/// Largest number of a tuning.
const LARGEST: i64 = 1 << 20;

/// How tunings are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum TuningRule {
    /// The observer is asked, who may have the result of a search.
    #[default]
    Stored,
    /// There are none: heuristics decide.
    Off,
    /// These, by the text of their problem's [key](super::Problem::key); heuristics decide about other sums.
    Given(Vec<(String, Tuning)>),
}

/// Decisions about one sum of products; what is `None` is left to the heuristics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tuning {
    /// How each window axis is covered by tiles; none is the direct sum.
    pub tile: Option<Vec<AxisTile>>,
    /// Where the stages around the product live.
    pub stages: Option<Staging>,
    /// Register blocks of the product, where it is in a launch with its operands.
    pub registers: Option<Registers>,
    /// What becomes of rows that do not fill a vector.
    pub ends: Option<Ends>,
    /// How results are stored that are larger than a cache, or nearly so.
    pub stores: Option<Stores>,
    /// Plans of kernels by role.
    pub plans: Vec<(Role, Plan)>,
}

/// Where the stages around a product live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staging {
    /// In global memory, each kernel a launch.
    Global,
    /// In a thread's scratch memory, block by block.
    Scratch(Blocks),
    /// The product in scratch memory, block by block; the operand that is computed for it in a launch before, once for all
    /// threads.
    Shared(Blocks),
    /// In global memory for one of about so many chunks of the result at a time, each kernel a launch for each chunk. On a
    /// GPU.
    Chunks(i64),
    /// In a workgroup's shared memory, block by block: all kernels are one launch, on a GPU.
    Fused(Blocks),
}

impl Staging {
    /// The blocks that there are.
    pub fn blocks(self) -> Option<Blocks> {
        match self {
            Staging::Global | Staging::Chunks(_) => None,
            Staging::Scratch(blocks) | Staging::Shared(blocks) | Staging::Fused(blocks) => Some(blocks),
        }
    }

    /// The same with other blocks.
    pub(crate) fn with(self, blocks: Blocks) -> Staging {
        match self {
            Staging::Shared(_) => Staging::Shared(blocks),
            Staging::Fused(_) => Staging::Fused(blocks),
            _ => Staging::Scratch(blocks),
        }
    }
}

/// Blocks of a product's result that are computed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Values of the third axis of rows from the inside, such as pictures.
    pub depth: i64,
    /// Values of the second one, such as rows of tiles.
    pub height: i64,
    /// Values of the innermost axis.
    pub width: i64,
    /// Columns at a time.
    pub columns: i64,
    /// Parts of the columns that are work items of their own.
    pub parts: i64,
}

/// Accumulators that stay in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registers {
    /// Vectors side by side.
    pub vectors: i64,
    /// Columns, whose elements are broadcast.
    pub copies: i64,
}

/// What becomes of rows that do not fill a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ends {
    /// A vector of which some lanes are not used.
    Masked,
    /// Lanes run along the columns.
    Turned,
}

impl Ends {
    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Ends::Masked => "masked",
            Ends::Turned => "turned",
        }
    }
}

/// How the results of a sum are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stores {
    /// Into the caches.
    Cached,
    /// Whole vectors past them.
    Streamed,
}

impl Stores {
    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Stores::Cached => "cached",
            Stores::Streamed => "streamed",
        }
    }
}

impl fmt::Display for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Staging::Chunks(n) => return write!(f, "stages=chunks:{n}"),
            Staging::Global => "global",
            Staging::Scratch(_) => "scratch",
            Staging::Shared(_) => "shared",
            Staging::Fused(_) => "fused",
        };
        write!(f, "stages={name}")?;
        match self.blocks() {
            None => Ok(()),
            Some(Blocks { depth, height, width, columns, parts }) => {
                write!(f, " block={depth},{height},{width} columns={columns} parts={parts}")
            }
        }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tile.as_deref() {
            None => {}
            Some([]) => writeln!(f, "tile=direct")?,
            Some(tile) => writeln!(f, "tile={}", tile.iter().map(AxisTile::to_string).collect::<Vec<_>>().join(","))?,
        }
        if let Some(stages) = &self.stages {
            writeln!(f, "{stages}")?;
        }
        if let Some(Registers { vectors, copies }) = self.registers {
            writeln!(f, "registers={vectors}x{copies}")?;
        }
        if let Some(ends) = self.ends {
            writeln!(f, "ends={}", ends.name())?;
        }
        if let Some(stores) = self.stores {
            writeln!(f, "stores={}", stores.name())?;
        }
        for (role, plan) in &self.plans {
            writeln!(f, "plan {}: {plan}", role.name())?;
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|n| (1..=LARGEST).contains(n))
}

fn axis_tile(text: &str) -> Option<AxisTile> {
    text.parse::<AxisTile>().ok().filter(|t| t.sizes().iter().all(|m| (1..=LARGEST).contains(&(*m as i64))))
}

impl Tuning {
    /// Whether everything is left to the heuristics.
    pub fn is_empty(&self) -> bool {
        *self == Tuning::default()
    }

    /// The plan for kernels of a role.
    pub fn plan(&self, role: Role) -> Option<&Plan> {
        self.plans.iter().find(|p| p.0 == role).map(|p| &p.1)
    }

    /// This tuning with another plan for a role.
    pub fn with_plan(&self, role: Role, plan: Plan) -> Tuning {
        let mut of = self.clone();
        of.plans.retain(|p| p.0 != role);
        of.plans.push((role, plan));
        of.plans.sort_by_key(|p| p.0.name());
        of
    }

    /// Reads the text that `Display` writes.
    ///
    /// # Errors
    /// What is not a line of a tuning.
    pub fn parse(text: &str) -> Result<Tuning, String> {
        if text.len() > MOST_TEXT {
            return Err(format!("a tuning of {} bytes, at most {MOST_TEXT} are read", text.len()));
        }
        let mut of = Tuning::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            let at = |what: &str| format!("line {}: {what}", n + 1);
            let twice = || Err(at("it is there twice"));
            if line.is_empty() {
                continue;
            }
            if let Some(plan) = line.strip_prefix("plan ") {
                let (role, plan) = plan.split_once(": ").ok_or_else(|| at("expected `plan ROLE: PLAN`"))?;
                let role = Role::ALL.into_iter().find(|r| r.name() == role).ok_or_else(|| at("unknown role"))?;
                let plan = Plan::parse(plan).map_err(|e| at(&e.to_string()))?;
                if of.plans.len() >= MOST_PLANS || of.plan(role).is_some() {
                    return twice();
                }
                of.plans.push((role, plan));
                continue;
            }
            let words: Option<Vec<(&str, &str)>> = line.split_whitespace().map(|w| w.split_once('=')).collect();
            match words.as_deref() {
                Some([("tile", tile)]) => {
                    let list: Option<Vec<AxisTile>> = match *tile {
                        "direct" => Some(vec![]),
                        _ => tile.split(',').map(axis_tile).collect(),
                    };
                    let tile = list.filter(|l| l.len() <= MOST_AXES);
                    let tile = tile.ok_or_else(|| at("expected tile=direct or the outputs of at most three axes"))?;
                    if of.tile.replace(tile).is_some() {
                        return twice();
                    }
                }
                Some([("stages", "global")]) => {
                    if of.stages.replace(Staging::Global).is_some() {
                        return twice();
                    }
                }
                Some([("stages", chunks)]) if chunks.starts_with("chunks:") => {
                    let chunks = chunks.strip_prefix("chunks:").and_then(number).filter(|&n| n <= MOST_CHUNKS);
                    let chunks =
                        chunks.ok_or_else(|| at(&format!("expected stages=chunks:N, at most {MOST_CHUNKS}")))?;
                    if of.stages.replace(Staging::Chunks(chunks)).is_some() {
                        return twice();
                    }
                }
                Some(
                    [
                        ("stages", name @ ("scratch" | "shared" | "fused")),
                        ("block", block),
                        ("columns", columns),
                        ("parts", parts),
                    ],
                ) => {
                    let sizes: Option<Vec<i64>> = block.split(',').map(number).collect();
                    let (Some(&[depth, height, width]), Some(columns), Some(parts)) =
                        (sizes.as_deref(), number(columns), number(parts))
                    else {
                        return Err(at(&format!("expected stages={name} block=D,H,W columns=N parts=N")));
                    };
                    let blocks = Blocks { depth, height, width, columns, parts };
                    let stages = match *name {
                        "shared" => Staging::Shared(blocks),
                        "fused" => Staging::Fused(blocks),
                        _ => Staging::Scratch(blocks),
                    };
                    if of.stages.replace(stages).is_some() {
                        return twice();
                    }
                }
                Some([("registers", size)]) => {
                    let sizes = size.split_once('x').and_then(|(v, c)| Some((number(v)?, number(c)?)));
                    let (vectors, copies) = sizes.ok_or_else(|| at("expected registers=VECTORSxCOPIES"))?;
                    if of.registers.replace(Registers { vectors, copies }).is_some() {
                        return twice();
                    }
                }
                Some([("ends", ends)]) => {
                    let found = [Ends::Masked, Ends::Turned].into_iter().find(|e| e.name() == *ends);
                    if of.ends.replace(found.ok_or_else(|| at("expected ends=masked or ends=turned"))?).is_some() {
                        return twice();
                    }
                }
                Some([("stores", stores)]) => {
                    let found = [Stores::Cached, Stores::Streamed].into_iter().find(|s| s.name() == *stores);
                    let found = found.ok_or_else(|| at("expected stores=cached or stores=streamed"))?;
                    if of.stores.replace(found).is_some() {
                        return twice();
                    }
                }
                _ => return Err(at("expected tile=, stages=, registers=, ends=, stores= or `plan ROLE: PLAN`")),
            }
        }
        of.plans.sort_by_key(|p| p.0.name());
        Ok(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "tile=4,4\nstages=scratch block=1,2,14 columns=32 parts=1\nregisters=3x8\nends=masked\nstores=streamed\n\
                       plan multiply: a0=grid a1=loop,vector:16 r0=loop order=a0,a1\n\
                       plan output_transform: a0=grid order=a0\n";

    #[test]
    fn text_is_read_as_it_is_written() {
        let tuning = Tuning::parse(ALL).unwrap();
        assert_eq!(tuning.to_string(), ALL);
        assert_eq!(tuning.tile, Some(vec![4.into(), 4.into()]));
        assert_eq!(tuning.registers, Some(Registers { vectors: 3, copies: 8 }));
        assert!(tuning.plan(Role::Multiply).is_some() && tuning.plan(Role::Direct).is_none());
        let shared = "stages=shared block=1,7,7 columns=64 parts=2\n";
        let fused = "stages=fused block=1,1,4 columns=16 parts=1\n";
        assert_eq!(Tuning::parse(fused).unwrap().to_string(), fused);
        for text in [
            "tile=direct\n",
            "tile=4+2\n",
            "tile=4+3,2+4+6\n",
            "stages=global\n",
            "stages=chunks:16\n",
            shared,
            "ends=turned\n",
            "stores=cached\n",
            "",
        ] {
            assert_eq!(Tuning::parse(text).unwrap().to_string(), text);
        }
        assert!(Tuning::parse("").unwrap().is_empty());
    }

    #[test]
    fn other_text_is_refused_by_line() {
        for bad in [
            "tile=",
            "tile=0",
            "tile=4,4,4,4",
            "tile=4+",
            "tile=4+0",
            "tile=2+2+2+2+2",
            "tile=4\ntile=2",
            "stages=shared",
            "stages=scratch",
            "stages=chunks:",
            "stages=chunks:0",
            "stages=chunks:1025",
            "stages=chunks:4\nstages=global",
            "registers=3",
            "registers=0x8",
            "registers=3x99999999999",
            "ends=cut",
            "stores=here",
            "stores=cached\nstores=cached",
            "stages=scratch block=1,2 columns=3 parts=4",
            "plan multiply a0=grid",
            "plan y: a0=grid",
            "plan multiply: a0=block",
            "plan multiply: a0=grid\nplan multiply: a0=grid",
            "x",
            "x=1",
        ] {
            let e = Tuning::parse(&format!("\n{bad}")).unwrap_err();
            assert!(e.starts_with("line "), "{bad}: {e}");
        }
        assert!(Tuning::parse(&"\n".repeat(MOST_TEXT + 1)).is_err());
    }
}
