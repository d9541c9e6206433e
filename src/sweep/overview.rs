//! What the study file of a sweep says without the sweep file, for those who only show it: which runs are its trials, and how
//! it stands.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::files::name_of_trial;
use super::propose::minimised;
use super::study::{FILE, HELD, Line, begun, read};
use crate::config::SweepDirection;
use crate::track::{Held, RunDir, TrackError};

/// A sweep, seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// Name of the sweep: that of its folder.
    pub name: String,
    /// What tells this study from others of the same name.
    pub id: String,
    /// When it began; none when its study file does not say so.
    pub begun: Option<jiff::Timestamp>,
    /// When its study file was last written.
    pub changed: Option<SystemTime>,
    /// Whether all trials that were begun have ended, and nobody is at work.
    pub finished: bool,
    /// Name and value of the best trial.
    pub best: Option<(String, f64)>,
    /// The trials: name, and the id of the run, where the study names it.
    trials: Vec<(String, Option<String>)>,
}

impl Overview {
    /// The sweeps among the folders of `runs`, by name; an error for each that cannot be read.
    pub fn all(runs: &Path) -> Vec<Result<Self, TrackError>> {
        let entries = std::fs::read_dir(runs).into_iter().flatten();
        let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        folders.retain(|folder| folder.join(FILE).is_file());
        folders.sort();
        folders.iter().filter_map(|folder| Self::of(folder).transpose()).collect()
    }

    /// The sweep in `folder`; none when its study has not begun.
    fn of(folder: &Path) -> Result<Option<Self>, TrackError> {
        let file = folder.join(FILE);
        // Before the lines: what is written while they are read counts as a change.
        let changed = file.metadata().and_then(|data| data.modified()).ok();
        let at_work = Held::is_taken(&folder.join(HELD));
        let (lines, _) = read(&file)?;
        let Some((id, asked_for)) = begun(&lines) else { return Ok(None) };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let direction = asked_for.get("sweep.direction").and_then(|value| SweepDirection::deserialize(value).ok());
        let direction = direction.unwrap_or_default();
        let mut trials: Vec<(String, Option<String>)> = Vec::new();
        let mut ended = Vec::new();
        let mut best: Option<(usize, f64)> = None;
        for line in &lines {
            match line {
                Line::Asked { trial, .. } if *trial == trials.len() => {
                    trials.push((name_of_trial(&name, *trial), None));
                    ended.push(false);
                }
                Line::Ended { trial, run, values, .. } if *trial < trials.len() => {
                    ended[*trial] = true;
                    trials[*trial].1 = run.file_name().map(|id| id.to_string_lossy().into_owned());
                    for (_, value) in values {
                        if best.is_none_or(|(_, known)| minimised(direction, *value) < minimised(direction, known)) {
                            best = Some((*trial, *value));
                        }
                    }
                }
                _ => {}
            }
        }
        let begun = id.rsplit_once('/').and_then(|(_, time)| time.parse().ok());
        let finished = !at_work && ended.iter().all(|ended| *ended);
        let best = best.map(|(number, value)| (trials[number].0.clone(), value));
        Ok(Some(Self { id: id.to_owned(), name, begun, changed, finished, best, trials }))
    }

    /// Whether a run, made at `created`, is a trial of this study: it has the name of one and the study names it, or it is
    /// not older than the study. Runs of an earlier study of the same name are not.
    pub fn has(&self, experiment: &str, run: &RunDir, created: &str) -> bool {
        let Some((_, named)) = self.trials.iter().find(|(name, _)| name == experiment) else { return false };
        let created: Option<jiff::Timestamp> = created.parse().ok();
        named.as_deref() == Some(run.id().as_str()) || (self.begun.is_some() && created >= self.begun)
    }

    /// What an MLflow run of the sweep is told besides its name.
    pub fn tags(&self) -> Vec<(String, String)> {
        best_tags(self.best.as_ref().map(|(name, value)| (name.as_str(), *value)))
    }

    /// Whether an experiment has the name of one of the trials.
    pub fn names(&self, experiment: &str) -> bool {
        self.trials.iter().any(|(name, _)| name == experiment)
    }
}

/// The tags that name the best trial and its value; none without one.
pub fn best_tags(best: Option<(&str, f64)>) -> Vec<(String, String)> {
    let tags = |(name, value): (&str, f64)| {
        [("vlp.best_trial".to_owned(), name.to_owned()), ("vlp.best_value".to_owned(), value.to_string())]
    };
    best.into_iter().flat_map(tags).collect()
}
