//! One stage of a lineage: is an earlier run reused, is one resumed, or does a new one start, and why.
//!
//! The newest run that did, or does, the same work decides. An unfinished run that differs and holds a checkpoint is
//! never passed over in silence: the stage is refused; and so is a new run that would start from a checkpoint which another
//! state of the program trained, unless drift is allowed. `fresh` starts a new run whatever there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::lineage::{self, Source};
use super::{PipelineError, select};
use crate::config::Experiment;
use crate::launch::plan::{self, Facts, Machine};
use crate::track::{Condition, Difference, Lock, Parent, RunDir, RunRecord, TrackError};

/// An experiment and what its data and model look like.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The resolved experiment.
    pub experiment: Experiment,
    /// Numbers that only the data and the model know.
    pub facts: Facts,
}

/// What is asked for besides the experiments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Names of the experiments of which a new run starts whatever there is.
    pub fresh: BTreeSet<String>,
    /// A finished run counts as the same work although its data, or the program that trained it, differ.
    pub allow_drift: bool,
}

/// The run that a stage starts from.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A finished run.
    Ready(Box<RunRecord>),
    /// A run of this experiment that has yet to finish.
    Pending(String),
}

/// What happens to a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A finished run is used as it is.
    Reuse(RunDir),
    /// An unfinished run is continued.
    Resume(RunDir),
    /// A new run starts.
    Start,
}

/// A decision, and what belongs to it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What happens.
    pub decision: Decision,
    /// Why, in words.
    pub reason: String,
    /// The lock that a new run would get; without a parent while the upstream run is pending.
    pub lock: Lock,
    /// Where the weights come from, in words.
    pub weights: String,
    /// Remarks: another version of the program, unreadable run folders.
    pub notes: Vec<String>,
}

/// An unfinished run differs from what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an unfinished run of `{experiment}` differs from what is asked for: {}{}\n  help: with the same settings it resumes; `vlp run {file} --fresh` starts another run beside it", run.display(), listed(.differences))]
pub struct Refusal {
    /// The experiment.
    pub experiment: String,
    /// Its file.
    pub file: String,
    /// The unfinished run.
    pub run: PathBuf,
    /// In what it differs.
    pub differences: Vec<Difference>,
}

/// A new run would start from a checkpoint that another state of the program trained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{experiment}` would start from a run of `{upstream}` that another state of the program trained: {}\n    {note}\n  help: `--allow-drift` starts from it; `vlp run {file} --fresh` trains it again", run.display())]
pub struct Drift {
    /// The experiment that would start.
    pub experiment: String,
    /// The one that it starts from.
    pub upstream: String,
    /// The file of that one.
    pub file: String,
    /// Its finished run.
    pub run: PathBuf,
    /// In what the programs differ.
    pub note: String,
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(|d| format!("\n    {d}")).collect()
}

/// All readable runs of an experiment, oldest first, and a remark for each that cannot be read.
pub fn records(runs: &Path, experiment: &str) -> Result<(Vec<RunRecord>, Vec<String>), TrackError> {
    let mut readable = Vec::new();
    let mut remarks = Vec::new();
    for run in RunDir::find(runs, experiment)? {
        match RunRecord::read(&run) {
            Ok(record) => readable.push(record),
            Err(error) => {
                let text = error.to_string();
                remarks.push(format!("passed over: {}", text.split("\n  help:").next().unwrap_or_default()));
            }
        }
    }
    Ok((readable, remarks))
}

/// Decides one stage. `upstream` is the run of the stage that it starts from.
pub fn decide(candidate: &Candidate, upstream: Option<&Upstream>, request: &Request) -> Result<Decided, PipelineError> {
    let settings = &candidate.experiment.settings;
    let name = &settings.experiment.name;
    let (parent, pending) = initial_weights(candidate, upstream)?;
    let weights = weights_text(candidate, parent.as_ref(), pending);
    let lock = Lock::new(&candidate.experiment.file, settings, &candidate.facts.data_fingerprint, parent);
    let (records, mut notes) = records(Path::new(&settings.output.runs), name)?;
    let (decision, reason) = if request.fresh.contains(name) {
        (Decision::Start, "asked for by --fresh".into())
    } else {
        choose(&lock, pending, &records, request.allow_drift)?
    };
    match (&decision, upstream) {
        (Decision::Reuse(run) | Decision::Resume(run), _) => {
            let chosen = records.iter().find(|r| r.run == *run);
            notes.extend(chosen.and_then(|record| lock.code_note(&record.lock)));
        }
        (Decision::Start, Some(Upstream::Ready(record))) if !request.allow_drift => drift(&lock, record)?,
        (Decision::Start, _) => {}
    }
    Ok(Decided { decision, reason, lock, weights, notes })
}

