//! The report on a sweep: its best trial, the value over each option, the value over the trials, parallel coordinates,
//! importance, and all trials in a table.
//!
//! Drawings follow `chart.rs`: SVG that stretches, with text beside it, complete without scripts.

use super::chart::{number_text, ticks};
use super::html::{self, Cell, escape, table};

/// An option that was searched over.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Its dotted key.
    pub option: String,
    /// Marks: place from 0 to 1, and text.
    pub ticks: Vec<(f64, String)>,
}

/// A trial of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialShown {
    /// Counted from 1.
    pub number: usize,
    /// Name of its experiment.
    pub name: String,
    /// `complete`, `pruned`, `failed` or `unfinished`.
    pub state: &'static str,
    /// Best value of all epochs.
    pub value: Option<f64>,
    /// Epoch and value.
    pub values: Vec<(u64, f64)>,
    /// For each axis: place from 0 to 1, and the value in words.
    pub options: Vec<Option<(f64, String)>>,
    /// Why it failed; may be empty.
    pub detail: String,
}

/// What a report on a sweep shows.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepPage {
    /// Name of the sweep.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Journal name of the metric.
    pub metric: String,
    /// Larger is better.
    pub maximize: bool,
    /// The options.
    pub axes: Vec<Axis>,
    /// The trials, the best first.
    pub trials: Vec<TrialShown>,
    /// Options and their share of the variance, the most important first.
    pub importance: Vec<(String, f64)>,
    /// Number of the best finished trial.
    pub best: Option<usize>,
    /// Where the best settings are written.
    pub best_file: String,
}

/// A point of a drawing: across from 0 to 1, value, colour of the style sheet, large, text for those who point at it.
struct Point {
    x: f64,
    y: f64,
    color: usize,
    large: bool,
    text: String,
}

/// Colours of the style sheet.
const FINISHED: usize = 0;
const STOPPED: usize = 7;
const BEST: usize = 1;

/// The report.
pub fn sweep(page: &SweepPage) -> String {
    let parts = [
        ("best", "Best settings", best(page)),
        ("options", "Value over each option", over_options(page)),
        ("trials", "Value over the trials", over_trials(page)),
        ("parallel", "Parallel coordinates", parallel(page)),
        ("importance", "Importance of the options", importance(page)),
        ("table", "All trials", all(page)),
    ];
    let navigation: Vec<(&str, &str)> =
        parts.iter().filter(|(_, _, content)| !content.is_empty()).map(|(id, title, _)| (*id, *title)).collect();
    let body: String = parts.iter().map(|(id, title, content)| html::section(id, title, content)).collect();
    let subtitle = match page.description.as_str() {
        "" => format!("Report on the sweep {}", page.name),
        description => format!("Report on the sweep {}: {description}", page.name),
    };
    html::page(&page.name, &subtitle, &navigation, &body)
}

fn best_trial(page: &SweepPage) -> Option<&TrialShown> {
    page.trials.iter().find(|trial| Some(trial.number) == page.best)
}

fn best(page: &SweepPage) -> String {
    let count = |state: &str| page.trials.iter().filter(|trial| trial.state == state).count();
    let states = ["complete", "pruned", "failed", "unfinished"].map(|state| (count(state), state));
    let states: Vec<String> =
        states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    let states = format!("<p class=\"soft\">{} trials: {}</p>\n", page.trials.len(), states.join(", "));
    let Some(trial) = best_trial(page) else { return states + "<p>No trial has come to its end.</p>\n" };
    let mut items = format!(
        "<div><dt>{}</dt><dd>{}</dd></div>",
        escape(&page.metric),
        trial.value.map_or_else(|| "-".into(), |value| escape(&value_text(value)))
    );
    for (axis, option) in page.axes.iter().zip(&trial.options) {
        let value = option.as_ref().map_or("-", |(_, text)| text.as_str());
        items.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(&axis.option), escape(value)));
    }
    format!(
        "<div class=\"card run\" style=\"--run: var(--r{BEST})\">\n<h3>{}</h3>\n<dl>{items}</dl>\n</div>\n\
         <p class=\"note below\">As an experiment file: <code>{}</code></p>\n{states}",
        escape(&trial.name),
        escape(&page.best_file)
    )
}

