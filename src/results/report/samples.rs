//! What the runs said: captions and answers of a few images, beside each other and beside what people said.
//!
//! Which images are shown is decided by their place in the predictions file and by their scores, never by chance, so that
//! two reports show the same ones. References are handed in: nothing is known here of annotation files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::html::{dot, escape, run_label};
use crate::config::Dataset;
use crate::results::compare::text::points;
use crate::results::items::{self, Item, ItemScores, id_text};
use crate::track::{RunRecord, TrackError};

/// Images spread evenly over a split that are shown.
const SPREAD: usize = 12;

/// Images with the highest, and with the lowest, scores that are shown.
const EXTREMES: usize = 6;

/// Captions that people wrote, or answers that they gave, shown per image.
const REFERENCES: usize = 10;

/// What people said about an image or to a question.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reference {
    /// The question, where there is one.
    pub question: Option<String>,
    /// Captions, or answers with repetitions.
    pub texts: Vec<String>,
}

/// References by image or question id; or why there are none.
pub type References = Result<BTreeMap<String, Reference>, String>;

/// A predictions file and the split it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// The split.
    pub split: String,
    /// Which checkpoint: `best checkpoint`, `epoch 3`.
    pub checkpoint: String,
}

/// The predictions of a run that are worth showing: those of a checkpoint of `[evaluate]`, else the newest of the selection
/// split; none before the first validation.
pub fn source(record: &RunRecord) -> Option<Source> {
    let settings = &record.lock.settings;
    for split in &settings.evaluate.splits {
        for checkpoint in &settings.evaluate.checkpoints {
            if let Some(file) = items::predictions_file(record, *checkpoint, split).filter(|file| file.is_file()) {
                let name = serde_json::to_value(checkpoint).ok().map(|name| id_text(&name)).unwrap_or_default();
                let epoch = record.epoch_of(*checkpoint).unwrap_or_default();
                let checkpoint = format!("{name} checkpoint, epoch {epoch}");
                return Some(Source { file, split: split.clone(), checkpoint });
            }
        }
    }
    let split = settings.select.split.clone();
    let file_of = |epoch: usize| record.run.predictions().join(format!("epoch-{epoch:04}.{split}.json"));
    let newest = (1..=record.last_epoch.unwrap_or_default()).rev().find(|epoch| file_of(*epoch).is_file())?;
    Some(Source { file: file_of(newest), checkpoint: format!("epoch {newest}"), split })
}

/// Predictions in the order of their file: id and text.
///
/// # Errors
/// A file that cannot be read, or is neither a COCO results file nor a VQA one.
pub fn predictions(path: &Path) -> Result<Vec<(String, String)>, TrackError> {
    let bytes = std::fs::read(path).map_err(TrackError::io("read", path))?;
    let wrong = |found: String| TrackError::Format {
        path: path.to_path_buf(),
        expected: "a predictions file",
        found,
        help: "`vlp eval` writes the predictions of a checkpoint again".into(),
    };
    let entries: Vec<Value> = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let one = |entry: &Value| {
        let id = entry.get("image_id").or(entry.get("question_id"))?;
        let text = entry.get("caption").or(entry.get("answer"))?.as_str()?;
        Some((id_text(id), text.to_string()))
    };
    entries.iter().map(|entry| one(entry).ok_or_else(|| wrong(format!("an entry `{entry}`")))).collect()
}

/// One run with its predictions.
#[derive(Debug, Clone)]
pub struct Said<'a> {
    /// Number of the run in the report.
    pub run: usize,
    /// Name of the run.
    pub name: &'a str,
    /// Where the predictions come from.
    pub source: Source,
    /// The run's data set.
    pub dataset: Dataset,
    /// Predictions in the order of the file.
    pub predictions: Vec<(String, String)>,
    /// Scores of the images, where the run has them.
    pub scores: ItemScores,
    /// What people said.
    pub references: &'a References,
}

