//! The parts of a report that are tables: runs, scores, differing settings, lineage, facts.

use super::chart::number_text;
use super::html::{Cell, Column, escape, run_label, table};
use super::{Ancestor, Reported};
use crate::results::compare::text::points;
use crate::results::compare::{Difference, ScoreRow, initial_weights, program};
use crate::results::render::{self, texts};
use crate::results::table::{Cell as TableCell, Verdict};
use crate::track::{Condition, RunRecord, duration_text, selection_metric};

/// A run's state as a coloured word.
pub fn condition(condition: Condition) -> String {
    let class = match condition {
        Condition::Finished => "good",
        Condition::Failed | Condition::Died => "bad",
        Condition::Created | Condition::Running | Condition::Interrupted => "warn",
    };
    format!("<span class=\"pill {class}\">{condition}</span>")
}

/// The best selection score in words: `val/cider 52.1 (epoch 16)`.
pub fn best(record: &RunRecord) -> Option<String> {
    let (score, epoch) = record.best_score.zip(record.best_epoch)?;
    let metric = selection_metric(&record.lock.settings).unwrap_or_default();
    Some(format!("{metric} {} (epoch {epoch})", points(score)))
}

/// One card per run.
pub fn runs(reported: &[Reported], names: &[String]) -> String {
    let one = |(run, (one, name)): (usize, (&Reported, &String))| {
        let (record, settings) = (&one.record, &one.record.lock.settings);
        let mut facts: Vec<(String, String)> = vec![
            ("Epoch".into(), format!("{} / {}", record.last_epoch.unwrap_or(0), settings.train.epochs)),
            ("Loss".into(), record.last_loss.map_or_else(|| "-".into(), |loss| format!("{loss:.3}"))),
        ];
        if let Some((score, epoch)) = record.best_score.zip(record.best_epoch) {
            let metric = selection_metric(settings).unwrap_or_default();
            facts.insert(1, (format!("Best {metric}"), format!("{} (epoch {epoch})", points(score))));
        }
        if let Some(seconds) = record.epoch_seconds {
            facts.push(("Per epoch".into(), duration_of(seconds)));
        }
        if let (Some(first), Some(last)) = (one.entries.first(), one.entries.last()) {
            facts.push((
                "First to last entry".into(),
                duration_text(last.time.duration_since(first.time).unsigned_abs()),
            ));
            facts.push(("Last entry".into(), last.time.strftime("%Y-%m-%d %H:%M UTC").to_string()));
        }
        let facts: String = facts
            .iter()
            .map(|(key, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(key), escape(value)))
            .collect();
        let description = match settings.experiment.description.as_str() {
            "" => String::new(),
            text => format!("<div class=\"soft\">{}</div>", escape(text)),
        };
        let at_rest = matches!(record.condition, Condition::Finished | Condition::Running) || record.detail.is_empty();
        let detail = if at_rest { String::new() } else { format!("<p class=\"soft\">{}</p>", escape(&record.detail)) };
        format!(
            "<article class=\"card run\" style=\"--run: var(--r{})\">\n<h3>{}</h3>\n{description}{} {detail}<dl>{facts}</dl>\n</article>\n",
            run % super::html::COLORS,
            escape(name),
            condition(record.condition),
        )
    };
    let cards: String = reported.iter().zip(names).enumerate().map(one).collect();
    format!("<div class=\"cards\">\n{cards}</div>\n")
}

/// Published beside measured values.
pub fn paper(cells: &[(usize, TableCell)], names: &[String]) -> String {
    if cells.is_empty() {
        return String::new();
    }
    let several = names.len() > 1;
    let mut headers: Vec<&str> = render::HEADERS.to_vec();
    if several {
        headers.insert(1, "Run");
    }
    let numbers = ["Paper", "Measured", "Difference", "Tolerance"];
    let columns: Vec<Column> = headers.iter().map(|h| (escape(h), numbers.contains(h))).collect();
    let row = |(run, cell): &(usize, TableCell)| {
        let mut row: Vec<Cell> = texts(cell)
            .iter()
            .zip(render::HEADERS)
            .map(|(text, header)| match header {
                "Verdict" => Cell { html: verdict(cell.verdict), class: "" },
                header if numbers.contains(&header) => Cell::number(text),
                _ => Cell::text(text),
            })
            .collect();
        if several {
            row.insert(1, Cell { html: run_label(&names[*run], *run), class: "" });
        }
        row
    };
    let rows: Vec<Vec<Cell>> = cells.iter().map(row).collect();
    let mut sources: Vec<&str> = cells.iter().map(|(_, cell)| cell.source.as_str()).filter(|s| !s.is_empty()).collect();
    sources.dedup();
    let sources = match sources.as_slice() {
        [] => String::new(),
        sources => format!("<p class=\"soft\">Reported in: {}.</p>\n", escape(&sources.join("; "))),
    };
    table("Scores against the paper", &columns, &rows, Some(&headers)) + &sources
}

