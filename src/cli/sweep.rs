//! `vlp sweep`: searches over options of an experiment. What runs is in `sweep/run.rs`; here are the arguments, the plan and
//! the table.

mod page;
mod run;

use std::path::{Path, PathBuf};

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::list::columns;
use super::run::print;
use crate::config::{self, Launcher, Sweep, SweepMethod, SweepPruner, load_sweep, toml_text};
use crate::sweep::{Outcome, Study, StudyError, Summary, Trial, combinations, proposal, trial_name};

/// Search over options of an experiment.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the trials of a sweep; the same command again goes on.
    Run(FileArgs),
    /// Go on with a sweep that was started.
    Resume(ResumeArgs),
    /// Print the trials of a sweep, the best first, and how much each option mattered.
    Status(FileArgs),
    /// Print what a sweep would try, before anything runs.
    Plan(FileArgs),
}

/// What `resume` takes.
#[derive(Debug, clap::Args)]
struct ResumeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Run the trials that failed again, each from its newest checkpoint where it has one.
    #[arg(long)]
    retry_failed: bool,
}

/// A sweep file and the layers above its base experiment.
#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Sweep file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
}

impl FileArgs {
    fn load(&self, context: &Context) -> Result<Sweep, Failure> {
        let sweep =
            load_sweep(&self.file, &self.layers.overrides()).map_err(|problems| config_failure(&problems, context))?;
        let layers = &self.layers;
        let profile = format!("--profile {}", layers.profile.as_deref().unwrap_or_default());
        let of_profile = sweep.base.origins.of_profiles(&sweep.base.settings).into_keys();
        let of_profile = of_profile.map(|key| (key, profile.clone()));
        let mut given = layers.fixed().into_iter().chain(of_profile);
        let searched = |key: &String| sweep.space.iter().any(|(of_space, _)| of_space == key);
        if let Some((key, flag)) = given.find(|(key, _)| searched(key)) {
            let help = "leave one of them out";
            let what = if flag.contains(key.as_str()) { "an option".to_owned() } else { format!("`{key}`, an option") };
            let report = format!("`{flag}` fixes {what} that `[space]` searches over\n  help: {help}");
            return Err(Failure::new(exit::CONFIG, report));
        }
        let base = &sweep.base.settings;
        if base.launch.launcher == Launcher::Slurm && !base.slurm.wait {
            let help = "set `slurm.wait = true`, for example with `--set slurm.wait=true`";
            let report = format!("a sweep waits for its trials, but `slurm.wait` is false\n  help: {help}");
            return Err(Failure::new(exit::CONFIG, report));
        }
        Ok(sweep)
    }
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    match &args.command {
        Command::Run(args) => run::execute(&args.load(context)?, &args.layers, false, context),
        Command::Resume(args) => {
            let sweep = args.file.load(context)?;
            started(&sweep)?;
            run::execute(&sweep, &args.file.layers, args.retry_failed, context)
        }
        Command::Status(args) => {
            let sweep = args.load(context)?;
            print(&table(&sweep, started(&sweep)?.trials()))?;
            Ok(exit::OK)
        }
        Command::Plan(args) => {
            print(&plan(&args.load(context)?)?)?;
            Ok(exit::OK)
        }
    }
}

/// The study of a sweep that was started.
fn started(sweep: &Sweep) -> Result<Study, Failure> {
    Study::read(sweep).map_err(study_failure)?.ok_or_else(|| {
        study_failure(StudyError::NotStarted { name: sweep.settings.name.clone(), file: Study::file_of(sweep) })
    })
}

fn study_failure(error: StudyError) -> Failure {
    let code = match &error {
        StudyError::Track(_) => exit::TRAIN,
        StudyError::Differs { .. } | StudyError::Busy { .. } | StudyError::NotStarted { .. } => exit::CONFIG,
    };
    Failure::new(code, error)
}

/// How many trials there are to be.
fn length(sweep: &Sweep) -> usize {
    combinations(sweep).map_or(sweep.settings.trials, |all| all.min(sweep.settings.trials))
}