fn value_text(value: f64) -> String {
    format!("{value:.4}")
}

/// Colour, and whether it stands out.
fn look(page: &SweepPage, trial: &TrialShown) -> (usize, bool) {
    match trial.state {
        _ if Some(trial.number) == page.best => (BEST, true),
        "complete" => (FINISHED, false),
        _ => (STOPPED, false),
    }
}

fn point_text(page: &SweepPage, trial: &TrialShown, value: f64) -> String {
    let options = page.axes.iter().zip(&trial.options);
    let options = options.filter_map(|(axis, option)| Some(format!("{} {}", axis.option, option.as_ref()?.1)));
    let options: Vec<String> = options.collect();
    format!("trial {} ({}): {} {}; {}", trial.number, trial.state, page.metric, value_text(value), options.join(", "))
}

fn legend() -> String {
    let item = |color: usize, name: &str| format!("<li>{}{name}</li>", html::dot(color));
    format!(
        "<ul class=\"legend\">{}{}{}</ul>\n",
        item(BEST, "best"),
        item(FINISHED, "finished"),
        item(STOPPED, "stopped early")
    )
}

/// For each option, the values of all trials over it.
fn over_options(page: &SweepPage) -> String {
    let mut out = String::new();
    for (place, axis) in page.axes.iter().enumerate() {
        let points: Vec<Point> = page
            .trials
            .iter()
            .filter_map(|trial| {
                let ((x, _), y) = (trial.options.get(place)?.as_ref()?, trial.value?);
                let (color, large) = look(page, trial);
                Some(Point { x: *x, y, color, large, text: point_text(page, trial, y) })
            })
            .collect();
        let best =
            best_trial(page).and_then(|trial| Some(format!("; best at {}", trial.options.get(place)?.as_ref()?.1)));
        let title = format!("{} over {}", page.metric, axis.option);
        let remark = format!("{} trials{}", points.len(), best.unwrap_or_default());
        out.push_str(&drawing(&title, &remark, &axis.ticks, &points, &[], &axis.option));
    }
    if out.is_empty() { out } else { format!("{}<div class=\"charts\">\n{out}</div>\n", legend()) }
}

/// The values of the trials in their order, and the best so far.
fn over_trials(page: &SweepPage) -> String {
    let mut trials: Vec<&TrialShown> = page.trials.iter().collect();
    trials.sort_by_key(|trial| trial.number);
    let count = trials.len().max(2);
    let across = |number: usize| (number as f64 - 1.0) / (count as f64 - 1.0);
    let mut points = Vec::new();
    let mut line: Vec<(f64, f64)> = Vec::new();
    let mut so_far: Option<f64> = None;
    for trial in trials {
        let Some(value) = trial.value else { continue };
        let (color, large) = look(page, trial);
        let x = across(trial.number);
        points.push(Point { x, y: value, color, large, text: point_text(page, trial, value) });
        if trial.state == "complete" {
            let better = so_far.is_none_or(|best| if page.maximize { value > best } else { value < best });
            if let (true, Some(before)) = (better, so_far) {
                line.push((x, before));
            }
            so_far = if better { Some(value) } else { so_far };
        }
        line.extend(so_far.map(|best| (x, best)));
    }
    if points.is_empty() {
        return String::new();
    }
    let step = count.div_ceil(12);
    let marks: Vec<(f64, String)> =
        (1..=count).step_by(step).map(|number| (across(number), number.to_string())).collect();
    let figure = drawing(
        &format!("{} of each trial", page.metric),
        "the line is the best so far",
        &marks,
        &points,
        &line,
        "trial",
    );
    legend() + &figure
}

