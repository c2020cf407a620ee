//! Winograd's minimal filtering as a rewrite: matrices, detection, rewriting, accuracy.

pub mod accuracy;
pub mod bound;
pub mod cook_toom;
pub mod cost;
pub mod cover;
pub mod detect;
pub mod points;
pub mod rational;
pub mod rewrite;
pub mod split;
pub mod unit_cost;

use crate::explain::{BoundReport, WindowReport};
use crate::options::{Algorithm, GridRule, LayoutRule, Options, Products, StageRule, WindowRule};
use crate::target::Gpu;
use crate::tune::{Problem, Sums, TuningRule, problem};
use cost::{Choice, Means};
use cover::Part;
use detect::Window;
use rustc_hash::{FxHashMap, FxHashSet};
use unit_cost::Units;
use winograph_ir::DType;
use winograph_ir::indexed::{BufId, Def, Graph, Role, Source, Val, ValId};
use winograph_ir::int::RangeId;
use winograph_ir::op::{BinaryOp, ReduceOp};
use winograph_ir::rule::AxisTile;

/// What is asked of sums, by their reduce ranges.
pub type Rules = FxHashMap<RangeId, WindowRule>;

/// Whether a reduction is a sum of products of data; a product with a constant table is a transform.
fn sums_products(g: &Graph, reduce: ValId) -> bool {
    let Val::Reduce { op: ReduceOp::Add, x, .. } = *g.val(reduce) else { return false };
    let table = |v: &ValId| matches!(g.val(*v), Val::Load { src: Source::Table(_), .. });
    matches!(g.val(x), Val::Binary { op: BinaryOp::Mul, .. }) && !g.topological(&[x]).iter().any(table)
}

/// The bound of a sum of products as it stands; `units` says whether the target has matrix units.
fn direct_bound(g: &Graph, reduce: ValId, products: Products, units: bool) -> Option<BoundReport> {
    let Val::Reduce { ref ranges, x, .. } = *g.val(reduce) else { return None };
    if !sums_products(g, reduce) {
        return None;
    }
    let factors = match (units, g.val(x)) {
        (true, &Val::Binary { a, b, .. }) => unit_dtype(g, a).filter(|&d| unit_dtype(g, b) == Some(d)),
        _ => None,
    };
    let dtype = g.dtype(reduce);
    cost::direct_bound(g, ranges, dtype, factors.unwrap_or_else(|| dtype.compute()), products)
}

/// The half float that a factor is, or was before it was widened, here or in a stage of its own that may be fused: as such it
/// may be on a matrix unit.
fn unit_dtype(g: &Graph, factor: ValId) -> Option<DType> {
    match (g.dtype(factor), g.val(factor)) {
        (half @ (DType::F16 | DType::BF16), _) => Some(half),
        (_, &Val::Cast { x, .. }) => unit_dtype(g, x),
        (_, &Val::Load { src: Source::Buffer(buffer), .. }) => {
            let def = g.defs.iter().find(|d| d.buffer == buffer)?;
            unit_dtype(g, def.value)
        }
        _ => None,
    }
}

/// How many different products a value adds up, where it is a sum.
fn added_products(g: &Graph, value: ValId) -> usize {
    let (mut count, mut stack) = (0, vec![value]);
    let mut seen = FxHashSet::default();
    while let Some(v) = stack.pop() {
        if !seen.insert(v) {
            continue;
        }
        match *g.val(v) {
            Val::Binary { op: BinaryOp::Add, a, b } => stack.extend([a, b]),
            Val::Binary { op: BinaryOp::Mul, a, b }
                if matches!((g.val(a), g.val(b)), (Val::Load { .. }, Val::Load { .. })) =>
            {
                count += 1
            }
            _ => {}
        }
    }
    count
}

