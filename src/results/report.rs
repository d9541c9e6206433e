//! Reports: one HTML file that shows runs to a person: state, scores against the paper, curves, samples, lineage, settings,
//! facts. It needs no network and no script; a small script shows the values under the pointer.
//!
//! A report is computed from run folders alone and again at any time; the same folders give the same bytes. What people said
//! about the images is handed in, since annotation files are not read here.

mod chart;
mod curves;
mod html;
mod index;
mod samples;
mod sections;
mod sweep;

use std::path::Path;

use super::compare::{differences, run_name, score_rows};
use super::items::{self, Item};
use super::table::{self, Cell};
use crate::config;
use crate::track::{Entry, LOSS, Lock, RunDir, RunRecord, TrackError, What, read, selection_metric};

use chart::{Chart, Series};
use curves::Curves;
use samples::Said;

pub use index::{Listed, index};
pub use samples::{Reference, References, Source, source};
pub use sweep::{Axis, SweepPage, TrialShown, sweep};

/// Validation curves that are drawn beside those that select; the values of all are in the table below them.
const OTHER_CHARTS: usize = 6;

/// Training curves in the order in which they are drawn: name in the journal, title, factor of the values.
const TRAINING: [(&str, &str, f64); 8] = [
    (LOSS, "Training loss", 1.0),
    ("train/reward", "Reward (sampled − greedy)", 1.0),
    ("train/sampled_cider", "CIDEr of samples, points", 100.0),
    ("train/greedy_cider", "CIDEr of greedy captions, points", 100.0),
    ("train/learning_rate", "Learning rate", 1.0),
    ("train/gradient_norm", "Gradient norm", 1.0),
    ("train/samples_per_s", "Samples per second", 1.0),
    ("train/data_wait", "Waiting for data, %", 100.0),
];

/// Warnings of a journal that are shown, the newest.
const WARNINGS: usize = 20;

/// A run with everything that a report shows of it.
#[derive(Debug, Clone)]
pub struct Reported {
    record: RunRecord,
    entries: Vec<Entry>,
    curves: Curves,
    ancestors: Vec<Ancestor>,
}

/// What a run descends from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ancestor {
    name: String,
    lines: Vec<String>,
}

impl Reported {
    /// Reads a run, and what can be read of its ancestors.
    pub fn read(run: &RunDir) -> Result<Self, TrackError> {
        let record = RunRecord::read(run)?;
        let entries = read(&run.journal_file())?;
        Ok(Self { curves: Curves::of(&entries), ancestors: ancestors(&record.lock), record, entries })
    }

    /// The record.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }
}

/// The ancestors of a run, the oldest first. Each is read from the folder of its checkpoint, while it is there.
fn ancestors(lock: &Lock) -> Vec<Ancestor> {
    /// Longer chains are no longer lineages but mistakes.
    const LONGEST: usize = 32;
    let mut found = Vec::new();
    let mut next = lock.parent.clone();
    while let Some(parent) = next.take().filter(|_| found.len() < LONGEST) {
        let record =
            parent.checkpoint.ancestors().find_map(|f| RunDir::open(f).ok()).and_then(|r| RunRecord::read(&r).ok());
        let checkpoint = parent.checkpoint.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let hash = format!("sha256 {}", super::compare::short(&parent.sha256));
        found.push(match parent.experiment.is_empty() {
            true => Ancestor { name: parent.checkpoint.display().to_string(), lines: vec![hash] },
            false => {
                let best = record.as_ref().and_then(sections::best);
                let lines = [Some(checkpoint.into_owned()), best, Some(hash)].into_iter().flatten().collect();
                Ancestor { name: format!("{}/{}", parent.experiment, parent.run), lines }
            }
        });
        match record {
            Some(record) if record.lock.parent.is_some() => next = record.lock.parent,
            Some(_) => found.push(Ancestor { name: "random weights".into(), lines: Vec::new() }),
            None => {}
        }
    }
    if lock.parent.is_none() {
        found.push(Ancestor { name: "random weights".into(), lines: Vec::new() });
    }
    found.reverse();
    found
}