/// A figure with points over an axis from 0 to 1, and perhaps a line.
fn drawing(
    title: &str,
    remark: &str,
    marks: &[(f64, String)],
    points: &[Point],
    line: &[(f64, f64)],
    unit: &str,
) -> String {
    let values = || points.iter().map(|point| point.y);
    let (Some(low), Some(high)) = (values().min_by(f64::total_cmp), values().max_by(f64::total_cmp)) else {
        return String::new();
    };
    let levels = ticks(low, high);
    let (bottom, top) = (low.min(levels[0]), high.max(levels[levels.len() - 1]));
    let down = |y: f64| if top > bottom { 100.0 - (y - bottom) / (top - bottom) * 100.0 } else { 50.0 };
    let (mut svg, mut labels) = (String::new(), String::new());
    for level in &levels {
        let y = down(*level);
        svg.push_str(&format!("<line class=\"grid\" x1=\"0\" x2=\"1000\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>", y * 10.0));
        labels.push_str(&format!(
            "<span class=\"tick y\" style=\"top: {y:.1}%\">{}</span>",
            escape(&number_text(*level))
        ));
    }
    svg.push_str("<line class=\"axis\" x1=\"0\" x2=\"1000\" y1=\"1000\" y2=\"1000\"/>");
    for (x, text) in marks {
        labels.push_str(&format!("<span class=\"tick x\" style=\"left: {:.1}%\">{}</span>", x * 100.0, escape(text)));
    }
    labels.push_str(&format!("<span class=\"tick unit\">{}</span>", escape(unit)));
    if !line.is_empty() {
        let at: Vec<String> = line.iter().map(|(x, y)| format!("{:.1} {:.1}", x * 1000.0, down(*y) * 10.0)).collect();
        svg.push_str(&format!("<path class=\"line\" style=\"stroke: var(--r{BEST})\" d=\"M{}\"/>", at.join("L")));
    }
    for point in points {
        let class = if point.large { "mark large" } else { "mark" };
        labels.push_str(&format!(
            "<span class=\"{class}\" style=\"--run: var(--r{}); left: {:.1}%; top: {:.1}%\" title=\"{}\"></span>",
            point.color,
            point.x * 100.0,
            down(point.y),
            escape(&point.text)
        ));
    }
    let description: Vec<&str> = points.iter().map(|point| point.text.as_str()).collect();
    figure(title, remark, &description.join("; "), &svg, &labels)
}

fn figure(title: &str, remark: &str, description: &str, svg: &str, labels: &str) -> String {
    format!(
        "<figure>\n<figcaption>{}<small>{}</small></figcaption>\n<div class=\"plot\">\n\
         <svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{svg}</svg>\n\
         <div aria-hidden=\"true\">{labels}</div>\n</div>\n</figure>\n",
        escape(title),
        escape(remark),
        escape(description)
    )
}

