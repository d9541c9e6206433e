//! Tables: which rows belong to which table, what was measured for them, and the verdict on each cell.
//!
//! Rows come from the locks of finished runs and from experiment files; a row that a loaded file no longer has is left
//! out, and where both have it the file's figures count. For each row the newest finished run is shown. Numbers stay in
//! full precision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::paper;
use crate::config::{CheckpointChoice, PaperRow, PaperScore, Settings};
use crate::track::{Condition, RunRecord};

/// Rounding noise that does not count against a tolerance, in points.
const SLACK: f64 = 1e-9;

/// One published table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name: the files are `<folder>/<name>.*`.
    pub name: String,
    /// `output.results` of the first experiment with a row in it.
    pub folder: PathBuf,
    /// Its cells: row by row, in the order of papers.
    pub cells: Vec<Cell>,
}

/// What is asked of a measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// A reported value, and how far from it still counts as reproduced.
    Expect {
        /// Reported.
        value: f64,
        /// Largest difference.
        tolerance: f64,
    },
    /// A lower bound.
    AtLeast(f64),
    /// A reported value that decides nothing: of the evaluation server, of a setting, of another machine.
    Reported(f64),
    /// Nothing was reported.
    Nothing,
}

/// One score of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Experiment that reproduces the row.
    pub experiment: String,
    /// Run that was measured.
    pub run: Option<String>,
    /// Name of the row.
    pub row: String,
    /// Split that was scored.
    pub split: String,
    /// Checkpoint that was scored.
    pub checkpoint: CheckpointChoice,
    /// Name of the score.
    pub metric: String,
    /// How tables call it.
    pub title: String,
    /// What is asked for, in the unit of [`paper::unit`].
    pub target: Target,
    /// What was measured, in the same unit.
    pub measured: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Where the reported value comes from.
    pub source: String,
}

/// What became of a reported score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Measured, and close enough.
    Reproduced,
    /// Measured, and not close enough.
    OutsideTolerance,
    /// No finished run.
    NotRun,
    /// A finished run, in which this was not scored.
    NotAvailable,
    /// Measured; there is nothing to hold it against.
    Measured,
    /// A setting of the run, the same as reported.
    AsReported,
    /// A setting of the run, another than reported.
    Differs,
    /// Only the evaluation server can score it; the run has the file that it takes.
    SubmissionReady,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Reproduced => "reproduced",
            Self::OutsideTolerance => "outside tolerance",
            Self::NotRun => "not run",
            Self::NotAvailable => "not available",
            Self::Measured => "measured",
            Self::AsReported => "as reported",
            Self::Differs => "differs",
            Self::SubmissionReady => "submission ready",
        })
    }
}

impl Cell {
    /// Measured minus reported value (or bound).
    pub fn difference(&self) -> Option<f64> {
        match self.target {
            Target::Expect { value, .. } | Target::AtLeast(value) | Target::Reported(value) => {
                Some(self.measured? - value)
            }
            Target::Nothing => None,
        }
    }
}

/// The verdict on a measured value. A value that is not a number is outside; a bound or the edge of a tolerance is in.
pub fn verdict(target: Target, measured: f64) -> Verdict {
    let inside = match target {
        Target::Expect { value, tolerance } => (measured - value).abs() <= tolerance + SLACK,
        Target::AtLeast(bound) => measured >= bound - SLACK,
        Target::Reported(_) | Target::Nothing => return Verdict::Measured,
    };
    if inside { Verdict::Reproduced } else { Verdict::OutsideTolerance }
}

/// All tables that the experiments `files` (resolved settings) or the `records` belong to, by name.
pub fn tables(files: &[Settings], records: &[RunRecord]) -> Vec<Table> {
    let finished = newest_first(records);
    let loaded: BTreeSet<&str> = files.iter().map(|s| s.experiment.name.as_str()).collect();
    let unloaded = finished.iter().map(|r| &r.lock.settings).filter(|s| !loaded.contains(s.experiment.name.as_str()));
    let mut unloaded: Vec<&Settings> = unloaded.collect();
    // Stable: the newest run of each experiment stays first.
    unloaded.sort_by_key(|s| &s.experiment.name);

    let mut tables: BTreeMap<&str, Table> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for settings in files.iter().chain(unloaded) {
        for row in &settings.paper {
            let key = Key::of(settings, row);
            if !seen.insert(key) {
                continue;
            }
            let record = finished
                .iter()
                .find(|r| r.lock.settings.paper.iter().any(|recorded| Key::of(&r.lock.settings, recorded) == key));
            let table = tables.entry(&row.table).or_insert_with(|| Table {
                name: row.table.clone(),
                folder: Path::new(&settings.output.results).to_path_buf(),
                cells: Vec::new(),
            });
            table.cells.extend(cells(settings, row, record.copied(), &finished));
        }
    }
    tables.into_values().collect()
}