/// The samples of all runs; runs on the same split of the same data set beside each other.
pub fn html(said: &[Said]) -> String {
    let mut groups: Vec<Vec<&Said>> = Vec::new();
    for one in said {
        let same =
            |group: &&mut Vec<&Said>| group[0].dataset == one.dataset && group[0].source.split == one.source.split;
        match groups.iter_mut().find(same) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups.iter().map(|group| group_html(group)).collect()
}

fn group_html(group: &[&Said]) -> String {
    let (Some(first), Some(references)) =
        (group.first(), group.iter().map(|s| s.references).find(|r| r.is_ok()).or(group.first().map(|s| s.references)))
    else {
        return String::new();
    };
    let texts: Vec<BTreeMap<&str, &str>> =
        group.iter().map(|s| s.predictions.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect()).collect();
    let shared: Vec<&str> = first
        .predictions
        .iter()
        .map(|(id, _)| id.as_str())
        .filter(|id| texts.iter().all(|t| t.contains_key(id)))
        .collect();
    if shared.is_empty() {
        return String::new();
    }
    let what = Item::of(first.dataset).plural();
    let mut out = format!("<h3>Split {}</h3>\n", escape(&first.source.split));
    let sources: Vec<String> = group.iter().map(|s| format!("{} ({})", s.name, s.source.checkpoint)).collect();
    let shown = shared.len().min(SPREAD);
    let spread = if shown == shared.len() {
        format!("all {shown} {what}")
    } else {
        format!("{shown} of {} {what}, spread evenly", shared.len())
    };
    out.push_str(&format!("<p class=\"soft\">{}; {}.</p>\n", escape(&spread), escape(&sources.join(", "))));
    if let Err(reason) = references {
        out.push_str(&format!("<p class=\"soft\">Without what people said: {}.</p>\n", escape(reason)));
    }
    let none = BTreeMap::new();
    let references = references.as_ref().unwrap_or(&none);
    let cards = |ids: &[&str]| {
        let cards: String = ids.iter().map(|id| card(id, group, &texts, references.get(*id))).collect();
        format!("<div class=\"samples\">\n{cards}</div>\n")
    };
    // One further at each step where there is room: questions come in equal rows per image, and each kind is to be seen.
    let shift = usize::from(shared.len() >= shown * shown);
    let at = |i: usize| shared[i * shared.len() / shown + i * shift];
    out.push_str(&cards(&(0..shown).map(at).collect::<Vec<_>>()));
    let mut scored: Vec<(&str, f64)> =
        shared.iter().filter_map(|id| Some((*id, *first.scores.get(*id)?.get("cider")?))).collect();
    // Stable: images with the same score stay in the order of the file.
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    if scored.len() > 2 * EXTREMES {
        let ids = |part: &[(&'_ str, f64)]| cards(&part.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        let lowest: Vec<(&str, f64)> = scored.iter().rev().take(EXTREMES).copied().collect();
        let of = if group.len() > 1 { format!(" of {}", escape(first.name)) } else { String::new() };
        for (title, part) in [("Highest", &scored[..EXTREMES]), ("Lowest", &lowest[..])] {
            out.push_str(&format!("<details><summary>{title} CIDEr{of}</summary>\n{}</details>\n", ids(part)));
        }
    }
    out
}

fn card(id: &str, group: &[&Said], texts: &[BTreeMap<&str, &str>], reference: Option<&Reference>) -> String {
    let kind = Item::of(group[0].dataset).name();
    let mut out = format!("<article class=\"card sample\">\n<div class=\"id\">{kind} {}</div>\n", escape(id));
    if let Some(question) = reference.and_then(|r| r.question.as_ref()) {
        out.push_str(&format!("<p class=\"question\"><bdi>{}</bdi></p>\n", escape(question)));
    }
    for (said, texts) in group.iter().zip(texts) {
        let text = texts.get(id).copied().unwrap_or_default();
        let shown =
            if text.is_empty() { "<em>nothing</em>".to_string() } else { format!("<bdi>{}</bdi>", escape(text)) };
        let mut remarks: Vec<String> = Vec::new();
        if group.len() > 1 {
            remarks.push(escape(said.name));
        }
        if let Some(score) = said.scores.get(id).and_then(|scores| scores.get("cider")) {
            remarks.push(format!("CIDEr {}", points(*score)));
        }
        remarks.extend(reference.and_then(|r| agreement(text, r)));
        let remarks =
            if remarks.is_empty() { String::new() } else { format!("<small>{}</small>", remarks.join(" · ")) };
        out.push_str(&format!("<div class=\"said\">{}<div>{shown}{remarks}</div></div>\n", dot(said.run)));
    }
    if let Some(reference) = reference.filter(|r| !r.texts.is_empty()) {
        let counted = counted(&reference.texts);
        let item = |(text, count): &(&str, usize)| match count {
            1 => format!("<li><bdi>{}</bdi></li>", escape(text)),
            more => format!("<li><bdi>{}</bdi> × {more}</li>", escape(text)),
        };
        let items: String = counted.iter().take(REFERENCES).map(item).collect();
        out.push_str(&format!("<ul class=\"references\" aria-label=\"What people said\">{items}</ul>\n"));
    }
    out.push_str("</article>\n");
    out
}

/// How a prediction stands to what people said.
fn agreement(text: &str, reference: &Reference) -> Option<String> {
    let count = reference.texts.iter().filter(|other| words(other) == words(text)).count();
    match (&reference.question, count, reference.texts.len()) {
        (_, _, 0) => None,
        (Some(_), count, all) => Some(format!("said by {count} of {all} people")),
        (None, 0, _) => None,
        (None, ..) => Some("<span class=\"pill good\">word for word a reference</span>".into()),
    }
}

/// The words of a text, without case and punctuation.
fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric());
    split.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Texts with the number of their repetitions: the commonest first, equally common ones in their order.
fn counted(texts: &[String]) -> Vec<(&str, usize)> {
    let mut seen = BTreeSet::new();
    let count = |text: &str| texts.iter().filter(|other| *other == text).count();
    let mut out: Vec<(&str, usize)> =
        texts.iter().filter(|t| seen.insert(t.as_str())).map(|t| (t.as_str(), count(t))).collect();
    out.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    out
}

/// The key above samples of several runs.
pub fn key(names: &[String]) -> String {
    let items: String =
        names.iter().enumerate().map(|(run, name)| format!("<li>{}</li>", run_label(name, run))).collect();
    format!("<ul class=\"legend\">{items}</ul>\n")
}
