//! An index of runs: one page, a line per run, with a link to each report.

use super::curves::{smooth, smoothing};
use super::html::{Cell, Column, escape, page, section, table};
use super::{Reported, chart, sections};
use crate::results::compare::run_name;
use crate::results::compare::text::points;
use crate::track::selection_metric;

/// A run in the index.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A run that can be read, and the address of its report relative to the index; none without a report.
    Run(Box<Reported>, Option<String>),
    /// Name of a run that cannot be read, and why.
    Unreadable(String, String),
}

/// The index of `runs`, in the order given. `folder` names where they are.
pub fn index(folder: &str, runs: &[Listed]) -> String {
    const HEADERS: [&str; 8] = ["Run", "State", "Epoch", "Best", "Validation", "Loss", "Training loss", "Last entry"];
    let columns: Vec<Column> = HEADERS.iter().map(|h| (h.to_string(), ["Epoch", "Loss"].contains(h))).collect();
    let rows: Vec<Vec<Cell>> = runs.iter().map(row).collect();
    let content = match rows.is_empty() {
        true => "<p>No run yet. <code>vlp run FILE</code> makes the first.</p>\n".to_string(),
        false => table("Runs", &columns, &rows, Some(&HEADERS)),
    };
    let count = if runs.len() == 1 { "1 run".to_string() } else { format!("{} runs", runs.len()) };
    page("Runs", &format!("{count} in {folder}, the newest first"), &[], &section("all", "All runs", &content))
}

fn row(listed: &Listed) -> Vec<Cell> {
    let html = |html: String| Cell { html, class: "" };
    match listed {
        Listed::Unreadable(name, reason) => {
            let reason = reason.lines().next().unwrap_or_default();
            vec![
                Cell::text(name),
                html("<span class=\"pill bad\">unreadable</span>".into()),
                Cell::default(),
                Cell::text(reason),
            ]
        }
        Listed::Run(reported, report) => {
            let (record, name) = (&reported.record, run_name(&reported.record));
            let settings = &record.lock.settings;
            let link = match report {
                Some(address) => format!(
                    "<a href=\"{}\">{}</a>",
                    escape(&address.replace('%', "%25").replace('#', "%23").replace('?', "%3F")),
                    escape(&name)
                ),
                None => escape(&name),
            };
            let metric = selection_metric(settings).unwrap_or_default();
            let validation =
                reported.curves.validation.get(&metric).map(|curve| curve.points.as_slice()).unwrap_or_default();
            let loss = reported
                .curves
                .training
                .get("train/loss")
                .map(|c| smooth(&c.points, smoothing(c.points.len())))
                .unwrap_or_default();
            let ends = |points: &[(f64, f64)], text: fn(f64) -> String| match points {
                [first, .., last] => format!("from {} to {}", text(first.1), text(last.1)),
                _ => "one value".into(),
            };
            let loss_text = format!("smoothed training loss {}", ends(&loss, |v| format!("{v:.3}")));
            let validation_text = format!("{metric} {}", ends(validation, points));
            vec![
                html(link),
                html(sections::condition(record.condition)),
                Cell::number(&format!("{}/{}", record.last_epoch.unwrap_or(0), settings.train.epochs)),
                Cell::text(&sections::best(record).unwrap_or_default()),
                html(chart::sparkline(validation, &validation_text)),
                Cell::number(&record.last_loss.map(|loss| format!("{loss:.3}")).unwrap_or_default()),
                html(chart::sparkline(&loss, &loss_text)),
                Cell::text(
                    &record.last_entry.map(|t| t.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default(),
                ),
            ]
        }
    }
}