/// The report on `runs`. `references`: what people said, for the predictions of each run that [`source`] names. `others` are
/// further finished runs, with which rows of tables compare.
pub fn report(runs: &[Reported], references: &[References], others: &[RunRecord]) -> Result<String, TrackError> {
    let records: Vec<&RunRecord> = runs.iter().map(|run| &run.record).collect();
    let locks: Vec<&Lock> = records.iter().map(|record| &record.lock).collect();
    let names = names(&records);
    let several = runs.len() > 1;
    let samples = samples(runs, references, &names)?;
    let settings = if several { sections::differences(&differences(&locks), &names) } else { String::new() };
    let paper = sections::paper(&paper_cells(&records, others), &names);
    let all_scores = sections::scores(&score_rows(&records), &names);
    let all_scores = match (paper.is_empty(), all_scores.is_empty()) {
        (false, false) => format!("<details><summary>All scores</summary>\n{all_scores}</details>\n"),
        _ => all_scores,
    };
    let parts = [
        ("runs", if several { "Runs" } else { "Run" }, sections::runs(runs, &names) + &warnings(runs, &names)),
        ("scores", "Scores against the paper", paper + &all_scores),
        ("curves", "Curves", curves_html(runs, &names)),
        ("samples", "Samples", samples),
        ("lineage", "Lineage", sections::lineage(runs, &names)),
        (
            "settings",
            if several { "Settings that differ" } else { "Settings" },
            settings + &full_settings(&locks, &names),
        ),
        ("system", "System", sections::facts(runs, &names)),
    ];
    let navigation: Vec<(&str, &str)> =
        parts.iter().filter(|(_, _, content)| !content.is_empty()).map(|(id, title, _)| (*id, *title)).collect();
    let body: String = parts.iter().map(|(id, title, content)| html::section(id, title, content)).collect();
    let title = match names.as_slice() {
        [one] => one.clone(),
        several => several.join(" · "),
    };
    let subtitle = match records.as_slice() {
        [one] => format!("Report on the run {}", run_name(one)),
        several => format!("Report on {} runs", several.len()),
    };
    Ok(html::page(&title, &subtitle, &navigation, &body))
}

/// Short names: the experiment, and the run id where that is not enough.
fn names(records: &[&RunRecord]) -> Vec<String> {
    let experiment = |record: &RunRecord| record.lock.settings.experiment.name.clone();
    let count = |name: &str| records.iter().filter(|record| experiment(record) == name).count();
    let name = |record: &&RunRecord| match experiment(record) {
        name if count(&name) == 1 => name,
        _ => run_name(record),
    };
    records.iter().map(name).collect()
}

/// The cells of each run's own rows.
fn paper_cells(records: &[&RunRecord], others: &[RunRecord]) -> Vec<(usize, Cell)> {
    let mut cells = Vec::new();
    for (run, record) in records.iter().enumerate() {
        let name = &record.lock.settings.experiment.name;
        let foreign =
            records.iter().copied().chain(others).filter(|other| other.lock.settings.experiment.name != *name);
        let known: Vec<RunRecord> = [*record].into_iter().chain(foreign).cloned().collect();
        let tables = table::tables(std::slice::from_ref(&record.lock.settings), &known);
        let own = tables.into_iter().flat_map(|table| table.cells).filter(|cell| cell.experiment == *name);
        cells.extend(own.map(|cell| (run, cell)));
    }
    cells
}

fn samples(runs: &[Reported], references: &[References], names: &[String]) -> Result<String, TrackError> {
    let mut said = Vec::new();
    for (run, ((one, references), name)) in runs.iter().zip(references).zip(names).enumerate() {
        let Some(source) = source(&one.record) else { continue };
        let settings = &one.record.lock.settings;
        let mut scores = items::ItemScores::default();
        // Of answers, how many people gave them says the same.
        let shown = Item::of(settings.data.dataset) == Item::Image;
        for checkpoint in settings.evaluate.checkpoints.iter().filter(|_| shown) {
            if items::predictions_file(&one.record, *checkpoint, &source.split).as_ref() == Some(&source.file) {
                scores = items::load(&one.record, *checkpoint, &source.split)?.unwrap_or_default();
            }
        }
        let predictions = samples::predictions(&source.file)?;
        said.push(Said { run, name, source, dataset: settings.data.dataset, predictions, scores, references });
    }
    let shown = samples::html(&said);
    Ok(if runs.len() > 1 && !shown.is_empty() { samples::key(names) + &shown } else { shown })
}

