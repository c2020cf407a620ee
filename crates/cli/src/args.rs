//! Arguments of the command.

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use winograph_compiler::options::StageRule;
use winograph_compiler::schedule::host::MOST_CHUNKS;

/// A tensor compiler with Winograd convolution as a graph rewrite.
#[derive(Debug, Parser)]
#[command(name = "winograph", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compile, run, check and time
    Bench {
        #[command(subcommand)]
        what: BenchCommand,
    },
    /// Say what the compiler decides, and why
    Explain {
        #[command(subcommand)]
        what: ExplainCommand,
    },
    /// Compare what is compiled with what is expected: conformance cases of ONNX in folders, or random graphs
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Check {
        #[command(subcommand)]
        what: Option<CheckCommand>,
        #[command(flatten)]
        cases: CheckOnnx,
    },
    /// Run a model on arrays and pictures
    Run(Box<RunArgs>),
    /// Write a model to one file with prepared weights and compiled kernels, for machines without a compiler
    Export(ExportArgs),
    /// What a model takes, gives and consists of, and how it would be computed
    Inspect(InspectArgs),
    /// List the devices of this machine
    Devices(DevicesArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One convolution, computed in several ways and compared with an f64 convolution
    Conv(Box<BenchConv>),
    /// A product of matrices of which the second is constant
    Matmul(BenchMatmul),
    /// Build and time what lines of JSON on stdin ask for: for harnesses that let programs take turns
    Serve(BenchServe),
    /// A model in a file, with its inputs in files: loading, compiling, running, and where the time goes
    Model(BenchModel),
    /// What a call costs beside its kernels, and `realize` of a graph seen before; tinygrad's beside it if installed
    Overhead(BenchOverhead),
    /// How compile time grows with the size of a graph, without the C compiler
    Compile(BenchCompile),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// How one convolution is compiled
    Conv(Box<ExplainConv>),
    /// How a model in a file is compiled: each launch with the nodes that it computes, algorithm, layouts, plans, and why
    Model(ExplainModel),
    /// What kernels of all kinds move on GPUs under the old rules and under auto, as Markdown
    Table(ExplainTable),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Random graphs of all operations and dtypes
    Graphs(CheckGraphs),
    /// Conformance cases of ONNX, whose outputs are given: as `check` with folders alone
    Onnx(CheckOnnx),
}

/// Arguments of `check graphs`.
#[derive(Debug, Args)]
pub(crate) struct CheckGraphs {
    /// Number of graphs
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) count: u32,
    /// The first graph's number; the others follow
    #[arg(long, value_name = "S", default_value = "0")]
    pub(crate) seed: u64,
    /// Optimisation level of the C compiler
    #[arg(long, value_name = "LEVEL", default_value = "2", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) optimize: u8,
    /// Graphs that are checked side by side [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,
    /// Print the graphs that were refused, and why
    #[arg(long)]
    pub(crate) refused: bool,
}

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algo {
    /// The sum as it stands
    Direct,
    /// Winograd written in tensor operations
    Tensor,
    /// Winograd by rewriting the graph
    Graph,
    /// Direct or Winograd, as the cost model decides
    Auto,
}

impl Algo {
    /// Name on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algo::Direct => "direct",
            Algo::Tensor => "tensor",
            Algo::Graph => "graph",
            Algo::Auto => "auto",
        }
    }
}

/// When weights are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// They are constants: transformed once, before the first call
    Prepared,
    /// They are arguments: transformed in each call
    EachCall,
}

/// A way to measure and print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// tensor (OLD) and graph (HYBRID), weights transformed in each call, least time of 20 runs after 5 warm-ups, ratio
    Seed,
}

