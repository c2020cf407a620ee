//! Which lane of a warp touches which sector, drawn.

use super::mark::{count, esc, lane_colour};
use crate::warp::Picture;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use winograph_compiler::target::Gpu;

/// Sectors with, for each of their cells (elements), the lane that touches it.
struct Rows {
    sectors: Vec<(i64, Vec<Option<usize>>)>,
    touches: Vec<(usize, usize)>,
}

/// Most rows that are drawn.
const MOST: usize = 64;

impl Picture {
    fn rows(&self, sector: i64) -> Rows {
        let cells = (sector / self.size.max(1)).max(1);
        let mut sectors: BTreeMap<i64, Vec<Option<usize>>> = BTreeMap::new();
        for (lane, addresses) in self.lanes.iter().enumerate() {
            for &a in addresses {
                let row = sectors.entry(a.div_euclid(sector)).or_insert_with(|| vec![None; cells as usize]);
                let cell = a.rem_euclid(sector) / self.size.max(1);
                if let Some(c) = row.get_mut(cell as usize) {
                    c.get_or_insert(lane);
                }
            }
        }
        let order: Vec<i64> = sectors.keys().copied().collect();
        let mut touches: Vec<(usize, usize)> = Vec::new();
        for (lane, addresses) in self.lanes.iter().enumerate() {
            for &a in addresses {
                if let Ok(row) = order.binary_search(&a.div_euclid(sector)) {
                    touches.push((row, lane));
                }
            }
        }
        touches.sort_unstable();
        touches.dedup();
        Rows { sectors: sectors.into_iter().collect(), touches }
    }

    /// The drawing: a row for each sector, a column for each lane, then the sector's bytes. And what it shows in words.
    pub(super) fn svg(&self, gpu: &Gpu) -> (String, String) {
        let sector = gpu.sector as i64;
        let rows = self.rows(sector);
        let n = rows.sectors.len();
        let shown = n.min(MOST);
        let lanes = gpu.lanes;
        let cells = ((sector / self.size.max(1)) as usize).max(1);
        let row: f64 = match n {
            0..=8 => 15.0,
            9..=16 => 12.0,
            17..=32 => 9.0,
            _ => 6.0,
        };
        const LEFT: f64 = 58.0;
        const LANE: f64 = 8.0;
        const GAP: f64 = 18.0;
        const TOP: f64 = 30.0;
        let memory = LEFT + LANE * lanes as f64 + GAP;
        let cell = 96.0 / cells as f64;
        let width = memory + 96.0 + 2.0;
        let height = TOP + row * shown.max(1) as f64 + if n > MOST { 18.0 } else { 4.0 };
        let active = self.lanes.iter().filter(|l| !l.is_empty()).count();
        let bytes = self.distinct().len() as i64 * self.size;
        let least = (bytes + sector - 1) / sector.max(1);
        let words = format!("{active} lanes touch {bytes} bytes in {n} sectors; {least} could hold them");
        let mut out = format!(
            "<svg class=\"lanes\" role=\"img\" aria-label=\"{} {}: {}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             style=\"max-width:{width:.0}px\">\n",
            self.kind,
            esc(&self.buffer),
            esc(&words)
        );
        let _ = writeln!(out, "<text class=\"axis\" x=\"{LEFT}\" y=\"10\">lane</text>");
        let _ = writeln!(out, "<text class=\"axis\" x=\"{memory:.1}\" y=\"10\">its {sector} bytes</text>");
        let _ = writeln!(out, "<text class=\"axis end\" x=\"{:.1}\" y=\"24\">address</text>", LEFT - 8.0);
        let base = rows.sectors.first().map_or(0, |s| s.0);
        for l in (0..lanes).step_by(8).chain([lanes - 1]) {
            let x = LEFT + (l as f64 + 0.5) * LANE;
            let _ = writeln!(out, "<text class=\"axis mid\" x=\"{x:.1}\" y=\"24\">{l}</text>");
        }
        let every = if row >= 9.0 { 1 } else { 2 };
        let mut last = None;
        for (r, (at, used)) in rows.sectors.iter().take(shown).enumerate() {
            let y = TOP + r as f64 * row;
            let class = if last.is_some_and(|l| l + 1 != *at) { "row apart" } else { "row" };
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                LANE * lanes as f64,
                row - 1.0
            );
            if r % every == 0 {
                let _ = writeln!(
                    out,
                    "<text class=\"address\" x=\"{:.1}\" y=\"{:.1}\">+{}</text>",
                    LEFT - 8.0,
                    y + row / 2.0 + 3.0,
                    (at - base) * sector
                );
            }
            for (c, lane) in used.iter().enumerate() {
                let x = memory + c as f64 * cell;
                let fill = match lane {
                    Some(l) => format!("class=\"word\" fill=\"{}\"", lane_colour(*l, lanes)),
                    None => "class=\"idle\"".to_string(),
                };
                let _ = writeln!(
                    out,
                    "<rect {fill} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    cell - 1.0,
                    row - 1.0
                );
            }
            last = Some(*at);
        }
        for &(r, lane) in rows.touches.iter().filter(|t| t.0 < shown) {
            let _ = writeln!(
                out,
                "<rect class=\"word\" fill=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                lane_colour(lane, lanes),
                LEFT + lane as f64 * LANE,
                TOP + r as f64 * row,
                LANE - 1.0,
                row - 1.0
            );
        }
        if n > MOST {
            let y = TOP + row * shown as f64 + 12.0;
            let _ = writeln!(
                out,
                "<text class=\"axis\" x=\"{LEFT}\" y=\"{y:.1}\">and {} more</text>",
                count((n - MOST) as u64)
            );
        }
        out.push_str("</svg>");
        (out, words)
    }
}
