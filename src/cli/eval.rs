//! `vlp eval`: scores checkpoints on splits, during or after their training; nothing is trained.
//!
//! Scores of a run under its own settings become part of its records, as if the run had made them; all others are printed
//! only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::model::{ModelArgs, Opened, data_failure, evaluate_failure, listed, nothing_to_select_by};
use super::run::{print, track_failure};
use super::score::output;
use crate::config::{CheckpointChoice, Dataset, Metric, VqaEvaluator};
use crate::evaluate::{Scorers, SplitData, SplitScores};
use crate::results::paper;
use crate::track::{Condition, Entry, Journal, RunDir, RunRecord, Scores, selection_metric};

/// Score checkpoints of a run, or a weights file, on splits.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// `all` scores every checkpoint on the selection split and the best one on the evaluation splits; numbers name epochs.
    #[arg(long, value_name = "all|N,…")]
    pub epochs: Option<String>,
    /// Split to score (repeatable); those of `[evaluate]` when not given.
    #[arg(long = "split", value_name = "NAME")]
    pub splits: Vec<String>,
    /// Output.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A table, in points; of VQA accuracy, what belongs to `metrics.vqa`, and of the rest the overall figures.
    #[default]
    Table,
    /// JSON in full precision, unit fractions; every score.
    Json,
}

/// Scores of one checkpoint on one split.
struct Line {
    checkpoint: String,
    split: String,
    scores: BTreeMap<String, f64>,
    note: String,
    /// Why scores are not there.
    missing: Vec<String>,
}

impl Line {
    fn new(checkpoint: String, split: &str, found: SplitScores) -> Self {
        let title = |metric: &&str| paper::score_title(metric, VqaEvaluator::default());
        let names: Vec<String> = found.not_available.keys().map(title).collect();
        let (scores, missing) = (found.scores, found.not_available.into_values().collect());
        let note = match (scores.is_empty(), names.is_empty()) {
            (false, _) => String::new(),
            (true, true) => "answers are not published".to_owned(),
            (true, false) => format!("not available: {}", names.join(", ")),
        };
        Self { checkpoint, split: split.to_owned(), scores, note, missing }
    }
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let opened = Opened::new(&args.model, context)?;
    let own = args.model.experiment.is_none();
    let lines = match (&opened.run, &args.epochs) {
        (Some(run), Some(epochs)) if opened.weights.is_none() => of_epochs(&opened, run, epochs, args, own)?,
        (_, Some(_)) => {
            let help = "name the run folder, or leave out `--epochs`";
            return Err(Failure::new(exit::CONFIG, format!("`--epochs` needs a run\n  help: {help}")));
        }
        (_, None) => {
            let weights = opened.best_weights()?;
            let splits = splits(&opened, args);
            let mut lines = Vec::new();
            for split in splits {
                lines.push(score(&opened, &weights, &split)?);
            }
            lines
        }
    };
    for reason in lines.iter().flat_map(|line| &line.missing).collect::<BTreeSet<_>>() {
        tracing::warn!("{reason}");
    }
    print(&match args.format {
        Format::Table => table(&lines, opened.settings.metrics.vqa),
        Format::Json => json(&lines),
    })?;
    Ok(exit::OK)
}

fn splits(opened: &Opened, args: &Args) -> Vec<String> {
    if args.splits.is_empty() { opened.settings.evaluate.splits.clone() } else { args.splits.clone() }
}

/// `--epochs`: the checkpoints of a run on the selection split (greedy), or on the splits asked for.
fn of_epochs(opened: &Opened, run: &RunDir, epochs: &str, args: &Args, own: bool) -> Result<Vec<Line>, Failure> {
    let present = run.checkpoint_epochs().map_err(track_failure)?;
    let wanted = wanted(epochs, &present, run)?;
    let selection = &opened.settings.select;
    let (splits, beams, metrics) = match (args.splits.is_empty(), selection.split.is_empty()) {
        (false, _) => {
            (args.splits.clone(), opened.settings.evaluate.beam_size, opened.settings.metrics.captions.clone())
        }
        (true, false) => (vec![selection.split.clone()], selection.beam_size, Scorers::of_validation(selection.metric)),
        (true, true) => {
            let help = "add `--split NAME`";
            return Err(Failure::new(exit::CONFIG, format!("the run has no selection split\n  help: {help}")));
        }
    };
    let recorded = args.splits.is_empty() && own;
    let mut lines = Vec::new();
    for split in &splits {
        let data = opened.evaluation().load(split).map_err(data_failure)?;
        if args.splits.is_empty() && !data.is_published() {
            return Err(nothing_to_select_by(split));
        }
        for epoch in &wanted {
            let file = run.predictions().join(format!("epoch-{epoch:04}.{split}.json"));
            let target = if recorded { Some(file) } else { None };
            let weights = run.model_file(*epoch);
            let found = predict(opened, &weights, &data, beams, &metrics, target.as_deref())?;
            if recorded {
                record_in_journal(run, split, *epoch, &found.scores)?;
            }
            lines.push(Line::new(format!("epoch {epoch}"), split, found));
        }
    }
    if recorded && epochs == "all" {
        let more = best_on_evaluation_splits(opened, run, &mut lines)?;
        lines.extend(more);
    }
    Ok(lines)
}