/// What would be tried: as far as it does not depend on results.
fn plan(sweep: &Sweep) -> Result<String, Failure> {
    let settings = &sweep.settings;
    let study = Study::read(sweep).map_err(study_failure)?;
    let known: Vec<Trial> = study.map(|study| study.trials().to_vec()).unwrap_or_default();
    let count = length(sweep);
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let method = name(serde_json::to_value(settings.method).unwrap_or_default());
    let pruner = match settings.pruner {
        SweepPruner::None => "nothing is stopped early".to_owned(),
        pruner => {
            format!("{} from epoch {}", name(serde_json::to_value(pruner).unwrap_or_default()), settings.min_epochs)
        }
    };
    let direction = name(serde_json::to_value(settings.direction).unwrap_or_default());
    let mut out = format!("sweep     {}: {count} trials, {} at a time\n", settings.name, settings.parallel);
    out.push_str(&format!("base      {}\n", sweep.base.file.display()));
    out.push_str(&format!("metric    {direction} {}\n", settings.metric));
    out.push_str(&format!("method    {method}, seed {}; {pruner}\n", settings.seed));
    out.push_str(&format!("folder    {}\n\n", Study::folder_of(sweep).display()));
    let foreseen = match settings.method {
        SweepMethod::Grid | SweepMethod::Random => count,
        SweepMethod::Tpe => count.min(settings.startup_trials),
    };
    let mut rows = Vec::new();
    for number in 0..count.max(known.len()) {
        let (options, state) = match known.get(number) {
            Some(trial) => (trial.options.clone(), outcome_text(trial.outcome).to_owned()),
            None if number < foreseen => (proposal(sweep, number, &[]).unwrap_or_default(), "to run".to_owned()),
            None => break,
        };
        rows.push([trial_name(sweep, number), state, options_text(&options)]);
    }
    let rest = count.saturating_sub(rows.len());
    out.push_str(&columns(&["trial", "state", "options"].map(String::from), &rows));
    if rest > 0 {
        out.push_str(&format!("and {rest} more, proposed from the results of those before\n"));
    }
    Ok(out)
}

fn options_text(options: &[(String, serde_json::Value)]) -> String {
    options.iter().map(|(key, value)| format!("{key}={}", toml_text(value))).collect::<Vec<_>>().join(" ")
}

fn outcome_text(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Complete) => "complete",
        Some(Outcome::Pruned) => "pruned",
        Some(Outcome::Failed) => "failed",
        None => "unfinished",
    }
}

/// The trials, the best first, with their differences from the base, and the importance of the options.
fn table(sweep: &Sweep, trials: &[Trial]) -> String {
    let summary = Summary::of(sweep, trials);
    let rows: Vec<[String; 5]> = summary
        .rows
        .iter()
        .map(|row| {
            let differences =
                if row.differences.is_empty() { "as the base".into() } else { options_text(&row.differences) };
            [
                trial_name(sweep, row.number),
                outcome_text(row.outcome).into(),
                row.value.map_or_else(|| "-".into(), |value| format!("{value:.4}")),
                row.epochs.to_string(),
                differences,
            ]
        })
        .collect();
    let metric = sweep.settings.metric.as_str();
    let mut out = columns(&["trial", "state", metric, "epochs", "differences from the base"].map(String::from), &rows);
    if !summary.importance.is_empty() {
        out.push_str("\nimportance (share of the variance that an option explains alone, fANOVA)\n");
        for one in &summary.importance {
            out.push_str(&format!("  {:<32}{:.2}\n", one.option, one.share));
        }
    }
    if summary.best.is_some() {
        let best = Study::folder_of(sweep).join(run::BEST);
        out.push_str(&format!("\nbest settings: {}\n", best.display()));
    }
    out
}

/// The sweep that `named` means: a sweep file, or the folder of a sweep, here or below the usual folder of runs.
pub fn find(named: &Path) -> Option<PathBuf> {
    if named.is_file() && config::is_sweep(named) {
        return Some(named.to_path_buf());
    }
    let usual = Path::new(&config::OutputSettings::default().runs).join(named);
    let recorded = |folder: PathBuf| std::fs::read_to_string(folder.join(run::SOURCE)).ok();
    let file = [named.to_path_buf(), usual].into_iter().find_map(recorded)?;
    Some(PathBuf::from(file.trim_end()))
}

/// Writes the report on a sweep into its folder, or to `out`; its path.
pub fn report(file: &Path, out: Option<&Path>, context: &Context) -> Result<PathBuf, Failure> {
    let layers = LayerArgs::default();
    let sweep = load_sweep(file, &layers.overrides()).map_err(|problems| config_failure(&problems, context))?;
    let study = started(&sweep)?;
    page::write(&sweep, &study, out)
}