/// What makes a row the same row; rows of runs that go to another folder are others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(&'a str, &'a str, &'a str, &'a str, &'a str, u8);

impl<'a> Key<'a> {
    fn of(settings: &'a Settings, row: &'a PaperRow) -> Self {
        let (runs, name) = (&settings.output.runs, &settings.experiment.name);
        Self(runs, name, &row.table, &row.row, &row.split, row.checkpoint as u8)
    }
}

fn newest_first(records: &[RunRecord]) -> Vec<&RunRecord> {
    let mut finished: Vec<&RunRecord> = records.iter().filter(|r| r.condition == Condition::Finished).collect();
    finished.sort_by(|a, b| b.lock.created.cmp(&a.lock.created).then_with(|| b.run.id().cmp(&a.run.id())));
    finished
}

/// What is asked of each value of a row, in the order of papers.
fn targets(row: &PaperRow) -> Vec<(&String, Target)> {
    let expected = row.expect.iter().map(|(metric, value)| {
        let is_score = PaperScore::parse(metric).is_none_or(|score| score.score().is_some());
        let tolerance = row.tolerance.get(metric).copied();
        match tolerance {
            Some(tolerance) if !row.server => (metric, Target::Expect { value: *value, tolerance }),
            None if is_score && !row.server => (metric, Target::Expect { value: *value, tolerance: 0.0 }),
            _ => (metric, Target::Reported(*value)),
        }
    });
    let bounded = row.at_least.iter().map(|(metric, bound)| (metric, Target::AtLeast(*bound)));
    let also = row.also.iter().map(|metric| (metric, Target::Nothing));
    let mut targets: Vec<(&String, Target)> = expected.chain(bounded).chain(also).collect();
    targets.sort_by_key(|(metric, _)| paper::order(metric));
    targets
}

fn cells(settings: &Settings, row: &PaperRow, record: Option<&RunRecord>, finished: &[&RunRecord]) -> Vec<Cell> {
    let cell = |(metric, target): (&String, Target)| {
        let (measured, verdict) = judged(metric, target, row, record, finished);
        Cell {
            experiment: settings.experiment.name.clone(),
            run: record.map(|r| r.run.id()),
            row: row.row.clone(),
            split: if PaperScore::parse(metric).is_some_and(|s| s.score().is_none()) {
                String::new()
            } else {
                row.split.clone()
            },
            checkpoint: row.checkpoint,
            metric: metric.clone(),
            title: paper::title(metric, row, settings.metrics.vqa),
            target,
            measured,
            verdict,
            source: row.source.clone(),
        }
    };
    targets(row).into_iter().map(cell).collect()
}

/// The measured value of a cell and the verdict on it.
fn judged(
    metric: &str,
    target: Target,
    row: &PaperRow,
    record: Option<&RunRecord>,
    finished: &[&RunRecord],
) -> (Option<f64>, Verdict) {
    let Some(record) = record else { return (None, Verdict::NotRun) };
    if row.server {
        let verdict = if has_submission(record) { Verdict::SubmissionReady } else { Verdict::NotAvailable };
        return (None, verdict);
    }
    let measured = paper::measured(metric, row, record, finished);
    let verdict = match (measured, target, PaperScore::parse(metric)) {
        (None, ..) => Verdict::NotAvailable,
        (Some(value), Target::Reported(reported), Some(PaperScore::Setting(_))) => {
            if value == reported {
                Verdict::AsReported
            } else {
                Verdict::Differs
            }
        }
        (Some(value), target, _) => verdict(target, value),
    };
    (measured, verdict)
}

/// Whether the run left a file that the evaluation server takes.
fn has_submission(record: &RunRecord) -> bool {
    let entries = std::fs::read_dir(record.run.submissions());
    entries.is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "json")))
    })
}