/// `winograd`: rewrites every sliding-window sum of products for which the options or the cost model want it.
///
/// Takes the indexed graph; leaves matching reductions rewritten and a report for each reduction of products. An error
/// is a contradiction in the options.
pub fn run(g: &mut Graph, options: &Options) -> Result<Vec<WindowReport>, String> {
    run_ruled(g, options, &Rules::default())
}

/// Whether products in three terms are wanted where they cost so many times the direct sum's expected error.
fn admits_split(options: &Options, ratio: f64) -> bool {
    options.products == Products::Auto && ratio <= options.tolerance.unwrap_or_default().get()
}

/// Products that are summed at each position.
fn window_terms(g: &Graph, window: &Window) -> usize {
    sizes(g, &window.channels) as usize
}

/// Number of elements of axes (with parameters: at their greatest sizes).
fn sizes(g: &Graph, axes: &[RangeId]) -> f64 {
    axes.iter().map(|&r| g.ints.max_size(r).max(1) as f64).product()
}

/// [`run`], where `rules` says what is asked of single windows, by any of their reduce ranges.
pub fn run_ruled(g: &mut Graph, options: &Options, rules: &Rules) -> Result<Vec<WindowReport>, String> {
    run_tuned(g, options, rules, &mut Sums::default(), Machine::default())
}

/// The sums of products that are to be tuned, by the buffer that their definitions write: what they are under the options
/// and rules, and the multiply-adds of each.
pub(crate) fn problems(g: &Graph, options: &Options, rules: &Rules) -> Vec<(BufId, Problem, f64)> {
    let constant = problem::constants(g);
    let mut out = Vec::new();
    for def in &g.defs {
        let all = g.topological(&[def.value]);
        let mut reduces = all.into_iter().filter(|&v| matches!(g.val(v), Val::Reduce { .. }));
        let (Some(reduce), None) = (reduces.next(), reduces.next()) else { continue };
        let Val::Reduce { ranges, .. } = g.val(reduce) else { continue };
        if !sums_products(g, reduce) {
            continue;
        }
        let rule = ranges.iter().find_map(|r| rules.get(r));
        let options = rule.map_or_else(|| options.clone(), |rule| options.ruled(rule));
        let found = Problem::of(g, def, reduce, &constant, &options);
        out.extend(found.map(|(problem, work)| (def.buffer, problem, work)));
    }
    out
}

/// What a tuning decides about a window: its matrices and why, or why it is direct. The outer error is why the tuning does
/// not fit.
fn tuned(
    g: &Graph,
    def: &Def,
    window: &Window,
    options: &Options,
    tile: &[AxisTile],
    means: Means<'_>,
) -> Result<Result<Choice, String>, String> {
    if tile.is_empty() {
        return match options.algorithm {
            Algorithm::Winograd => Err("Winograd is asked for".to_string()),
            _ => Ok(Err("direct, as the tuning has it".to_string())),
        };
    }
    // The tolerance holds for whatever a tuning says.
    let tolerance = Some(options.tolerance.unwrap_or_default());
    let with = Options { tile: Some(tile.to_vec()), tolerance, ..options.clone() };
    let chosen = cost::choose(g, def, window, &with, means)??;
    let reason = chosen.reason.replace("as asked for", "as the tuning has it");
    Ok(Ok(Choice { reason, ..chosen }))
}

/// What of the target the rewrite asks for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Machine<'a> {
    /// What a launch costs, in multiply-adds.
    pub(crate) launch: f64,
    /// The GPU that it is, where stages are launches of their own.
    pub(crate) gpu: Option<&'a Gpu>,
    /// Whether one launch may be all stages of a rewrite: where nothing asks for other ones.
    pub(crate) gathers: bool,
}