fn curves_html(runs: &[Reported], names: &[String]) -> String {
    let mut out = if runs.len() > 1 { chart::legend(names) } else { String::new() };
    let empty = out.len();
    let mut selections: Vec<String> = runs.iter().filter_map(|r| selection_metric(&r.record.lock.settings)).collect();
    selections.sort();
    selections.dedup();
    let mut others = all_names(runs, |curves| curves.validation.keys());
    others.retain(|name| is_shown(name) && !selections.contains(name));
    let metric = |name: &str| name.split_once('/').map_or(name, |(_, metric)| metric).to_string();
    others.sort_by_key(|name| (super::paper::order(&metric(name)).1, name.clone()));
    others.truncate(OTHER_CHARTS);
    let validation =
        |charts: &[String]| charts.iter().map(|name| validation_chart(runs, names, name)).collect::<String>();
    let large = loss_charts(runs, names) + &validation(&selections);
    if !large.is_empty() {
        out.push_str(&format!("<div class=\"charts\">\n{large}</div>\n"));
    }
    if !others.is_empty() {
        let charts = validation(&others);
        out.push_str(&format!("<h3>Other validation scores</h3>\n<div class=\"charts small\">\n{charts}</div>\n"));
    }
    let mut training = all_names(runs, |curves| curves.training.keys());
    training.retain(|name| name != LOSS);
    training.sort_by_key(|name| TRAINING.iter().position(|(known, _, _)| known == name).unwrap_or(TRAINING.len()));
    if !training.is_empty() {
        let all: Vec<usize> = (0..runs.len()).collect();
        let charts: String = training.iter().map(|name| training_chart(runs, names, &all, name, "")).collect();
        out.push_str(&format!("<h3>Training</h3>\n<div class=\"charts small\">\n{charts}</div>\n"));
    }
    if out.len() == empty { String::new() } else { out + &validation_table(runs, names) }
}

/// Scores of both evaluators, and of the majority answer, are not drawn: they would hide those that are looked for.
fn is_shown(name: &str) -> bool {
    let metric = name.split_once('/').map_or(name, |(_, metric)| metric);
    !metric.starts_with("majority_") && !metric.ends_with("_official") && !metric.ends_with("_legacy")
}

fn all_names<'a, N: Iterator<Item = &'a String>>(runs: &'a [Reported], of: fn(&'a Curves) -> N) -> Vec<String> {
    let mut names: Vec<String> = runs.iter().flat_map(|run| of(&run.curves)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// One chart of the loss for each objective: losses of different objectives are different quantities.
fn loss_charts(runs: &[Reported], names: &[String]) -> String {
    let objective = |run: &Reported| {
        let kind = serde_json::to_value(run.record.lock.settings.objective.kind).ok();
        kind.and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut kinds: Vec<(String, Vec<usize>)> = Vec::new();
    for (run, kind) in runs.iter().map(objective).enumerate() {
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, members)) => members.push(run),
            None => kinds.push((kind, vec![run])),
        }
    }
    let suffix = |kind: &str| if kinds.len() > 1 { format!(", {kind}") } else { String::new() };
    kinds.iter().map(|(kind, members)| training_chart(runs, names, members, LOSS, &suffix(kind))).collect()
}

fn training_chart(runs: &[Reported], names: &[String], members: &[usize], name: &str, suffix: &str) -> String {
    let known = TRAINING.iter().find(|(known, _, _)| *known == name);
    let (_, title, factor) = known.copied().unwrap_or((name, name, 1.0));
    let mut not_finite = 0;
    let one = |run: &usize| {
        let curve = runs[*run].curves.training.get(name)?;
        not_finite += curve.not_finite;
        let points = curve.points.iter().map(|(x, y)| (*x, y * factor)).collect();
        Some(Series { name: names[*run].clone(), run: *run, points, mark: None })
    };
    let series: Vec<Series> = members.iter().filter_map(one).collect();
    // A schedule has no noise.
    let smoothed = name != "train/learning_rate" && series.iter().any(|s| curves::smoothing(s.points.len()) > 0.0);
    let mut remarks = Vec::new();
    if smoothed {
        remarks.push("smoothed; pale: as measured".to_string());
    }
    if not_finite > 0 {
        remarks.push(format!("without {not_finite} values that are not finite"));
    }
    Chart { title: format!("{title}{suffix}"), remark: remarks.join("; "), x: "step", series, smoothed }.html()
}