fn verdict(verdict: Verdict) -> String {
    let class = match verdict {
        Verdict::Reproduced | Verdict::AsReported => "good",
        Verdict::OutsideTolerance => "bad",
        Verdict::Differs | Verdict::SubmissionReady => "warn",
        Verdict::Measured | Verdict::NotRun | Verdict::NotAvailable => "none",
    };
    format!("<span class=\"pill {class}\">{verdict}</span>")
}

/// All measured scores, in points; the best of several runs is bold.
pub fn scores(rows: &[ScoreRow], names: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut columns: Vec<Column> = vec![("Score".into(), false), ("Checkpoint / split".into(), false)];
    columns.extend(names.iter().enumerate().map(|(run, name)| (run_label(name, run), true)));
    let row = |row: &ScoreRow| {
        let highest = row.values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let known = row.values.iter().flatten().count();
        let value = |value: &Option<f64>| match value {
            Some(value) if known > 1 && *value == highest => {
                Cell { html: format!("<strong>{}</strong>", escape(&points(*value))), class: "n" }
            }
            Some(value) => Cell::number(&points(*value)),
            None => Cell::number("-"),
        };
        [Cell::text(&row.title), Cell::text(&row.evaluation)].into_iter().chain(row.values.iter().map(value)).collect()
    };
    let rows: Vec<Vec<Cell>> = rows.iter().map(row).collect();
    table("All scores, in points", &columns, &rows, None)
}

/// The settings in which the runs differ.
pub fn differences(differences: &[Difference], names: &[String]) -> String {
    if differences.is_empty() {
        return "<p>The runs differ in no setting.</p>\n".into();
    }
    let mut columns: Vec<Column> = vec![("Setting".into(), false)];
    columns.extend(names.iter().enumerate().map(|(run, name)| (run_label(name, run), false)));
    let row = |difference: &Difference| {
        let key = Cell { html: format!("<code>{}</code>", escape(&difference.key)), class: "key" };
        let values = difference.values.iter().map(|value| Cell::value(value.as_deref().unwrap_or("-")));
        [key].into_iter().chain(values).collect()
    };
    let rows: Vec<Vec<Cell>> = differences.iter().map(row).collect();
    table("Settings that differ", &columns, &rows, None)
}

/// What each run started from, the oldest ancestor first.
pub fn lineage(reported: &[Reported], names: &[String]) -> String {
    let ancestor = |ancestor: &Ancestor| {
        let lines: String =
            ancestor.lines.iter().map(|line| format!("<div class=\"soft\">{}</div>", escape(line))).collect();
        format!("<li><div class=\"card\"><strong>{}</strong>{lines}</div></li>", escape(&ancestor.name))
    };
    let one = |(run, (one, name)): (usize, (&Reported, &String))| {
        let own = format!("<div class=\"soft\">{}</div>", escape(&best(&one.record).unwrap_or_default()));
        let own = format!("<li><div class=\"card\"><strong>{}</strong>{own}</div></li>", run_label(name, run));
        let ancestors: String = one.ancestors.iter().map(ancestor).collect();
        format!("<ol class=\"chain\">{ancestors}{own}</ol>\n")
    };
    reported.iter().zip(names).enumerate().map(one).collect()
}

/// What the lock records about program, machine and data, and how fast the run was.
pub fn facts(reported: &[Reported], names: &[String]) -> String {
    let mut columns: Vec<Column> = vec![("Fact".into(), false)];
    columns.extend(names.iter().enumerate().map(|(run, name)| (run_label(name, run), false)));
    let median = |one: &Reported, name: &str| {
        let curve = one.curves.training.get(name)?;
        let mut values: Vec<f64> = curve.points.iter().map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    type Fact<'a> = (&'a str, &'a dyn Fn(&Reported) -> String);
    let facts: [Fact; 13] = [
        ("Experiment file", &|r| r.record.lock.file.clone()),
        ("Run folder", &|r| r.record.run.path().display().to_string()),
        ("Created", &|r| r.record.lock.created.clone()),
        ("Program", &|r| program(&r.record.lock)),
        ("Host", &|r| r.record.lock.host.clone()),
        ("Device", &|r| r.record.lock.device.clone()),
        ("Processes", &|r| r.record.lock.world_size.to_string()),
        ("Seed", &|r| r.record.lock.seed.to_string()),
        ("Samples per second (median)", &|r| median(r, "train/samples_per_s").map_or_else(|| "-".into(), number_text)),
        ("Waiting for data (median)", &|r| {
            median(r, "train/data_wait").map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
        }),
        ("Initial weights", &|r| initial_weights(&r.record.lock)),
        ("Data (SHA-256)", &|r| r.record.lock.data_fingerprint.clone()),
        ("Settings (SHA-256)", &|r| r.record.lock.settings_hash.clone()),
    ];
    let row = |(name, of): &Fact| {
        [Cell::text(name)].into_iter().chain(reported.iter().map(|one| Cell::value(&of(one)))).collect()
    };
    table("Program, machine and data", &columns, &facts.iter().map(row).collect::<Vec<Vec<Cell>>>(), None)
}

fn duration_of(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    duration_text(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}