/// The convolution and what the compiler may do with it. Lists are separated by commas.
#[derive(Debug, Args)]
pub(crate) struct ConvArgs {
    /// Shape of the input: N,C and 1 to 3 spatial sizes [default: 1,16,64,64]
    #[arg(long, value_name = "N,C,H,W", allow_hyphen_values = true)]
    pub(crate) input: Option<String>,
    /// Shape of the weight: K,C/groups and a window size per spatial axis [default: 16,16,3,3]
    #[arg(long, value_name = "K,C/g,R,S", allow_hyphen_values = true)]
    pub(crate) weight: Option<String>,
    /// Distance of windows, per axis or one for all
    #[arg(long, value_name = "LIST", default_value = "1", allow_hyphen_values = true)]
    pub(crate) stride: String,
    /// Zeros on both sides, per axis or one for all [default: 1 for the default shapes, 0 if --input or --weight is
    /// given]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) padding: Option<String>,
    /// Distance of taps, per axis or one for all
    #[arg(long, value_name = "LIST", default_value = "1", allow_hyphen_values = true)]
    pub(crate) dilation: String,
    /// Groups of channels that do not mix
    #[arg(long, value_name = "G", default_value = "1", allow_hyphen_values = true)]
    pub(crate) groups: String,
    /// Winograd's outputs per tile: `auto`, or 2, 3, 4 or 6, per axis or one for all. `4+2` is tiles of 4 and a last one of 2
    #[arg(long, value_name = "LIST", default_value = "auto", allow_hyphen_values = true)]
    pub(crate) tile: String,
    /// Winograd's interpolation points without infinity, e.g. 0,1,-1,1/2,-2 [default: the best known for the tile]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) points: Option<String>,
    /// How many times the expected error of a direct sum (relative L2, sequential fused multiply-adds) Winograd may cost;
    /// 1 is the direct sum or better [default: 3 for tiles that are chosen, any for a tile that is given]
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    pub(crate) tolerance: Option<String>,
    /// Sum long sums in blocks of about so many terms instead of in sequence; 64 to 256 are more accurate
    #[arg(long, value_name = "TERMS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sum_block: Option<u32>,
    /// When weights are known; `--protocol seed` has them transformed in each call
    #[arg(long, value_enum, default_value = "prepared")]
    pub(crate) weights: Weights,
    /// Where to run: cpu; cuda:N, an NVIDIA GPU; virtual:TARGET, a GPU in the interpreter, for small sizes, which checks
    /// every access and counts what it moves (targets cuda:sm_80, cuda:sm_90, metal)
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// How buffers of the compiler's own are laid out
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) layout: LayoutArg,
    /// How a GPU's parallel axes are bound to blocks and threads
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) grid: GridArg,
    /// Where stages live: auto, wherever that costs least; global, each in a kernel of its own, Winograd in three; chunks:N,
    /// the same for about N chunks of the result one after another, in less memory; fused, on a GPU, in the shared memory of
    /// workgroups, of which each computes a block of the result: one launch
    #[arg(long, value_name = "RULE", default_value = "auto", value_parser = stages)]
    pub(crate) stages: StageRule,
    /// How products may be rounded on GPUs with matrix units
    #[arg(long, value_enum, default_value = "exact")]
    pub(crate) products: ProductsArg,
}

/// Arguments of `bench conv`.
#[derive(Debug, Args)]
pub(crate) struct BenchConv {
    #[command(flatten)]
    pub(crate) conv: ConvArgs,
    /// Ways to compute it [with --search: auto]
    #[arg(
        long,
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        default_value = "direct,tensor,graph",
        default_value_if("search", ArgPredicate::IsPresent, "auto")
    )]
    pub(crate) algo: Vec<Algo>,
    /// Look for a faster plan for so many seconds for each way but tensor, and store it where later compiles find it
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["plan", "protocol"])]
    pub(crate) search: Option<f64>,
    /// Number of threads [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Number of timed calls
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Replay plans: those of a file, one line `NAME: PLAN` a kernel as `explain conv --plan` prints them, or stored ones
    /// that come with the command (seed, seed-tf32, seed-cores, blocks, blocks-tf32)
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<String>,
    /// Measure and print in another way
    #[arg(long, value_enum, conflicts_with_all = ["json", "algo", "runs"])]
    pub(crate) protocol: Option<Protocol>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Size of a product of matrices.