/// An error when `record`, which a new run would start from, was trained by another state of the program.
fn drift(lock: &Lock, record: &RunRecord) -> Result<(), Drift> {
    if lock.same_program(&record.lock) {
        return Ok(());
    }
    Err(Drift {
        experiment: lock.settings.experiment.name.clone(),
        upstream: record.lock.settings.experiment.name.clone(),
        file: record.lock.file.clone(),
        run: record.run.path().to_path_buf(),
        note: lock.code_note(&record.lock).unwrap_or_default(),
    })
}

/// Decides all stages of a lineage, upstream before downstream, before anything runs.
pub fn decide_all(stages: &[Candidate], request: &Request) -> Result<Vec<Decided>, PipelineError> {
    let mut decided: Vec<Decided> = Vec::new();
    let mut runs: Vec<Upstream> = Vec::new();
    for candidate in stages {
        let one = decide(candidate, upstream_of(candidate, &stages[..runs.len()], &runs), request)?;
        runs.push(match &one.decision {
            Decision::Reuse(run) => Upstream::Ready(Box::new(RunRecord::read(run)?)),
            _ => Upstream::Pending(candidate.experiment.settings.experiment.name.clone()),
        });
        decided.push(one);
    }
    Ok(decided)
}

/// The run, among those of the stages before it, that a stage starts from.
fn upstream_of<'a>(candidate: &Candidate, before: &[Candidate], runs: &'a [Upstream]) -> Option<&'a Upstream> {
    let Source::Experiment(name) = lineage::source(&candidate.experiment.settings.init) else { return None };
    let place = before.iter().position(|stage| stage.experiment.settings.experiment.name == name)?;
    runs.get(place)
}

/// The weights, and the name of the upstream experiment while these are not known yet.
fn initial_weights<'a>(
    candidate: &Candidate,
    upstream: Option<&'a Upstream>,
) -> Result<(Option<Parent>, Option<&'a str>), PipelineError> {
    let init = &candidate.experiment.settings.init;
    Ok(match (lineage::source(init), upstream) {
        (Source::Checkpoint(path), _) => (Some(select::from_path(&path)?), None),
        (Source::Experiment(_), Some(Upstream::Ready(record))) => {
            (Some(select::from_run(record, init.checkpoint)?), None)
        }
        (Source::Experiment(_), Some(Upstream::Pending(name))) => (None, Some(name)),
        (Source::Random, _) | (Source::Experiment(_), None) => (None, None),
    })
}

fn choose(
    lock: &Lock,
    pending: Option<&str>,
    records: &[RunRecord],
    allow_drift: bool,
) -> Result<(Decision, String), Refusal> {
    let differences: Vec<Vec<Difference>> = records.iter().map(|r| differences(lock, pending, &r.lock)).collect();
    let same = records.iter().zip(&differences).rev().find(|(_, d)| d.is_empty());
    if let Some((record, _)) = same {
        let run = record.run.clone();
        return Ok(match (record.condition, record.last_epoch) {
            (Condition::Finished, _) => (Decision::Reuse(run), "finished with the same settings and data".into()),
            (condition, Some(epoch)) => {
                (Decision::Resume(run), format!("{condition} after epoch {epoch} of {}", lock.settings.train.epochs))
            }
            (condition, None) => (Decision::Resume(run), format!("{condition} before its first checkpoint")),
        });
    }
    let drifted = |(_, d): &(&RunRecord, &Vec<Difference>)| d.iter().all(|difference| difference.key == "data");
    let finished = records.iter().zip(&differences).rev().filter(|(r, _)| r.condition == Condition::Finished);
    if allow_drift && let Some((record, _)) = finished.into_iter().find(drifted) {
        return Ok((Decision::Reuse(record.run.clone()), "finished with the same settings and other data".into()));
    }
    let (Some(newest), Some(differences)) = (records.last(), differences.last()) else {
        return Ok((Decision::Start, "no earlier run".into()));
    };
    let id = newest.run.id();
    let first = differences.first().map_or_else(String::new, Difference::to_string);
    let more = if differences.len() > 1 { format!(" and {} more", differences.len() - 1) } else { String::new() };
    match newest.condition {
        Condition::Finished => Ok((Decision::Start, format!("differs from {id}: {first}{more}"))),
        Condition::Running => Err(refusal(lock, newest, differences)),
        _ if newest.last_epoch.is_some() || newest.run.checkpoint_steps().is_ok_and(|steps| !steps.is_empty()) => {
            Err(refusal(lock, newest, differences))
        }
        _ => Ok((Decision::Start, format!("differs from {id}, which holds no checkpoint: {first}{more}"))),
    }
}

