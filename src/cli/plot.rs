//! Bar charts in SVG.

use std::fmt::Write;

/// Bars that are compared with each other, on a scale of their own.
pub(super) struct Group {
    /// What they measure.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
pub(super) struct Bar {
    /// Whose it is: bars of the same label have the same color in every group.
    pub label: String,
    /// Its length, not negative.
    pub value: f64,
    /// What is written at its end.
    pub note: String,
}

const WIDTH: usize = 900;
const MARGIN: usize = 20;
/// From a bar to the next.
const STEP: usize = 22;
const BAR: usize = 16;
/// Where a group's bars begin below its title.
const TITLE: usize = 28;
/// Letters are about so wide.
const LETTER: usize = 7;
/// Colors that people tell apart whatever colors they see (Okabe and Ito).
const COLORS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];

/// A picture of `groups`, below each other.
pub(super) fn svg(groups: &[Group]) -> String {
    let bars = || groups.iter().flat_map(|g| &g.bars);
    let letters = |text: fn(&Bar) -> &str| bars().map(|b| text(b).chars().count()).max();
    let left = MARGIN + LETTER * letters(|b| &b.label).unwrap_or(0) + 10;
    let right = WIDTH.saturating_sub(MARGIN + LETTER * letters(|b| &b.note).unwrap_or(0) + 10);
    let longest = right.saturating_sub(left).max(100);
    let mut labels: Vec<&str> = vec![];
    for bar in bars() {
        if !labels.contains(&bar.label.as_str()) {
            labels.push(&bar.label);
        }
    }
    let mut body = String::new();
    let mut y = MARGIN;
    for group in groups {
        let most = group.bars.iter().map(|b| b.value).fold(f64::MIN_POSITIVE, f64::max);
        line(&mut body, &text(MARGIN, y + 14, "start", "bold", &group.title));
        y += TITLE;
        for bar in &group.bars {
            let color = labels.iter().position(|l| *l == bar.label).unwrap_or(0) % COLORS.len();
            let length = longest as f64 * bar.value / most;
            line(&mut body, &text(left - 10, y + 13, "end", "normal", &bar.label));
            let shape = format!(
                "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
                COLORS[color]
            );
            line(&mut body, &shape);
            line(
                &mut body,
                &text(left + length as usize + 8, y + 13, "start", "normal", &bar.note),
            );
            y += STEP;
        }
        y += MARGIN / 2;
    }
    let height = y + MARGIN;
    let width = WIDTH.max(left + longest + (WIDTH - right.min(WIDTH)));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn line(body: &mut String, element: &str) {
    let _ = writeln!(body, "{element}");
}

fn text(x: usize, y: usize, anchor: &str, weight: &str, what: &str) -> String {
    let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">{what}</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_a_group_fills_its_room() {
        let bar = |label: &str, value| Bar { label: label.into(), value, note: "n".into() };
        let group = |bars| Group { title: "a < b".into(), bars };
        let made = svg(&[group(vec![bar("x", 4.0), bar("y", 1.0)]), group(vec![bar("y", 0.0)])]);
        let widths: Vec<f64> = made
            .lines()
            .filter(|l| l.contains("fill=\"#"))
            .map(|l| l.split('"').nth(5).unwrap().parse().unwrap())
            .collect();
        assert!(widths[0] > 100.0);
        assert_eq!(widths, [widths[0], widths[0] / 4.0, 0.0]);
        assert!(made.contains("a &lt; b") && made.matches(COLORS[1]).count() == 2);
    }
}
