//! The study file of a sweep, `study.jsonl`: what was asked for, what each trial was given, and how it ended.
//!
//! It is only appended to, each line synced, and it is the truth: a sweep that was killed goes on from it. A torn last line
//! is left out when the file is opened, and cut off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Dimension, Sweep, SweepDirection};
use crate::track::{Held, TrackError, complete_lines, influencing, now, sync_folder, time_text};

/// Name of the study file.
pub(super) const FILE: &str = "study.jsonl";

/// File that the process at work in a sweep holds.
pub(super) const HELD: &str = ".sweep.lock";

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It went to its end.
    Complete,
    /// It was stopped, since others did better.
    Pruned,
    /// It failed.
    Failed,
}

/// A line of the study file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Line {
    /// The first: what was asked for, flattened.
    Sweep { id: String, asked_for: BTreeMap<String, Value> },
    /// A trial was given these settings.
    Asked { trial: usize, options: serde_json::Map<String, Value> },
    /// A trial is to go no further than this epoch.
    Prune { trial: usize, epoch: u64 },
    /// A trial that failed is to run again.
    Retry { trial: usize },
    /// A trial ended.
    Ended { trial: usize, outcome: Outcome, run: PathBuf, values: Vec<(u64, f64)>, detail: String },
}

/// A trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Counted from 0.
    pub number: usize,
    /// Option and value, in the order of `[space]`.
    pub options: Vec<(String, Value)>,
    /// None until it has ended.
    pub outcome: Option<Outcome>,
    /// The epoch after which it was, or is to be, stopped.
    pub pruned_after: Option<u64>,
    /// Its run folder; empty while unknown.
    pub run: PathBuf,
    /// Epoch and value of the metric.
    pub values: Vec<(u64, f64)>,
    /// Why it failed; may be empty.
    pub detail: String,
}

impl Trial {
    /// As if it had not ended; a decision to stop it stays.
    fn begin_again(&mut self) {
        (self.outcome, self.run) = (None, PathBuf::new());
        self.values.clear();
        self.detail.clear();
    }

    /// The best value of all epochs.
    pub fn best(&self, direction: SweepDirection) -> Option<f64> {
        let values = self.values.iter().map(|(_, value)| *value);
        match direction {
            SweepDirection::Maximize => values.max_by(f64::total_cmp),
            SweepDirection::Minimize => values.min_by(f64::total_cmp),
        }
    }
}

/// Why a study cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A file.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The study was begun with other settings.
    #[error("the study `{}` was begun with other settings: {}\n  help: give the sweep another `name`, or remove its folder to begin anew", file.display(), differences.join("; "))]
    Differs {
        /// The study file.
        file: PathBuf,
        /// In what it differs.
        differences: Vec<String>,
    },
    /// Another process is at work.
    #[error("the sweep in `{}` is in use by another `vlp` process\n  help: wait until it ends, or stop it with Ctrl-C", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no study.
    #[error("the sweep `{name}` was not started: there is no `{}`\n  help: `vlp sweep run FILE` starts it", file.display())]
    NotStarted {
        /// Its name.
        name: String,
        /// The study file.
        file: PathBuf,
    },
}

/// A study on disk.
#[derive(Debug)]
pub struct Study {
    folder: PathBuf,
    id: String,
    trials: Vec<Trial>,
    /// Open while trials run.
    file: Option<File>,
    _held: Option<Held>,
}

impl Study {
    /// Folder of a sweep: `<output.runs of its base>/<name>`.
    pub fn folder_of(sweep: &Sweep) -> PathBuf {
        Path::new(&sweep.base.settings.output.runs).join(&sweep.settings.name)
    }

    /// The study of a sweep, for reading; none when it was not started.
    pub fn read(sweep: &Sweep) -> Result<Option<Self>, StudyError> {
        let folder = Self::folder_of(sweep);
        let (lines, _) = read(&folder.join(FILE))?;
        let Some((id, _)) = begun(&lines) else { return Ok(None) };
        Ok(Some(Self { id: id.to_owned(), trials: replay(&lines, sweep), folder, file: None, _held: None }))
    }

    /// The study of a sweep, for going on; begun when there is none.
    pub fn open(sweep: &Sweep) -> Result<Self, StudyError> {
        let folder = Self::folder_of(sweep);
        std::fs::create_dir_all(&folder).map_err(TrackError::io("create", &folder))?;
        let held = hold(&folder)?;
        let path = folder.join(FILE);
        let (mut lines, complete) = read(&path)?;
        let asked_for = asked_for_by(sweep);
        if let Some((_, recorded)) = begun(&lines) {
            let differences = differences(&asked_for, recorded);
            if !differences.is_empty() {
                return Err(StudyError::Differs { file: path, differences });
            }
        }
        let file = File::options().create(true).append(true).open(&path).map_err(TrackError::io("open", &path))?;
        file.set_len(complete).map_err(TrackError::io("repair", &path))?;
        let mut study = Self { id: String::new(), trials: Vec::new(), folder, file: Some(file), _held: Some(held) };
        if complete == 0 {
            let id = format!("{}/{}", sweep.settings.name, time_text(now()));
            let line = Line::Sweep { id, asked_for };
            study.append(&line)?;
            sync_folder(&study.folder)?;
            lines.push(line);
        }
        if let Some((id, _)) = begun(&lines) {
            (study.id, study.trials) = (id.to_owned(), replay(&lines, sweep));
        }
        Ok(study)
    }

    /// Where a study file would be.
    pub fn file_of(sweep: &Sweep) -> PathBuf {
        Self::folder_of(sweep).join(FILE)
    }

