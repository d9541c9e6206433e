//! Line charts as SVG that stretches to its place, with labels as text beside it, so that they stay readable at any width.
//!
//! A chart is complete without scripts; the values in it serve the one that shows those under the pointer.

use serde_json::{Value, json};

use super::curves::{smooth, smoothing, thin};
use super::html::{COLORS, escape};

/// Side of the coordinate system of a drawing.
const SIDE: f64 = 1000.0;

/// Dashes that tell runs apart without colour; the first is a full line.
const DASHES: [&str; 4] = ["", "7 4", "2 4", "10 4 2 4"];

/// One curve of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name of the run.
    pub name: String,
    /// Number of the run, which decides colour and dashes.
    pub run: usize,
    /// Finite points, by ascending step or epoch.
    pub points: Vec<(f64, f64)>,
    /// A point that stands out: the best epoch.
    pub mark: Option<(f64, f64)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// A remark below the title; may be empty.
    pub remark: String,
    /// `step` or `epoch`.
    pub x: &'static str,
    /// The curves.
    pub series: Vec<Series>,
    /// Whether the curves are smoothed, with the values themselves behind them.
    pub smoothed: bool,
}

impl Chart {
    /// The chart; nothing without points.
    pub fn html(&self) -> String {
        let mut all = self.series.iter().flat_map(|s| &s.points);
        let Some(first) = all.next() else { return String::new() };
        let (mut left, mut right, mut low, mut high) = (first.0, first.0, first.1, first.1);
        for (x, y) in all {
            (left, right) = (left.min(*x), right.max(*x));
            (low, high) = (low.min(*y), high.max(*y));
        }
        let (highest, cut) = (high, self.cut(low, high));
        high = cut.unwrap_or(high);
        let y_ticks = ticks(low, high);
        let (bottom, top) = (low.min(y_ticks[0]), high.max(y_ticks[y_ticks.len() - 1]));
        let span = |from: f64, to: f64| if to > from { to - from } else { 1.0 };
        let place = |(x, y): &(f64, f64)| {
            ((x - left) / span(left, right) * SIDE, SIDE - (y - bottom) / span(bottom, top) * SIDE)
        };
        let mut drawing = String::new();
        let mut labels = String::new();
        for tick in &y_ticks {
            let (_, y) = place(&(left, *tick));
            drawing.push_str(&format!("<line class=\"grid\" x1=\"0\" x2=\"1000\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
            let text = escape(&number_text(*tick));
            labels.push_str(&format!("<span class=\"tick y\" style=\"top: {:.1}%\">{text}</span>", y / 10.0));
        }
        drawing.push_str("<line class=\"axis\" x1=\"0\" x2=\"1000\" y1=\"1000\" y2=\"1000\"/>");
        for tick in ticks(left, right).iter().filter(|t| **t >= left && **t <= right && t.fract() == 0.0) {
            let (x, _) = place(&(*tick, bottom));
            let text = escape(&count_text(*tick));
            labels.push_str(&format!("<span class=\"tick x\" style=\"left: {:.1}%\">{text}</span>", x / 10.0));
        }
        labels.push_str(&format!("<span class=\"tick unit\">{}</span>", self.x));
        for series in self.series.iter().filter(|s| !s.points.is_empty()) {
            let style = stroke(series.run);
            let path = |points: &[(f64, f64)]| path(&points.iter().map(place).collect::<Vec<_>>());
            let raw = thin(&series.points);
            if self.smoothed {
                drawing.push_str(&format!("<path class=\"raw\" style=\"{style}\" d=\"{}\"/>", path(&raw)));
                let smoothed = thin(&smooth(&series.points, smoothing(series.points.len())));
                drawing.push_str(&format!("<path class=\"line\" style=\"{style}\" d=\"{}\"/>", path(&smoothed)));
            } else {
                drawing.push_str(&format!("<path class=\"line\" style=\"{style}\" d=\"{}\"/>", path(&raw)));
            }
            if let Some((x, y)) = series.mark.as_ref().map(place) {
                let color = series.run % COLORS;
                let at = format!("left: {:.1}%; top: {:.1}%", x / 10.0, y / 10.0);
                labels.push_str(&format!("<span class=\"mark\" style=\"--run: var(--r{color}); {at}\"></span>"));
            }
        }
        let above = cut.map(|_| format!("values up to {} are above the chart", number_text(highest)));
        let remarks: Vec<String> = above.into_iter().chain([self.remark.clone()]).filter(|r| !r.is_empty()).collect();
        let remark = format!("<small>{}</small>", escape(&remarks.join("; ")));
        let class = if cut.is_some() { " class=\"cut\"" } else { "" };
        format!(
            "<figure data-chart>\n<figcaption>{title}{remark}</figcaption>\n<div class=\"plot\">\n\
             <svg{class} viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{description}\">{drawing}\
             <line class=\"cursor\" style=\"visibility: hidden\" x1=\"0\" x2=\"0\" y1=\"0\" y2=\"1000\"/></svg>\n\
             <div aria-hidden=\"true\">{labels}</div>\n</div>\n<script type=\"application/json\">{data}</script>\n</figure>\n",
            title = escape(&self.title),
            description = escape(&self.description()),
            data = self.data(left, right),
        )
    }

    /// Where the vertical axis ends when a few noisy values would squeeze all others: at the 98th percentile.
    fn cut(&self, low: f64, high: f64) -> Option<f64> {
        let mut values: Vec<f64> = self.series.iter().flat_map(|s| s.points.iter().map(|point| point.1)).collect();
        values.sort_by(f64::total_cmp);
        let most = *values.get(values.len() * 98 / 100)?;
        (self.smoothed && most > low && high - low > 4.0 * (most - low)).then_some(most)
    }

    /// In words, for those who do not see it.
    fn description(&self) -> String {
        let one = |series: &Series| {
            let (first, last) = (series.points.first()?, series.points.last()?);
            let value = |point: &(f64, f64)| format!("{} at {} {}", number_text(point.1), self.x, count_text(point.0));
            let best = series.mark.map(|mark| format!(", best {}", value(&mark))).unwrap_or_default();
            Some(format!("{} from {} to {}{best}", series.name, value(first), value(last)))
        };
        format!("{}: {}", self.title, self.series.iter().filter_map(one).collect::<Vec<_>>().join("; "))
    }

    /// What the script reads; `<` cannot end the element.
    fn data(&self, left: f64, right: f64) -> String {
        let series: Vec<Value> = self
            .series
            .iter()
            .filter(|s| !s.points.is_empty())
            .map(|s| {
                let points = thin(&s.points).into_iter().map(|(x, y)| json!([x as u64, number_text(y)]));
                json!({ "name": s.name, "color": s.run % COLORS, "points": points.collect::<Vec<_>>() })
            })
            .collect();
        json!({ "x": [left, right], "label": self.x, "series": series }).to_string().replace('<', "\\u003c")
    }
}

/// The key to the lines of several runs.
pub fn legend(names: &[String]) -> String {
    let item = |(run, name): (usize, &String)| {
        let line = format!("<path d=\"M0 5H28\" fill=\"none\" stroke-width=\"2.5\" style=\"{}\"/>", stroke(run));
        format!("<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\">{line}</svg>{}</li>", escape(name))
    };
    format!("<ul class=\"legend\">{}</ul>\n", names.iter().enumerate().map(item).collect::<String>())
}

/// A small line without labels.
pub fn sparkline(points: &[(f64, f64)], description: &str) -> String {
    let points = thin(points);
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let span = |from: f64, to: f64| if to > from { to - from } else { 1.0 };
    let place =
        |p: &(f64, f64)| ((p.0 - first.0) / span(first.0, last.0) * SIDE, SIDE - (p.1 - low) / span(low, high) * SIDE);
    let path = path(&points.iter().map(place).collect::<Vec<_>>());
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\"><path d=\"{path}\"/></svg>",
        escape(description)
    )
}

fn stroke(run: usize) -> String {
    let dash = DASHES[run / 2 % DASHES.len()];
    let dash = if dash.is_empty() { String::new() } else { format!("; stroke-dasharray: {dash}") };
    format!("stroke: var(--r{}){dash}", run % COLORS)
}

fn path(points: &[(f64, f64)]) -> String {
    // A single point is drawn as a short line.
    let points: Vec<(f64, f64)> = match points {
        [(x, y)] => vec![(*x, *y), (x + SIDE / 50.0, *y)],
        more => more.to_vec(),
    };
    let command =
        |(index, (x, y)): (usize, &(f64, f64))| format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    points.iter().enumerate().map(command).collect()
}

/// Round numbers around and between `low` and `high`: the lowest is at most `low`, the highest at least `high`.
pub fn ticks(low: f64, high: f64) -> Vec<f64> {
    let range = if high > low { high - low } else { low.abs().max(1.0) };
    let rough = range / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|s| s * power >= rough).unwrap_or(10.0) * power;
    let (from, to) = ((low / step).floor(), (high / step).ceil());
    let to = if to > from { to } else { from + 1.0 };
    let count = (to - from).min(20.0) as usize;
    (0..=count).map(|i| without_noise((from + i as f64) * step)).collect()
}

