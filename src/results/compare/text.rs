//! A comparison as Markdown, rounded, and as JSON in full precision.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::bootstrap::{RESAMPLES, SEED};
use super::{Comparison, ScoreRow, Test};
use crate::results::items::Item;
use crate::results::paper::Unit;
use crate::results::render::{escape_markdown, rounded, signed};
use crate::track::grouped;

/// What is tested, in words.
fn what_is_tested(item: Item) -> &'static str {
    match item {
        Item::Image => {
            "Tested are the means of the scores of each image. For CIDEr the document frequencies stay those of the whole \
             split; for BLEU, METEOR and the categories of SPICE the score of the set is not this mean, so that its difference above may be another."
        }
        Item::Question => {
            "Tested are the means of the accuracies of each question, of an answer type over its questions: the accuracies above, \
             as far as both runs answered the same questions."
        }
    }
}

/// How many items were drawn from, where all evaluations have as many; the scores of a part of them (an answer type) have fewer.
fn drawn_from(comparison: &Comparison) -> String {
    let mut most: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for test in &comparison.tests {
        let most = most.entry((test.run, &test.evaluation)).or_default();
        *most = (*most).max(test.items);
    }
    let counts: BTreeSet<usize> = most.into_values().collect();
    match counts.first() {
        Some(count) if counts.len() == 1 => format!("{} {}", grouped(*count), comparison.item.plural()),
        _ => comparison.item.plural().to_owned(),
    }
}

/// Markdown: the differing settings, the scores in points, the tests.
pub fn markdown(comparison: &Comparison) -> String {
    let runs = &comparison.runs;
    let mut out = format!("# {}\n\n## Settings that differ\n\n", escape_markdown(&runs.join(", ")));
    if comparison.settings.is_empty() {
        out.push_str("none\n");
    } else {
        let rows = comparison.settings.iter().map(|difference| {
            let values = difference.values.iter().map(|value| value.clone().unwrap_or_else(|| "-".into()));
            [difference.key.clone()].into_iter().chain(values).collect()
        });
        table(&mut out, &[&["Setting".to_string()], runs.as_slice()].concat(), 0, rows);
    }
    out.push_str("\n## Scores\n\n");
    if comparison.scores.is_empty() {
        out.push_str("none\n");
    } else {
        let gains = runs.iter().skip(1).map(|run| format!("{run} − {}", runs[0]));
        let headers =
            ["Checkpoint / split".into(), "Score".into()].into_iter().chain(runs.iter().cloned()).chain(gains);
        table(&mut out, &headers.collect::<Vec<_>>(), runs.len() * 2 - 1, comparison.scores.iter().map(score_cells));
    }
    if runs.len() > 1 {
        out.push_str("\n## Significance\n\n");
        if comparison.tests.is_empty() {
            out.push_str(&format!("no scores of each {} to compare\n", comparison.item.name()));
        } else {
            let draws = format!("{}, {} draws, seed {SEED}", drawn_from(comparison), grouped(RESAMPLES));
            out.push_str(&format!("Paired bootstrap over {draws}. {}\n\n", what_is_tested(comparison.item)));
            let headers = [
                "Run",
                "Checkpoint / split",
                "Score",
                if comparison.item == Item::Image { "Images" } else { "Questions" },
                "Mean, first run",
                "Mean",
                "Difference",
                "95 % interval",
                "p",
            ];
            let rows = comparison.tests.iter().map(|test| test_cells(test, runs));
            table(&mut out, &headers.map(String::from), 6, rows);
        }
    }
    for note in &comparison.notes {
        out.push_str(&format!("\n- {}", escape_markdown(note)));
    }
    if !comparison.notes.is_empty() {
        out.push('\n');
    }
    out
}

/// A table whose last `numbers` columns are numbers.
fn table(out: &mut String, headers: &[String], numbers: usize, rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let escaped = |cells: &[String]| cells.iter().map(|cell| escape_markdown(cell)).collect::<Vec<_>>();
    out.push_str(&line(escaped(headers)));
    let left = headers.len() - numbers;
    out.push_str(&format!("|{}{}\n", "---|".repeat(left), "--:|".repeat(numbers)));
    rows.for_each(|cells| out.push_str(&line(escaped(&cells))));
}

fn score_cells(row: &ScoreRow) -> Vec<String> {
    let first = row.values.first().copied().flatten();
    let value = |value: &Option<f64>| value.map_or_else(|| "-".into(), points);
    let gain = |value: &Option<f64>| value.zip(first).map_or_else(|| "-".into(), |(b, a)| signed_points(b - a));
    let values = row.values.iter().map(value);
    [row.evaluation.clone(), row.title.clone()]
        .into_iter()
        .chain(values)
        .chain(row.values.iter().skip(1).map(gain))
        .collect()
}

fn test_cells(test: &Test, runs: &[String]) -> Vec<String> {
    let result = &test.result;
    vec![
        runs[test.run].clone(),
        test.evaluation.clone(),
        test.title.clone(),
        grouped(test.items),
        points(test.means[0]),
        points(test.means[1]),
        signed_points(result.mean),
        format!("{} … {}", signed_points(result.low), signed_points(result.high)),
        p_text(result.p),
    ]
}

/// In points, one decimal.
pub fn points(value: f64) -> String {
    rounded(value * 100.0, Unit::Points)
}

/// In points, one decimal, with its sign.
pub fn signed_points(value: f64) -> String {
    signed(value * 100.0, Unit::Points)
}

/// Four decimals; `< 0.001` below that.
pub fn p_text(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// Everything in full precision, scores in unit fractions.
pub fn json(comparison: &Comparison) -> Value {
    let runs = &comparison.runs;
    let by_run =
        |values: Vec<Value>| -> Value { runs.iter().cloned().zip(values).collect::<serde_json::Map<_, _>>().into() };
    let settings = comparison.settings.iter().map(|difference| {
        let values = difference.values.iter().map(|value| json!(value)).collect();
        json!({ "key": difference.key, "values": by_run(values) })
    });
    let scores = comparison.scores.iter().map(|row| {
        let values = row.values.iter().map(|value| json!(value)).collect();
        json!({ "evaluation": row.evaluation, "metric": row.metric, "values": by_run(values) })
    });
    let tests = comparison.tests.iter().map(|test| {
        json!({
            "run": runs[test.run],
            "against": runs[0],
            "evaluation": test.evaluation,
            "metric": test.metric,
            comparison.item.plural(): test.items,
            "mean_against": test.means[0],
            "mean": test.means[1],
            "difference": test.result.mean,
            "low": test.result.low,
            "high": test.result.high,
            "p": test.result.p,
        })
    });
    json!({
        "runs": runs,
        "settings": settings.collect::<Vec<_>>(),
        "scores": scores.collect::<Vec<_>>(),
        "bootstrap": { "resamples": RESAMPLES, "seed": SEED, "of": format!("mean of the scores of each {}", comparison.item.name()) },
        "tests": tests.collect::<Vec<_>>(),
        "notes": comparison.notes,
    })
}