#[derive(Debug, Args)]
pub(crate) struct MatmulSize {
    /// Rows and columns of the result, and terms of each of its elements
    #[arg(long, value_name = "M,N,K", default_value = "1024,1024,1024", allow_hyphen_values = true)]
    pub(crate) size: String,
}

/// Arguments of `bench matmul`.
#[derive(Debug, Args)]
pub(crate) struct BenchMatmul {
    #[command(flatten)]
    pub(crate) size: MatmulSize,
    /// Number of threads [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Number of timed calls
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bench serve`.
#[derive(Debug, Args)]
pub(crate) struct BenchServe {
    /// Number of threads [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
}

/// Arguments of `bench model`.
#[derive(Debug, Args)]
pub(crate) struct BenchModel {
    /// The model
    pub(crate) model: PathBuf,
    /// An input from a .npy file
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) input: Vec<(String, PathBuf)>,
    /// Write an output to a .npy file
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) output: Vec<(String, PathBuf)>,
    /// Number of threads [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Number of timed runs
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Say for each kernel what it takes
    #[arg(long)]
    pub(crate) profile: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// After the report, time runs for so many seconds for each line `{"time": seconds}` on stdin
    #[arg(long, requires = "json")]
    pub(crate) serve: bool,
}

/// Arguments of `export`.
///
/// The file holds machine code. Who runs it trusts who made it, as with any program.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The model
    pub(crate) model: PathBuf,
    /// Shape of an input, where the model leaves sizes open; it will run on inputs of this shape alone
    #[arg(long, value_name = "NAME=SIZES", value_parser = named_shape)]
    pub(crate) shape: Vec<(String, Vec<usize>)>,
    /// The file to write [default: the model's name, ending in .wg]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The kind of device that it will run on: cpu, or cuda:N for GPUs like that one
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: String,
    /// Bytes of the widest vectors that kernels for the CPU may use, for machines that lack this one's: 16 (SSE, without fused
    /// multiply-adds), 32 (AVX2), 64 (AVX-512)
    #[arg(long, value_name = "N", value_parser = ["16", "32", "64"])]
    pub(crate) vector_bytes: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads a number of seconds, above 0 and at most a day.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.trim().parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= 86_400.0);
    seconds.ok_or_else(|| "expected a number of seconds above 0, at most 86400".to_string())
}

/// Reads `NAME=SIZES`, sizes of at least 1 separated by commas; none for a tensor without axes.
fn named_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let expected =
        || "expected NAME=SIZES with sizes of at least 1 separated by commas, as in x=1,3,224,224".to_string();
    let (name, sizes) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(expected)?;
    if sizes.is_empty() {
        return Ok((name.to_string(), Vec::new()));
    }
    let size = |s: &str| s.trim().parse::<usize>().ok().filter(|&n| n > 0).ok_or_else(expected);
    Ok((name.to_string(), sizes.split(',').map(size).collect::<Result<_, _>>()?))
}

/// Reads `NAME=FILE`; the name may have `=` in it, the file may not.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.rsplit_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_string(), file.into())),
        _ => Err("expected NAME=FILE".into()),
    }
}

/// One thing that `bench serve` is to prepare.
#[derive(Debug, Parser)]
#[command(name = "prepare", no_binary_name = true)]
pub(crate) struct ServeJob {
    #[command(subcommand)]
    pub(crate) what: ServeJobs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServeJobs {
    /// A convolution
    Conv(Box<ServeConv>),
    /// A product of matrices of which the second is constant
    Matmul(MatmulSize),
}

/// A convolution that `bench serve` is to prepare.
#[derive(Debug, Args)]
pub(crate) struct ServeConv {
    #[command(flatten)]
    pub(crate) conv: ConvArgs,
    /// Way to compute it
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) algo: Algo,
}

/// Arguments of `bench compile`.
#[derive(Debug, Args)]
pub(crate) struct BenchCompile {
    /// Numbers of nodes
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "10,100,1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) nodes: Vec<u32>,
    /// Print one JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bench overhead`.
#[derive(Debug, Args)]
pub(crate) struct BenchOverhead {
    /// Number of timed calls
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) calls: u32,
    /// Python in which tinygrad is looked for
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A rule for layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArg {
    /// By the accesses of writers and readers together
    Auto,
    /// In the order in which a rewrite lists its ranges
    Creation,
}

/// A rule for grids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GridArg {
    /// By the addresses that the lanes of a warp touch
    Auto,
    /// By the order in which ranges were made
    RangeId,
}