impl<'a> Machine<'a> {
    /// A target's. A form, layout, grid or plan that is asked for is one of kernels that are launches.
    pub(crate) fn of(gpu: Option<&'a Gpu>, options: &Options) -> Machine<'a> {
        let gathers = options.algorithm == Algorithm::Auto
            && options.stages == StageRule::Auto
            && (options.layout, options.grid) == (LayoutRule::Auto, GridRule::Auto)
            && options.plans.plans.is_empty();
        Machine { launch: gpu.map_or(0.0, |gpu| cost::LAUNCH_COST * gpu.processors as f64), gpu, gathers }
    }

    /// What a window is computed on, and with. In workgroups that run several kernels no product is on a matrix unit.
    fn means(
        &self,
        g: &Graph,
        def: &Def,
        window: &Window,
        options: &Options,
        constant: &FxHashSet<BufId>,
    ) -> Means<'a> {
        let plain = options.products == Products::Exact && g.dtype(window.reduce) == DType::F32;
        // A narrowed launch needs sizes that are constants.
        let known = def.axes.iter().chain(&window.channels).all(|&r| g.ints.const_size(r).is_some());
        let each_call = self.gpu.is_some() && !problem::is_constant(g, window.weights, &|b| constant.contains(b));
        Means {
            launch: self.launch,
            units: self.units_for(g, window, options),
            workgroups: self.gpu.filter(|_| self.gathers && plain && known),
            each_call,
        }
    }

    /// Its units for a window's products.
    fn units_for(&self, g: &Graph, window: &Window, options: &Options) -> Option<Units> {
        let half = unit_dtype(g, window.data).filter(|&d| unit_dtype(g, window.weights) == Some(d));
        Units::of(self.gpu?, half.unwrap_or_else(|| g.dtype(window.reduce)), options.products)
    }
}