    /// The folder of the sweep.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What tells this study from others of the same name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All trials, by number.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// A new trial was given these settings; its number.
    pub fn asked(&mut self, options: Vec<(String, Value)>) -> Result<usize, StudyError> {
        let number = self.trials.len();
        self.append(&Line::Asked { trial: number, options: options.iter().cloned().collect() })?;
        self.trials.push(new_trial(number, options));
        Ok(number)
    }

    /// A trial is to go no further than `epoch`.
    pub fn prune(&mut self, number: usize, epoch: u64) -> Result<(), StudyError> {
        self.append(&Line::Prune { trial: number, epoch })?;
        self.trials[number].pruned_after = Some(epoch);
        Ok(())
    }

    /// Every trial that failed is to run again; their numbers.
    pub fn retry_failed(&mut self) -> Result<Vec<usize>, StudyError> {
        let failed = self.trials.iter().filter(|trial| trial.outcome == Some(Outcome::Failed));
        let failed: Vec<usize> = failed.map(|trial| trial.number).collect();
        for number in &failed {
            self.append(&Line::Retry { trial: *number })?;
            self.trials[*number].begin_again();
        }
        Ok(failed)
    }

    /// A trial ended.
    pub fn ended(
        &mut self,
        number: usize,
        outcome: Outcome,
        run: PathBuf,
        values: Vec<(u64, f64)>,
        detail: String,
    ) -> Result<(), StudyError> {
        let line =
            Line::Ended { trial: number, outcome, run: run.clone(), values: values.clone(), detail: detail.clone() };
        self.append(&line)?;
        let trial = &mut self.trials[number];
        (trial.outcome, trial.run, trial.values, trial.detail) = (Some(outcome), run, values, detail);
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), TrackError> {
        let path = self.folder.join(FILE);
        let mut text =
            serde_json::to_vec(line).map_err(|e| TrackError::io("write", &path)(std::io::Error::other(e)))?;
        text.push(b'\n');
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(TrackError::io("write", &path))
    }
}

fn new_trial(number: usize, options: Vec<(String, Value)>) -> Trial {
    Trial {
        number,
        options,
        outcome: None,
        pruned_after: None,
        run: PathBuf::new(),
        values: Vec::new(),
        detail: String::new(),
    }
}

fn hold(folder: &Path) -> Result<Held, StudyError> {
    Held::take(&folder.join(HELD))?.ok_or_else(|| StudyError::Busy { folder: folder.to_path_buf() })
}

/// The complete lines, and how many bytes they are. A missing file has none.
pub(super) fn read(path: &Path) -> Result<(Vec<Line>, u64), TrackError> {
    if path.exists() { complete_lines(path, "a study file", "`kind`") } else { Ok((Vec::new(), 0)) }
}

pub(super) fn begun(lines: &[Line]) -> Option<(&str, &BTreeMap<String, Value>)> {
    lines.iter().find_map(|line| match line {
        Line::Sweep { id, asked_for } => Some((id.as_str(), asked_for)),
        _ => None,
    })
}

fn replay(lines: &[Line], sweep: &Sweep) -> Vec<Trial> {
    let mut trials: Vec<Trial> = Vec::new();
    for line in lines {
        match line {
            Line::Sweep { .. } => {}
            Line::Asked { trial, options } if *trial == trials.len() => {
                let given = |(key, _): &(String, Dimension)| Some((key.clone(), options.get(key)?.clone()));
                trials.push(new_trial(*trial, sweep.space.iter().filter_map(given).collect()));
            }
            Line::Asked { .. } => {}
            Line::Prune { trial, epoch } => {
                if let Some(trial) = trials.get_mut(*trial) {
                    trial.pruned_after = Some(*epoch);
                }
            }
            Line::Retry { trial } => {
                if let Some(trial) = trials.get_mut(*trial) {
                    trial.begin_again();
                }
            }
            Line::Ended { trial, outcome, run, values, detail } => {
                if let Some(trial) = trials.get_mut(*trial) {
                    (trial.outcome, trial.run) = (Some(*outcome), run.clone());
                    (trial.values, trial.detail) = (values.clone(), detail.clone());
                }
            }
        }
    }
    trials
}

/// What decides the trials: the sweep without its length and pace, the space, and the settings of the base that decide
/// what a run computes.
fn asked_for_by(sweep: &Sweep) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    let settings = serde_json::to_value(&sweep.settings).unwrap_or_default();
    for (key, value) in settings.as_object().into_iter().flatten() {
        if !["name", "description", "base", "trials", "parallel"].contains(&key.as_str()) {
            out.insert(format!("sweep.{key}"), value.clone());
        }
    }
    for (key, dimension) in &sweep.space {
        let values = match dimension {
            Dimension::Choice(values) => json!({ "choice": values }),
            Dimension::Uniform(low, high) => json!({ "uniform": [low, high] }),
            Dimension::LogUniform(low, high) => json!({ "log_uniform": [low, high] }),
            Dimension::Int(low, high) => json!({ "int": [low, high] }),
        };
        out.insert(format!("space.{key}"), values);
    }
    out.extend(influencing(&sweep.base.settings).into_iter().map(|(key, value)| (format!("base.{key}"), value)));
    out
}

fn differences(now: &BTreeMap<String, Value>, recorded: &BTreeMap<String, Value>) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = now.keys().chain(recorded.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), Value::to_string);
    keys.into_iter()
        .filter(|key| now.get(*key) != recorded.get(*key))
        .map(|key| format!("{key} is {}, was {}", text(now.get(key)), text(recorded.get(key))))
        .collect()
}