/// A rule for products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProductsArg {
    /// As f32 has them
    Exact,
    /// Factors rounded to tf32's 11 bits
    Tf32,
    /// Factors as sums of two tf32 numbers: about 22 bits
    Tf32x3,
    /// As f32 has them, but what a rewrite of half floats multiplies is rounded to half floats
    Half,
    /// The last two, for sums whose expected error then is within the tolerance
    Auto,
}

/// Reads a `--stages`.
fn stages(text: &str) -> Result<StageRule, String> {
    StageRule::parse(text)
        .ok_or_else(|| format!("expected auto, global, fused or chunks:N with N of 1 to {MOST_CHUNKS}"))
}

/// Arguments of `explain conv`.
#[derive(Debug, Args)]
pub(crate) struct ExplainConv {
    #[command(flatten)]
    pub(crate) conv: ConvArgs,
    /// Way to compute it
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) algo: Algo,
    /// Machine to compile for: cpu (this one), cuda:sm_80, cuda:sm_90 or metal
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// Also print the kernels in the language of the target: C, CUDA C or, to read, Metal's
    #[arg(long)]
    pub(crate) source: bool,
    /// Also print what each pass leaves
    #[arg(long)]
    pub(crate) passes: bool,
    /// Replay plans: those of a file, one line `NAME: PLAN` a kernel, or stored ones that come with the command (seed,
    /// seed-tf32, seed-cores, blocks, blocks-tf32). Without a value: also print each kernel's plan as such a line
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    pub(crate) plan: Option<String>,
    /// Write a page that draws all of this, old rules beside the ones asked for: one file, for a browser, without a network
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "source"])]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `explain model`.
#[derive(Debug, Args)]
pub(crate) struct ExplainModel {
    /// The model: an .onnx file, or a .param file of ncnn with its .bin file beside it
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Shape of an input that the model leaves open: what is computed depends on it
    #[arg(long, value_name = "NAME=SIZES")]
    pub(crate) shape: Vec<String>,
    /// Machine to compile for: cpu (this one), cuda:sm_80, cuda:sm_90 or metal
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// How many times the expected error of a direct sum Winograd may cost; 1 is the direct sum or better [default: 3]
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    pub(crate) tolerance: Option<String>,
    /// Only launches with one of these in the name of a node, of the kernel or of a buffer that it writes
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `explain table`.
#[derive(Debug, Args)]
pub(crate) struct ExplainTable {
    /// Only cases whose name contains one of these
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// GPUs to compile for
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cuda:sm_90,metal")]
    pub(crate) target: Vec<String>,
    /// Print how long layout and plan take instead, in microseconds for each kernel
    #[arg(long)]
    pub(crate) times: bool,
}

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `check onnx`, and of `check` without one of its commands.
#[derive(Debug, Args)]
pub(crate) struct CheckOnnx {
    /// Folders in or below which there are cases: `model.onnx` and `test_data_set_0`
    #[arg(required = true)]
    pub(crate) dirs: Vec<PathBuf>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Only cases all of whose inputs and outputs are tensors of this dtype, such as f32
    #[arg(long, value_name = "DTYPE")]
    pub(crate) only_dtype: Option<String>,
    /// Tolerance, relative to the expected value
    #[arg(long, value_name = "T", default_value = "1e-3")]
    pub(crate) rtol: f64,
    /// Tolerance beside it
    #[arg(long, value_name = "T", default_value = "1e-7")]
    pub(crate) atol: f64,
    /// Succeed if so many cases pass, whatever the others do
    #[arg(long, value_name = "N")]
    pub(crate) min_passed: Option<usize>,
    /// Also list the cases that are not supported
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The model: an .onnx file, or a .param file of ncnn with its .bin file beside it
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// An input: a .npy file, a picture (.png, .jpg), or `random`; once for each input of the model
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) input: Vec<String>,
    /// Shape of an input that the model leaves open, for pictures (which are scaled to it) and random numbers
    #[arg(long, value_name = "NAME=SIZES")]
    pub(crate) shape: Vec<String>,
    /// Write an output to a .npy file or, where it has the shape of one, as a picture to a .png file
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) output: Vec<String>,
    #[command(flatten)]
    pub(crate) picture: PictureArgs,
    /// Run a picture in overlapping tiles of at most so many rows and columns, which bounds the memory that it takes; for
    /// models with one input and one output, both pictures, that treat all places of a picture alike. Pictures are not scaled
    /// then, and tiles of a model of fixed size, a .wg file for one, are of that size
    #[arg(long, value_name = "N", conflicts_with_all = ["profile", "runs"], value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) tile_size: Option<u32>,
    /// Where to run: cpu; cuda:N, an NVIDIA GPU; virtual:TARGET, a GPU in the interpreter, for tiny models
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Number of threads [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// Also print what each kernel takes
    #[arg(long)]
    pub(crate) profile: bool,
    /// Number of timed runs after the first
    #[arg(long, value_name = "N", default_value = "0", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) runs: u32,
    /// How many times the expected error of a direct sum Winograd may cost; 1 is the direct sum or better [default: 3]
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    pub(crate) tolerance: Option<String>,
    /// Where random inputs begin
    #[arg(long, value_name = "S", default_value = "0")]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The model: an .onnx file, a .param file of ncnn with its .bin file beside it, or a .wg file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Shape of an input that the model leaves open: what is computed depends on it
    #[arg(long, value_name = "NAME=SIZES")]
    pub(crate) shape: Vec<String>,
    /// How many times the expected error of a direct sum Winograd may cost; 1 is the direct sum or better [default: 3]
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    pub(crate) tolerance: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How pictures become numbers: each channel of a pixel, from 0 to 255, as `(pixel - mean) * scale`. Outputs that are
/// written as pictures go the other way.
#[derive(Debug, Args)]
pub(crate) struct PictureArgs {
    /// What is subtracted from pixels: one number, or one for each channel, as 0.5 or 1/255
    #[arg(long, value_name = "LIST", default_value = "0", allow_hyphen_values = true)]
    pub(crate) mean: String,
    /// What they are then multiplied by: one number, or one for each channel [default: 1/255 for floats, 1 for whole numbers]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) scale: Option<String>,
    /// Channels and their order [default: as the model says, in the order red, green, blue]
    #[arg(long, value_enum)]
    pub(crate) channels: Option<ChannelsArg>,
    /// Where the channels are among the axes
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) layout: LayoutOfPictures,
}

/// Channels of pictures in tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChannelsArg {
    /// Red, green, blue
    Rgb,
    /// Blue, green, red
    Bgr,
    /// One of grey
    Gray,
}

/// Axes of pictures in tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutOfPictures {
    /// Last where the last axis has 1 or 3 elements and the first does not; else first
    Auto,
    /// Channels, rows, columns
    Nchw,
    /// Rows, columns, channels
    Nhwc,
}