/// [`run_ruled`] with what tunings decide.
pub(crate) fn run_tuned(
    g: &mut Graph,
    options: &Options,
    rules: &Rules,
    sums: &mut Sums,
    machine: Machine<'_>,
) -> Result<Vec<WindowReport>, String> {
    let mut reports = Vec::new();
    // A CPU's launches are not counted.
    let constant = if machine.gpu.is_some() { problem::constants(g) } else { FxHashSet::default() };
    let mut def = 0;
    while def < g.defs.len() {
        let value = g.defs[def].value;
        let reduces: Vec<_> =
            g.topological(&[value]).into_iter().filter(|&v| matches!(g.val(v), Val::Reduce { .. })).collect();
        let buffer = g.buffer(g.defs[def].buffer).name.clone();
        let refused = |reason: String| WindowReport {
            buffer: buffer.clone(),
            applied: false,
            reason,
            stages: vec![],
            tile: vec![],
            taps: vec![],
            flops: 0.0,
            amplification: None,
            bound: None,
        };
        let [mut reduce] = reduces[..] else {
            let products = added_products(g, value);
            if reduces.is_empty() && products > 1 {
                let reason = format!("it is {products} added products: without a reduction there is no window to see");
                let flops = 2.0 * products as f64 * sizes(g, &g.defs[def].axes);
                reports.push(WindowReport { flops, ..refused(reason) });
            }
            def += 1;
            continue;
        };
        let asked: Vec<RangeId> = match g.val(reduce) {
            Val::Reduce { ranges, .. } => ranges.to_vec(),
            _ => Vec::new(),
        };
        let mut found = detect::detect(g, reduce);
        if found.is_err()
            && let Some(split) = detect::split_taps(g, reduce)
        {
            found = detect::detect(g, split);
            if found.is_ok() {
                let mut memo = FxHashMap::from_iter([(reduce, split)]);
                g.defs[def].value = g.rebuild(value, &mut memo, &mut |g, v| g.add(v));
                reduce = split;
            }
        }
        let flops = match sums_products(g, reduce) {
            true => 2.0 * sizes(g, &g.defs[def].axes) * sizes(g, &asked),
            false => 0.0,
        };
        if g.defs[def].role == Role::Other && sums_products(g, reduce) {
            g.defs[def].role = Role::Direct;
        }
        if sums_products(g, reduce) {
            let rule = asked.iter().find_map(|r| rules.get(r));
            let options = rule.map_or_else(|| options.clone(), |rule| options.ruled(rule));
            let ratio = cost::split_error_over_direct(&[], sizes(g, &asked) as usize);
            if admits_split(&options, ratio) {
                sums.admit_split(g.defs[def].buffer);
            }
        }
        let bound = direct_bound(g, reduce, options.products, machine.gpu.is_some_and(|gpu| !gpu.units.is_empty()));
        let refused = |reason: String| WindowReport { bound, flops, ..refused(reason) };
        match found {
            Err(reason) => reports.push(refused(reason)),
            Ok(window) => {
                let taps: Vec<usize> = window.axes.iter().map(|a| a.size as usize).collect();
                // A rule names the sum's own ranges, which may have been split since.
                let rule = asked.iter().find_map(|r| rules.get(r));
                let options = &rule.map_or_else(|| options.clone(), |rule| options.ruled(rule));
                if options.exact_nonfinite {
                    let reason = "a NaN or infinity must not spread beyond the sums that read it (exact_nonfinite)";
                    reports.push(WindowReport { taps, ..refused(reason.to_string()) });
                } else if options.algorithm == Algorithm::Direct {
                    reports.push(WindowReport { taps, ..refused("the direct form was asked for".to_string()) });
                } else {
                    let (this, own) = (g.defs[def].clone(), g.defs[def].buffer);
                    let means = machine.means(g, &this, &window, options, &constant);
                    let units = means.units;
                    let mut chosen = None;
                    // A tile that the options ask for is no question.
                    let asked = sums.asked(own).and_then(|t| t.tile.clone());
                    if let Some(tile) = asked.filter(|_| options.tile.is_none()) {
                        match tuned(g, &this, &window, options, &tile, means) {
                            Ok(found) => chosen = Some(found),
                            Err(why) => sums.refuse(own, "tile", &why),
                        }
                    }
                    let chosen = match chosen {
                        Some(chosen) => chosen,
                        None => cost::choose(g, &this, &window, options, means)?,
                    };
                    if let Some(sum) = sums.get_mut(own) {
                        sum.used.tile = Some(chosen.as_ref().map_or_else(|_| vec![], |c| c.tile.clone()));
                        if options.tile.is_none() && options.tuning != TuningRule::Stored {
                            sum.tiles = cost::admitted(g, &this, &window, options, units);
                        }
                    }
                    match chosen {
                        Err(reason) => reports.push(WindowReport { taps, ..refused(reason) }),
                        Ok(Choice { tile, axes, reason, rounded, gathered }) => {
                            let half = units.and_then(Units::half).filter(|_| rounded);
                            let factors = half.unwrap_or_else(|| g.dtype(window.reduce).compute());
                            let bound = cost::bound(g, &window, &axes, factors, options.products);
                            let (regions, more) = rewrite::rewrite(g, def, &window, &axes, factors);
                            for (n, region) in regions.iter().enumerate() {
                                if gathered {
                                    sums.gather(region.buffers[2]);
                                }
                                // A tuning is about the first region, which is the largest; heuristics decide about the others.
                                if n == 0 {
                                    region.buffers.iter().for_each(|&stage| sums.stage(own, stage));
                                }
                                let own: Vec<_> =
                                    region.transforms.iter().cloned().map(|t| vec![Part::whole(t)]).collect();
                                let ratio = cost::split_error_over_direct(&own, window_terms(g, &window));
                                if admits_split(options, ratio) {
                                    sums.admit_split(region.buffers[2]);
                                }
                            }
                            let names = regions.iter().flat_map(|r| r.buffers).map(|b| g.buffer(b).name.clone());
                            let stages = names.collect();
                            // The stages now stand in front of this definition.
                            def += more;
                            reports.push(WindowReport {
                                buffer,
                                applied: true,
                                reason,
                                stages,
                                tile,
                                taps,
                                flops,
                                amplification: Some(cost::worst_amplification(&axes)),
                                bound,
                            });
                        }
                    }
                }
            }
        }
        def += 1;
    }
    Ok(reports)
}