fn validation_chart(runs: &[Reported], names: &[String], name: &str) -> String {
    let (split, metric) = name.split_once('/').unwrap_or(("", name));
    let evaluator = runs.first().map(|run| run.record.lock.settings.metrics.vqa).unwrap_or_default();
    let one = |(run, (one, name_of)): (usize, (&Reported, &String))| {
        let curve = one.curves.validation.get(name)?;
        let points: Vec<(f64, f64)> = curve.points.iter().map(|(x, y)| (*x, y * 100.0)).collect();
        let selects = selection_metric(&one.record.lock.settings).as_deref() == Some(name);
        let best = one.record.best_epoch.filter(|_| selects);
        let mark = best.and_then(|epoch| points.iter().find(|point| point.0 == epoch as f64).copied());
        Some(Series { name: name_of.clone(), run, points, mark })
    };
    let series: Vec<Series> = runs.iter().zip(names).enumerate().filter_map(one).collect();
    let remark = if series.iter().any(|s| s.mark.is_some()) { "points; the dot is the best epoch" } else { "points" };
    let title = format!("{} on {split}", super::paper::score_title(metric, evaluator));
    Chart { title, remark: remark.into(), x: "epoch", series, smoothed: false }.html()
}

/// The values behind the validation curves.
fn validation_table(runs: &[Reported], names: &[String]) -> String {
    let mut out = String::new();
    for (run, (one, name)) in runs.iter().zip(names).enumerate() {
        let curves: Vec<_> = one.curves.validation.iter().filter(|(name, _)| is_shown(name)).collect();
        let mut epochs: Vec<u64> = curves.iter().flat_map(|(_, c)| &c.points).map(|point| point.0 as u64).collect();
        epochs.sort_unstable();
        epochs.dedup();
        if epochs.is_empty() {
            continue;
        }
        let mut columns = vec![("Epoch".to_string(), false)];
        columns.extend(curves.iter().map(|(name, _)| (html::escape(name), true)));
        let row = |epoch: &u64| {
            let value = |curve: &curves::Curve| curve.points.iter().find(|p| p.0 as u64 == *epoch).map(|p| p.1);
            let text = |curve| value(curve).map_or_else(|| "-".into(), super::compare::text::points);
            let mut row = vec![html::Cell::text(&epoch.to_string())];
            row.extend(curves.iter().map(|(_, curve)| html::Cell::number(&text(curve))));
            row
        };
        let rows: Vec<Vec<html::Cell>> = epochs.iter().map(row).collect();
        let table = html::table(&format!("Validation scores of {name}"), &columns, &rows, None);
        out.push_str(&format!("<h3>{}</h3>\n{table}", html::run_label(name, run)));
    }
    if out.is_empty() {
        out
    } else {
        format!("<details><summary>Validation scores as numbers</summary>\n{out}</details>\n")
    }
}

fn full_settings(locks: &[&Lock], names: &[String]) -> String {
    let one = |(lock, name): (&&Lock, &String)| {
        let text = html::escape(&config::to_toml(&lock.settings));
        let name = html::escape(name);
        format!("<details><summary>All settings of {name}</summary>\n<pre tabindex=\"0\">{text}</pre></details>\n")
    };
    locks.iter().zip(names).map(one).collect()
}

fn warnings(runs: &[Reported], names: &[String]) -> String {
    let one = |(run, name): (&Reported, &String)| {
        let message = |entry: &Entry| match &entry.what {
            What::Warning { message } => Some(format!("{}  {message}", entry.time.strftime("%Y-%m-%d %H:%M:%S"))),
            _ => None,
        };
        let found: Vec<String> = run.entries.iter().filter_map(message).collect();
        if found.is_empty() {
            return String::new();
        }
        let shown: String =
            found.iter().rev().take(WARNINGS).map(|text| format!("<li>{}</li>", html::escape(text))).collect();
        let count = if found.len() == 1 { "1 warning".to_string() } else { format!("{} warnings", found.len()) };
        format!(
            "<details><summary>{count} in the journal of {}</summary>\n<ul>{shown}</ul></details>\n",
            html::escape(name)
        )
    };
    runs.iter().zip(names).map(one).collect()
}