/// After all epochs have their selection score: the best one on the evaluation splits, unless that was scored before.
fn best_on_evaluation_splits(opened: &Opened, run: &RunDir, lines: &mut [Line]) -> Result<Vec<Line>, Failure> {
    let record = RunRecord::read(run).map_err(track_failure)?;
    let Some(best) = record.best_epoch else { return Ok(Vec::new()) };
    let metric = selection_metric(&opened.settings).unwrap_or_default();
    for line in lines.iter_mut().filter(|line| line.checkpoint == format!("epoch {best}")) {
        line.note = format!("best {metric}");
    }
    let epochs = opened.settings.train.epochs;
    if record.condition == Condition::Running || record.last_epoch.is_none_or(|last| last < epochs) {
        // Scores of today's best would stand in the way of those of the best in the end.
        eprintln!("note  the run is not finished: it scores the evaluation splits itself, when it is");
        return Ok(Vec::new());
    }
    let evaluation = opened.evaluation();
    let mut scores = Scores::load(&run.scores_file()).map_err(track_failure)?;
    let mut more = Vec::new();
    for split in &opened.settings.evaluate.splits {
        let file = evaluation.predictions_file(run, best, split);
        let answers = opened.settings.data.dataset == Dataset::Vqa2;
        // Captions without a score lacked what scores them: it may be there by now, and why not is to be said again.
        let known = scores.get(CheckpointChoice::Best, split).cloned();
        let known = known.filter(|scores| file.exists() && (answers || !scores.is_empty()));
        let found = match known {
            Some(scores) => SplitScores::from(scores),
            None => {
                let data = evaluation.load(split).map_err(data_failure)?;
                let model = opened.load(&run.model_file(best))?;
                let found = evaluation.score_checkpoint(&model, run, best, split, &data).map_err(evaluate_failure)?;
                record_in_journal(run, &format!("{split}/best"), best, &found.scores)?;
                scores.insert(CheckpointChoice::Best, split, found.scores.clone());
                scores.save(&run.scores_file()).map_err(track_failure)?;
                found
            }
        };
        let mut line = Line::new(format!("epoch {best}"), split, found);
        if line.note.is_empty() && !answers {
            line.note = format!("beam {}", opened.settings.evaluate.beam_size);
        } else if line.scores.is_empty() && answers {
            line.note = format!("submission ready: {}", run.submissions().display());
        }
        more.push(line);
    }
    Ok(more)
}

/// Appends scores as `<name>/<metric>`.
fn record_in_journal(run: &RunDir, name: &str, epoch: usize, scores: &BTreeMap<String, f64>) -> Result<(), Failure> {
    let journal = Journal::open(&run.journal_file()).map_err(track_failure)?;
    for (metric, value) in scores {
        let entry = Entry::metric(format!("{name}/{metric}"), *value, 0, epoch as u64);
        journal.append(&entry).map_err(track_failure)?;
    }
    journal.sync().map_err(track_failure)
}

