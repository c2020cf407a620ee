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

/// Old, auto, least of each launch of the page.
fn numbers() -> Vec<(String, [u64; 3])> {
    let page = include_str!("../../../../docs/grid-table.md");
    let number = |t: &str| t.trim().replace(',', "").parse::<u64>().ok();
    page.lines()
        .filter_map(|l| {
            let cells: Vec<&str> = l.split('|').collect();
            let [old, auto, least] = [7, 8, 9].map(|n| cells.get(n).and_then(|t| number(t)));
            Some((format!("{}{}", cells[1], cells[2]), [old?, auto?, least?]))
        })
        .collect()
}

#[test]
fn every_launch_above_the_least_has_a_reason_and_programs_move_no_more_than_by_the_old_rules() {
    let all = numbers();
    assert!(all.len() > 150, "{}", all.len());
    let page = include_str!("../../../../docs/grid-table.md");
    for line in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| case")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let times: Option<f64> = cells[10].parse().ok();
        assert!(times.is_none_or(|t| t <= NEAR) || !cells[12].is_empty(), "{line}");
    }
}