/// One line per trial through its options and its value.
fn parallel(page: &SweepPage) -> String {
    let values: Vec<f64> = page.trials.iter().filter_map(|trial| trial.value).collect();
    let ends = (values.iter().copied().min_by(f64::total_cmp), values.iter().copied().max_by(f64::total_cmp));
    let (Some(low), Some(high)) = ends else { return String::new() };
    let up = |value: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    let columns = page.axes.len();
    let across = |column: usize| column as f64 / columns.max(1) as f64;
    let (mut svg, mut labels) = (String::new(), String::new());
    let metric = Axis { option: page.metric.clone(), ticks: vec![(0.0, value_text(low)), (1.0, value_text(high))] };
    for (column, axis) in page.axes.iter().chain([&metric]).enumerate() {
        let x = across(column);
        svg.push_str(&format!("<line class=\"axis\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"1000\"/>", x * 1000.0));
        let side = match column {
            0 => " first",
            _ if column == columns => " last",
            _ => "",
        };
        let name = escape(&axis.option);
        // Names take turns on two lines: they are longer than the columns of a phone.
        let line = if column % 2 == 1 { " low" } else { "" };
        labels.push_str(&format!("<span class=\"tick x{side}{line}\" style=\"left: {:.1}%\">{name}</span>", x * 100.0));
        for (y, text) in &axis.ticks {
            let (left, top) = (x * 100.0, 100.0 - y * 100.0);
            labels.push_str(&format!(
                "<span class=\"tick on{side}\" style=\"left: {left:.1}%; top: {top:.1}%\">{}</span>",
                escape(text)
            ));
        }
    }
    // The best comes last, above the others.
    let mut said = Vec::new();
    for trial in page.trials.iter().rev() {
        let Some(value) = trial.value else { continue };
        let (color, best) = look(page, trial);
        let places =
            trial.options.iter().map(|option| option.as_ref().map(|(place, _)| *place)).chain([Some(up(value))]);
        let Some(places) = places.collect::<Option<Vec<f64>>>() else { continue };
        let points: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(column, y)| format!("{:.1} {:.1}", across(column) * 1000.0, 1000.0 - y * 1000.0))
            .collect();
        // Better trials are drawn more strongly.
        let strength = if page.maximize { up(value) } else { 1.0 - up(value) };
        let (width, opacity) = if best { (3.5, 1.0) } else { (1.6, 0.3 + 0.6 * strength) };
        let text = point_text(page, trial, value);
        svg.push_str(&format!(
            "<path class=\"line\" style=\"stroke: var(--r{color}); stroke-width: {width}; opacity: {opacity:.2}\" d=\"M{}\"><title>{}</title></path>",
            points.join("L"),
            escape(&text)
        ));
        said.push(text);
    }
    let figure = figure(
        "Options and value of each trial",
        "better trials are drawn more strongly",
        &said.join("; "),
        &svg,
        &labels,
    );
    format!("{}<div class=\"parallel\">\n{figure}</div>\n", legend())
}

fn importance(page: &SweepPage) -> String {
    let text = "Share of the variance of the value that the option explains alone (fANOVA over a random forest, Hutter et al. 2014). \
                Trials that were stopped early count with the best value that they reached.";
    if page.importance.is_empty() {
        return "<p class=\"soft\">Told once four trials have different values.</p>\n".into();
    }
    let bar = |(option, share): &(String, f64)| {
        format!(
            "<div class=\"bar\"><code>{}</code><div><i style=\"width: {:.1}%\"></i></div><b>{:.0} %</b></div>\n",
            escape(option),
            share.clamp(0.0, 1.0) * 100.0,
            share * 100.0
        )
    };
    let bars: String = page.importance.iter().map(bar).collect();
    format!("<p class=\"note\">{text}</p>\n<div class=\"bars\">\n{bars}</div>\n")
}

fn all(page: &SweepPage) -> String {
    let mut columns = vec![
        ("Trial".to_owned(), false),
        ("State".to_owned(), false),
        (escape(&page.metric), true),
        ("Epochs".to_owned(), true),
    ];
    columns.extend(page.axes.iter().map(|axis| (format!("<code>{}</code>", escape(&axis.option)), true)));
    let labels: Vec<&str> = ["Trial", "State", &page.metric, "Epochs"]
        .into_iter()
        .chain(page.axes.iter().map(|axis| axis.option.as_str()))
        .collect();
    let row = |trial: &TrialShown| {
        let state = match trial.state {
            "complete" => "<span class=\"pill good\">complete</span>".to_owned(),
            "failed" => format!("<span class=\"pill bad\">failed</span> {}", escape(&trial.detail)),
            other => format!("<span class=\"pill\">{other}</span>"),
        };
        let mut cells = vec![
            Cell::text(&trial.name),
            Cell { html: state, class: "" },
            Cell::number(&trial.value.map_or_else(|| "-".into(), value_text)),
            Cell::number(&trial.values.last().map_or(0, |(epoch, _)| *epoch).to_string()),
        ];
        cells.extend(trial.options.iter().map(|option| Cell::number(option.as_ref().map_or("-", |(_, text)| text))));
        if Some(trial.number) == page.best {
            cells[0].class = "best";
        }
        cells
    };
    table("Trials", &columns, &page.trials.iter().map(row).collect::<Vec<_>>(), Some(&labels))
}