fn wanted(epochs: &str, present: &[usize], run: &RunDir) -> Result<Vec<usize>, Failure> {
    if present.is_empty() {
        let help = "let it train at least one epoch";
        let report = format!("run `{}` has no checkpoint\n  help: {help}", run.path().display());
        return Err(Failure::new(exit::CONFIG, report));
    }
    if epochs == "all" {
        return Ok(present.to_vec());
    }
    let mut wanted = BTreeSet::new();
    for word in epochs.split(',').map(str::trim) {
        match word.parse::<usize>() {
            Ok(epoch) if present.contains(&epoch) => wanted.insert(epoch),
            Ok(epoch) => {
                let help = "name one of these; `train.keep_checkpoints` says how many a run keeps";
                let (path, kept) = (run.path().display(), listed(present));
                let found = format!("run `{path}` has no checkpoint of epoch {epoch}; it has those of epochs {kept}");
                return Err(Failure::new(exit::CONFIG, format!("{found}\n  help: {help}")));
            }
            Err(_) => {
                let help = "`--epochs all`, or numbers: `--epochs 3,7`";
                return Err(Failure::new(exit::CONFIG, format!("`--epochs` is {epochs:?}\n  help: {help}")));
            }
        };
    }
    Ok(wanted.into_iter().collect())
}

fn score(opened: &Opened, weights: &Path, split: &str) -> Result<Line, Failure> {
    let data = opened.evaluation().load(split).map_err(data_failure)?;
    let settings = &opened.settings;
    let found = predict(opened, weights, &data, settings.evaluate.beam_size, &settings.metrics.captions, None)?;
    let checkpoint = match (&opened.run, opened.weights.is_none()) {
        // `…/checkpoints/epoch-0007/model.safetensors`
        (Some(_), true) => epoch_of(weights).map(|epoch| format!("epoch {epoch}")),
        _ => None,
    };
    Ok(Line::new(checkpoint.unwrap_or_else(|| weights.display().to_string()), split, found))
}

/// The epoch of a weights file in a run's folder of checkpoints.
fn epoch_of(weights: &Path) -> Option<usize> {
    weights.parent()?.file_name()?.to_str()?.strip_prefix("epoch-")?.parse().ok()
}

/// Scores of a weights file by `metrics`; the predictions are kept where `file` says so.
fn predict(
    opened: &Opened,
    weights: &Path,
    data: &SplitData,
    beams: usize,
    metrics: &[Metric],
    file: Option<&Path>,
) -> Result<SplitScores, Failure> {
    let model = opened.load(weights)?;
    let discarded = std::env::temp_dir().join(format!("vlp-eval-{}.json", std::process::id()));
    let target: PathBuf = file.map_or_else(|| discarded.clone(), Path::to_path_buf);
    let found = opened.evaluation().score(&model, data, beams, &target, metrics).map_err(evaluate_failure);
    if file.is_none() {
        // Nobody reads it; a left-over file in the temporary folder harms nothing.
        let _ = std::fs::remove_file(&discarded);
    }
    found
}

/// VQA has five scores of four kinds each. The table has those by the evaluator in use, and the overall accuracy by the other one
/// and of always giving the commonest answer.
fn has_column(metric: &str, evaluator: VqaEvaluator) -> bool {
    let other = match evaluator {
        VqaEvaluator::Official => "legacy",
        VqaEvaluator::Legacy => "official",
    };
    let is_vqa = ["_official", "_legacy"].iter().any(|end| metric.ends_with(end)) || metric.starts_with("majority_");
    !is_vqa || metric == format!("overall_{other}") || metric == "majority_overall"
}

fn table(lines: &[Line], evaluator: VqaEvaluator) -> String {
    let metrics =
        lines.iter().flat_map(|l| l.scores.keys()).filter(|m| has_column(m, evaluator)).collect::<BTreeSet<_>>();
    let mut metrics: Vec<&String> = metrics.into_iter().collect();
    metrics.sort_by_key(|metric| paper::order(metric));
    let header = ["Checkpoint", "Split"].map(str::to_owned).into_iter();
    let header: Vec<String> =
        header.chain(metrics.iter().map(|m| paper::score_title(m, evaluator))).chain(["Note".to_owned()]).collect();
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let cell =
                |metric: &&String| line.scores.get(*metric).map_or_else(|| "-".into(), |s| format!("{:.1}", s * 100.0));
            let start = [line.checkpoint.clone(), line.split.clone()].into_iter();
            start.chain(metrics.iter().map(cell)).chain([line.note.clone()]).collect()
        })
        .collect();
    output::table(&header, &rows, 2)
}

fn json(lines: &[Line]) -> String {
    let line = |l: &Line| serde_json::json!({ "checkpoint": l.checkpoint, "split": l.split, "scores": l.scores });
    let mut text = serde_json::Value::Array(lines.iter().map(line).collect()).to_string();
    text.push('\n');
    text
}
