//! `vlp status`: all runs, where they stand and how far they came.

use std::path::PathBuf;

use super::context::{Context, Failure, exit};
use super::run::{print, track_failure};
use crate::launch::slurm;
use crate::track::{Condition, RunDir, RunRecord, duration_text, now};

/// List all runs with their state, epoch, loss and best score.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the runs.
    #[arg(value_name = "RUNS", default_value = "runs")]
    pub runs: PathBuf,
}

const HEADERS: [&str; 7] = ["Experiment", "Run", "State", "Epoch", "Loss", "Best", "Last entry"];

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    if !args.runs.is_dir() {
        let help = "give the folder that `output.runs` names, or run an experiment first";
        let report = format!("there is no folder of runs `{}`\n  help: {help}", args.runs.display());
        return Err(Failure::new(exit::CONFIG, report));
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(HEADERS);
    let runs = RunDir::all(&args.runs).map_err(track_failure)?;
    for run in &runs {
        match RunRecord::read(run) {
            Ok(record) => {
                let mut row = row(&record);
                if let Some(state) = slurm_state(&record) {
                    row[2] = format!("{} (job {state})", row[2]);
                }
                table.add_row(row)
            }
            Err(error) => {
                if !context.quiet {
                    eprintln!("warning: {error}");
                }
                let experiment = run.path().parent().and_then(|p| p.file_name()).unwrap_or_default();
                let (experiment, id) = (experiment.to_string_lossy().into_owned(), run.id());
                table.add_row([experiment, id, "unreadable".into()])
            }
        };
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    print(&format!("{}\n", lines.join("\n")))?;
    Ok(exit::OK)
}

/// Number and state of the job of a run that is not finished; none without Slurm.
fn slurm_state(record: &RunRecord) -> Option<String> {
    let job = slurm::job_of(&record.run).filter(|_| record.condition != Condition::Finished)?;
    let state = slurm::state(&job).ok()??;
    Some(format!("{} {}", job.id, state.to_lowercase()))
}

fn row(record: &RunRecord) -> [String; 7] {
    let settings = &record.lock.settings;
    let metric = crate::track::selection_metric(settings).unwrap_or_default();
    let best = record.best_score.zip(record.best_epoch);
    let age = record.last_entry.map(|time| now().duration_since(time).unsigned_abs());
    [
        settings.experiment.name.clone(),
        record.run.id(),
        record.condition.to_string(),
        format!("{}/{}", record.last_epoch.unwrap_or(0), settings.train.epochs),
        record.last_loss.map_or_else(|| "-".into(), |loss| format!("{loss:.3}")),
        best.map_or_else(|| "-".into(), |(score, epoch)| format!("{metric} {:.1} (epoch {epoch})", score * 100.0)),
        age.map_or_else(|| "-".into(), |age| format!("{} ago", duration_text(age))),
    ]
}
