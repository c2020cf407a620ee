//! Writing markup: escaping, numbers, colours.

use std::fmt::Display;

/// Text as it may stand in elements and attributes.
pub(super) fn esc(text: impl Display) -> String {
    let text = text.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters have no place in a document.
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number with thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Sizes as `4 × 8`.
pub(super) fn sizes(list: &[i64]) -> String {
    list.iter().map(i64::to_string).collect::<Vec<_>>().join(" × ")
}

/// The colour of lane `n` of `of`: from blue over grey to yellow, which people with any colour vision tell apart by
/// lightness and by hue.
pub(super) fn lane_colour(n: usize, of: usize) -> String {
    const STOPS: [(f64, f64, f64); 3] = [(36.0, 87.0, 160.0), (136.0, 140.0, 142.0), (242.0, 197.0, 61.0)];
    let at = n as f64 / (of.max(2) - 1) as f64 * (STOPS.len() - 1) as f64;
    let low = (at as usize).min(STOPS.len() - 2);
    let (a, b, t) = (STOPS[low], STOPS[low + 1], at - low as f64);
    let mix = |a: f64, b: f64| (a + (b - a) * t).round().clamp(0.0, 255.0) as u8;
    format!("#{:02x}{:02x}{:02x}", mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