fn refusal(lock: &Lock, record: &RunRecord, differences: &[Difference]) -> Refusal {
    Refusal {
        experiment: lock.settings.experiment.name.clone(),
        file: lock.file.clone(),
        run: record.run.path().to_path_buf(),
        differences: differences.to_vec(),
    }
}

/// As [`Lock::same_work`]; weights that are yet to be trained differ from all that exist.
fn differences(lock: &Lock, pending: Option<&str>, recorded: &Lock) -> Vec<Difference> {
    let mut differences = lock.same_work(recorded);
    if let Some(name) = pending {
        let now = format!("those of a run of `{name}` that is not finished");
        match differences.iter_mut().find(|d| d.key == "initial weights") {
            Some(weights) => weights.now = now,
            None => differences.push(Difference { key: "initial weights".into(), now, recorded: "random".into() }),
        }
    }
    differences
}

fn weights_text(candidate: &Candidate, parent: Option<&Parent>, pending: Option<&str>) -> String {
    match (parent, pending) {
        (Some(parent), _) => parent.checkpoint.display().to_string(),
        (None, Some(name)) => {
            let choice = format!("{:?}", candidate.experiment.settings.init.checkpoint).to_lowercase();
            format!("{choice} checkpoint of `{name}`, which runs first")
        }
        (None, None) => "random".into(),
    }
}

/// The folder a stage will run in, as far as it is known beforehand.
fn folder(decided: &Decided) -> PathBuf {
    match &decided.decision {
        Decision::Reuse(run) | Decision::Resume(run) => run.path().to_path_buf(),
        Decision::Start => {
            let settings = &decided.lock.settings;
            Path::new(&settings.output.runs).join(&settings.experiment.name).join("<new run>")
        }
    }
}

/// One line for a stage in `folder`: `coco_ce: resume runs/coco_ce/20261123-171500 (interrupted after epoch 7 of 30)`.
pub fn line(decided: &Decided, folder: &Path) -> String {
    let name = &decided.lock.settings.experiment.name;
    let verb = match decided.decision {
        Decision::Reuse(_) => "reuse",
        Decision::Resume(_) => "resume",
        Decision::Start => "start",
    };
    format!("{name}: {verb} {} ({})", folder.display(), decided.reason)
}

/// All stages in full, as `vlp plan` prints them. A reused stage starts no processes.
pub fn describe(chain: &[Candidate], decided: &[Decided], machine: &Machine) -> String {
    let mut out = String::new();
    for (index, (candidate, one)) in chain.iter().zip(decided).enumerate() {
        out.push_str(&format!("stage {} of {}: {}\n", index + 1, chain.len(), line(one, &folder(one))));
        out.push_str(&format!("  {:<12}{}\n", "file", candidate.experiment.file.display()));
        out.push_str(&format!("  {:<12}{}\n", "weights", one.weights));
        for note in &one.notes {
            out.push_str(&format!("  {:<12}{note}\n", "note"));
        }
        if !matches!(one.decision, Decision::Reuse(_)) {
            let plan = plan::plan(&candidate.experiment.settings, &candidate.facts, machine, &folder(one));
            out.extend(plan.to_string().lines().map(|line| format!("  {line}\n")));
        }
    }
    out
}
