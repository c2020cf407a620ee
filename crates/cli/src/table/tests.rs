//! The page in docs/ is what the command writes.

use super::cases::conv;
use super::*;
use winograph::ConvOptions;
use winograph_compiler::{Algorithm, Place};

/// How many times the sectors of the old rules a product may move, where all launches of its case together move no more.
const TILES: f64 = 1.2;

#[test]
fn the_page_is_up_to_date() {
    let page = include_str!("../../../../docs/grid-table.md");
    let targets = ["cuda:sm_90", "metal"].map(|t| Target::by_name(t).unwrap());
    let now = super::page(&cases::all().unwrap(), &targets).unwrap();
    for (old, new) in page.lines().zip(now.lines()) {
        assert_eq!(old, new, "run `winograph explain table > docs/grid-table.md`");
    }
    assert!(page == now, "run `winograph explain table > docs/grid-table.md`");
}

#[test]
fn every_launch_above_the_least_has_a_reason_and_none_moves_more_than_by_the_old_rules() {
    let page = include_str!("../../../../docs/grid-table.md");
    let number = |t: &str| t.replace(',', "").parse::<f64>().ok();
    let mut counted = 0;
    let mut cases: Vec<(&str, f64, f64)> = Vec::new();
    for line in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| case")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(old), Some(auto), Some(times)) = (number(cells[7]), number(cells[8]), number(cells[10])) {
            // Products in blocks are planned for time: their tiles may ask the caches for somewhat more.
            let most = if cells[3].starts_with("`r_") { old * TILES } else { old };
            assert!(auto <= most, "{line}");
            match cases.last_mut() {
                Some(case) if case.0 == cells[1] => (case.1, case.2) = (case.1 + old, case.2 + auto),
                _ => cases.push((cells[1], old, auto)),
            }
            assert!(times <= NEAR || !cells[12].is_empty(), "{line}");
            counted += 1;
        }
    }
    assert!(counted > 150, "{counted}");
    cases.iter().for_each(|(case, old, auto)| {
        // Of a direct sum nothing but its products is left, whose blocks are those that take less time.
        let most = if case.ends_with("direct") { old * 1.01 } else { *old };
        assert!(*auto <= most, "{case}: {auto} sectors under auto, {old} under the old rules")
    });
}

#[test]
fn stores_of_the_compilers_own_buffers_are_at_the_least() {
    let mut stores = 0;
    let mut more = Vec::new();
    for target in ["cuda:sm_80", "cuda:sm_90", "metal"] {
        let target = Target::by_name(target).unwrap();
        let gpu = target.gpu.as_ref().unwrap();
        // Rows of 5 to 28 tiles, most of which fill no sectors.
        let ragged = [20, 24, 28, 40, 48, 72, 96, 112].map(|size| {
            let mut case = conv(&format!("{size} px"), &[1, 16, size, size], &[16, 16, 3, 3], ConvOptions::padding(1));
            case.algorithm = Algorithm::Winograd;
            case
        });
        for case in cases::all().unwrap().into_iter().chain(ragged) {
            let (program, explanation) = compile(&case, &target, LayoutRule::Auto, GridRule::Auto).unwrap();
            let steps = program.prepare.iter().chain(&program.run);
            for (launch, step) in launches(&program, &explanation, gpu).iter().zip(steps) {
                let own = |name: &str| {
                    let named = |&&b: &&usize| program.buffers[b].name == name;
                    let place = step.args.iter().find(named).map(|&b| &program.buffers[b].place);
                    matches!(place, Some(Place::Arena(_) | Place::Prepared(_)))
                };
                for t in launch.touches.iter().filter(|t| t.kind == "store" && t.space == "global" && own(&t.buffer)) {
                    let m = t.moved.unwrap();
                    stores += 1;
                    if m.sectors != m.least_sectors {
                        let code = &program.kernels[step.kernel].name;
                        let at = format!("{} {} {}: {code}", target.name, case.name, t.buffer);
                        more.push(format!("{at}: {} sectors, at least {}", m.sectors, m.least_sectors));
                    }
                }
            }
        }
    }
    assert!(more.is_empty(), "{more:#?}");
    assert!(stores > 200, "{stores}");
}
