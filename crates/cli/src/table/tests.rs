//! The page in docs/ is what the command writes.

use super::*;

#[test]
fn the_page_is_up_to_date() {
    let page = include_str!("../../../../docs/grid-table.md");
    assert!(page.starts_with(HEAD));
    let some =
        ["reference graph", "res5 graph", "transpose", "softmax", "sum of", "concat", "ragged", "pool", "layer norm"];
    let cases: Vec<Case> =
        cases::all().unwrap().into_iter().filter(|c| some.iter().any(|s| c.name.contains(s))).collect();
    assert!(cases.len() >= 13);
    for target in ["cuda:sm_90", "metal"] {
        let target = Target::by_name(target).unwrap();
        let start = page.find(&format!("## {}\n", target.name)).unwrap();
        let section = page[start + 3..].split("\n## ").next().unwrap();
        for case in &cases {
            for row in rows(case, &target, target.gpu.as_ref().unwrap()).unwrap() {
                assert!(section.contains(&row), "run `winograph explain table > docs/grid-table.md`: {row}");
            }
        }
    }
}

#[test]
fn every_launch_above_the_least_has_a_reason_and_none_moves_more_than_by_the_old_rules() {
    let page = include_str!("../../../../docs/grid-table.md");
    let number = |t: &str| t.replace(',', "").parse::<f64>().ok();
    let mut counted = 0;
    for line in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| case")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(old), Some(auto), Some(times)) = (number(cells[7]), number(cells[8]), number(cells[10])) {
            assert!(auto <= old, "{line}");
            assert!(times <= NEAR || !cells[12].is_empty(), "{line}");
            counted += 1;
        }
    }
    assert!(counted > 150, "{counted}");
}