/// Twelve significant digits: 0.3 for 3 · 0.1.
fn without_noise(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// At most four significant digits, without trailing zeros; very small and very large numbers with a power of ten.
pub fn number_text(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        return match text.split_once('e') {
            Some((digits, power)) => format!("{}e{power}", trimmed(digits)),
            None => text,
        };
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    trimmed(&format!("{value:.decimals$}")).to_string()
}

/// A whole number.
fn count_text(value: f64) -> String {
    format!("{value:.0}")
}

fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_range() {
        assert_eq!(ticks(0.3, 4.1), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(0.12, 0.31), [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]);
        assert_eq!(ticks(10.0, 4000.0), [0.0, 1000.0, 2000.0, 3000.0, 4000.0]);
        assert_eq!(ticks(2.0, 2.0), [2.0, 2.5]);
        assert_eq!(ticks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(ticks(2e-6, 1e-3), [0.0, 0.00025, 0.0005, 0.00075, 0.001]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [4.043558740615845, 0.1, 521.2345, 12_345.6, 2.7e-5, 0.0, -0.05, 1e7].map(number_text);
        assert_eq!(texts, ["4.044", "0.1", "521.2", "12346", "2.7e-5", "0", "-0.05", "1e7"]);
    }

    #[test]
    fn a_few_values_far_above_the_others_are_cut_and_named() {
        let mut points: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), 1.0 + f64::from(i % 2))).collect();
        points[0].1 = 45.3;
        let series = vec![Series { name: "a".into(), run: 0, points, mark: None }];
        let chart = Chart { title: "Loss".into(), remark: String::new(), x: "step", series, smoothed: true };
        let html = chart.html();
        assert!(html.contains("<small>values up to 45.3 are above the chart</small>"), "{html}");
        assert!(html.contains("<svg class=\"cut\""), "{html}");
        assert!(!Chart { smoothed: false, ..chart }.html().contains("above the chart"));
    }

    #[test]
    fn a_chart_draws_each_curve_and_says_it_in_words() {
        let series = |name: &str, run, points: &[(f64, f64)]| Series {
            name: name.into(),
            run,
            points: points.to_vec(),
            mark: None,
        };
        let chart = Chart {
            title: "Loss".into(),
            remark: String::new(),
            x: "step",
            series: vec![series("a</script>", 0, &[(0.0, 4.0), (10.0, 2.0)]), series("b", 1, &[(0.0, 0.0)])],
            smoothed: false,
        };
        let html = chart.html();
        assert!(html.contains("aria-label=\"Loss: a&lt;/script&gt; from 4 at step 0 to 2 at step 10; b from 0 at step 0 to 0 at step 0\""), "{html}");
        assert!(html.contains("d=\"M0.0 0.0L1000.0 500.0\""), "{html}");
        assert_eq!(html.matches("</script>").count(), 1, "{html}");
        assert_eq!(Chart { series: Vec::new(), ..chart }.html(), "");
    }
}
