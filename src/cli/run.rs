//! `vlp run`: brings an experiment, and all it descends from, to a finished state; prints its tables.
//!
//! What is finished already is reused, what is unfinished is resumed. Deciding that is left to `pipeline`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::facts::facts;
use super::table;
use crate::config::{self, Experiment, Launcher, Overrides, Settings};

use crate::launch::LaunchError;
use crate::launch::local::{self, Outcome};
use crate::launch::plan::{self, Machine, Plan};
use crate::launch::triage::{Cause, RankFailure};
use crate::launch::{slurm, supervise};
use crate::model::device;
use crate::pipeline::PipelineError;
use crate::pipeline::lineage::{self, LineageError};
use crate::pipeline::stage::{self, Candidate, Decided, Decision, Upstream};
use crate::track::{Condition, RunDir, RunRecord, TrackError};

/// Time between two questions to Slurm.
const SLURM_POLL: Duration = Duration::from_secs(2);

/// Train and evaluate an experiment and all it starts from; the same command again resumes or reuses.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file.
    pub file: PathBuf,
    #[command(flatten)]
    /// Layers above the file.
    pub layers: LayerArgs,
    /// Print the plan and stop; the same as `vlp plan`.
    #[arg(long)]
    pub dry_run: bool,
    /// Start a new run of this experiment beside those there are.
    #[arg(long)]
    pub fresh: bool,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let prepared = Prepared::new(&args.file, &args.layers, args.fresh, context)?;
    if args.dry_run {
        print(&prepared.describe(context)?)?;
        return Ok(exit::OK);
    }
    let last = prepared.chain.len() - 1;
    if prepared.decided.iter().any(|d| !matches!(d.decision, Decision::Reuse(_))) {
        summarise(&prepared, context);
    }
    let mut upstream = None;
    for (index, candidate) in prepared.chain.iter().enumerate() {
        let Some(record) = run_stage(candidate, upstream.as_ref(), args.fresh && index == last, args, context)? else {
            return Ok(exit::OK);
        };
        upstream = Some(Upstream::Ready(Box::new(record)));
    }
    print_tables(&prepared.chain[last].experiment, context)?;
    Ok(exit::OK)
}

/// A chain of experiments with all that is known and decided before anything runs.
pub struct Prepared {
    /// The stages, upstream first.
    pub chain: Vec<Candidate>,
    /// What happens to each.
    pub decided: Vec<Decided>,
}

impl Prepared {
    /// Loads the experiment in `file` and its upstream experiments, asks for their facts and decides all stages.
    pub fn new(file: &Path, layers: &LayerArgs, fresh: bool, context: &Context) -> Result<Self, Failure> {
        let target = config::load(file, &layers.overrides()).map_err(|problems| config_failure(&problems, context))?;
        let experiments = lineage::resolve(target, &inherited(layers)).map_err(|e| lineage_failure(e, context))?;
        let mut chain = Vec::new();
        for experiment in experiments {
            if !experiment.warnings.0.is_empty() {
                eprint!("{}", experiment.warnings.render(context.color));
            }
            let facts = facts(&experiment.settings).map_err(|e| Failure::new(exit::DATA, e))?;
            chain.push(Candidate { experiment, facts });
        }
        let decided = stage::decide_all(&chain, fresh).map_err(pipeline_failure)?;
        Ok(Self { chain, decided })
    }

    /// The full plan.
    pub fn describe(&self, context: &Context) -> Result<String, Failure> {
        Ok(stage::describe(&self.chain, &self.decided, &machine(context)?))
    }
}

/// Prints to stdout; a reader that has gone is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let help = "check what stdout is redirected to";
            Err(Failure::new(exit::TRAIN, format!("cannot write to stdout: {error}\n  help: {help}")))
        }
        _ => Ok(()),
    }
}

/// The layers that upstream experiments get too: all but `--set`.
fn inherited(layers: &LayerArgs) -> Overrides {
    LayerArgs { set: Vec::new(), ..layers.clone() }.overrides()
}

/// This machine.
fn machine(context: &Context) -> Result<Machine, Failure> {
    let program = std::env::current_exe().map_err(|e| {
        let help = "start `vlp` by its full path";
        Failure::new(exit::TRAIN, format!("cannot find the path of this program: {e}\n  help: {help}"))
    })?;
    Ok(Machine {
        program,
        extra_args: if context.quiet { vec!["--quiet".into()] } else { Vec::new() },
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        master_port: None,
    })
}

fn summarise(prepared: &Prepared, context: &Context) {
    if context.quiet {
        return;
    }
    for (candidate, decided) in prepared.chain.iter().zip(&prepared.decided) {
        if matches!(decided.decision, Decision::Reuse(_)) {
            continue;
        }
        let settings = &candidate.experiment.settings;
        let needs = plan::needs(settings, &candidate.facts);
        eprintln!("plan  {}: {needs}", settings.experiment.name);
    }
}

/// Brings one stage to a finished state and returns its record; none when a job was submitted that nobody waits for.
fn run_stage(
    candidate: &Candidate,
    upstream: Option<&Upstream>,
    fresh: bool,
    args: &Args,
    context: &Context,
) -> Result<Option<RunRecord>, Failure> {
    let mut decided = stage::decide(candidate, upstream, fresh).map_err(pipeline_failure)?;
    let settings = &candidate.experiment.settings;
    decided.lock.device = device::resolve(&settings.launch.device).to_owned();
    let run = match &decided.decision {
        Decision::Reuse(run) | Decision::Resume(run) => run.clone(),
        Decision::Start => RunDir::create(Path::new(&settings.output.runs), &decided.lock).map_err(track_failure)?,
    };
    if !context.quiet {
        eprintln!("stage {}", stage::line(&decided, run.path()));
        decided.notes.iter().for_each(|note| eprintln!("note  {note}"));
    }
    if matches!(decided.decision, Decision::Reuse(_)) {
        return RunRecord::read(&run).map(Some).map_err(track_failure);
    }
    let mut machine = machine(context)?;
    let launch = &settings.launch;
    if launch.launcher == Launcher::Slurm {
        let plan = plan::plan(settings, &candidate.facts, &machine, run.path());
        return run_under_slurm(&run, &plan, settings, args, context);
    }
    let mut processes = |_attempt: usize| {
        // A port is only looked for when several processes need one; each attempt may get another.
        if launch.world_size > 1 {
            machine.master_port = Some(local::free_port()?);
        }
        Ok(plan::plan(settings, &candidate.facts, &machine, run.path()).processes)
    };
    match supervise::run(&run, launch, &mut processes).map_err(launch_failure)? {
        Outcome::Finished => {
            if !context.quiet {
                eprintln!("done  {}", run.path().display());
            }
            RunRecord::read(&run).map(Some).map_err(track_failure)
        }
        Outcome::Interrupted => Err(interrupted(&run, args)),
        Outcome::Failed(failure) => Err(failed(&run, &failure, args)),
    }
}

/// Submits a stage and, where asked for, waits until its job is over.
fn run_under_slurm(
    run: &RunDir,
    plan: &Plan,
    settings: &Settings,
    args: &Args,
    context: &Context,
) -> Result<Option<RunRecord>, Failure> {
    let job = slurm::submit(run, settings, plan).map_err(launch_failure)?;
    if !context.quiet {
        eprintln!("job   {} runs {}; `vlp stop` ends it", job.id, run.path().display());
    }
    if !settings.slurm.wait {
        eprintln!("note  nobody waits for it; {} goes on with what follows when it is over", same_command(args));
        return Ok(None);
    }
    while slurm::state(&job).map_err(launch_failure)?.is_some() {
        std::thread::sleep(SLURM_POLL);
    }
    let record = RunRecord::read(run).map_err(track_failure)?;
    match record.condition {
        Condition::Finished => Ok(Some(record)),
        Condition::Interrupted => Err(interrupted(run, args)),
        condition => {
            let said = if record.detail.is_empty() { condition.to_string() } else { record.detail };
            let log = run.path().join(format!("slurm-{}.log", job.id));
            let help = format!("read {}; {} goes on from the last checkpoint", log.display(), same_command(args));
            let report = format!("job {} ended and left {}: {said}\n  help: {help}", job.id, run.path().display());
            Err(Failure::new(exit::TRAIN, report))
        }
    }
}

fn interrupted(run: &RunDir, args: &Args) -> Failure {
    let report = format!("interrupted: {}\n  help: {} resumes it", run.path().display(), same_command(args));
    Failure { code: exit::RESUMABLE, report }
}

/// Exit codes for wrong configuration or data pass through; everything else is a failed training.
fn failed(run: &RunDir, failure: &RankFailure, args: &Args) -> Failure {
    let code = match failure.cause {
        Cause::Configuration => exit::CONFIG,
        Cause::Data => exit::DATA,
        _ => exit::TRAIN,
    };
    let help = format!("{}; {} goes on from the last checkpoint", failure.cause.advice(), same_command(args));
    Failure::new(code, format!("{} failed: {failure}\n  help: {help}", run.path().display()))
}

/// How to name the command that resumes a run; `--fresh` would start yet another one.
fn same_command(args: &Args) -> String {
    let without = if args.fresh { ", but without --fresh," } else { "" };
    format!("`vlp run {}` with the same options{without}", args.file.display())
}

/// Writes all tables and prints those with a row of `experiment`.
fn print_tables(experiment: &Experiment, context: &Context) -> Result<(), Failure> {
    let rows = &experiment.settings.paper;
    let tables = table::collect_with(experiment)?;
    table::write(&tables)?;
    let own: Vec<_> = tables.into_iter().filter(|t| rows.iter().any(|row| row.table == t.name)).collect();
    if own.is_empty() && !context.quiet {
        eprintln!("note  {} has no [[paper]] rows, so there is no table to print", experiment.file.display());
    }
    print(&table::text(&own, None, context))
}

fn lineage_failure(error: LineageError, context: &Context) -> Failure {
    match error {
        LineageError::Config(problems) => config_failure(&problems, context),
        other => Failure::new(exit::CONFIG, other),
    }
}

fn pipeline_failure(error: PipelineError) -> Failure {
    let code = match error {
        PipelineError::Track(_) => exit::TRAIN,
        PipelineError::Select(_) | PipelineError::Refused(_) => exit::CONFIG,
    };
    Failure::new(code, error)
}

/// A failure to run processes.
pub fn launch_failure(error: LaunchError) -> Failure {
    Failure::new(exit::TRAIN, error)
}

/// A failure of the records of a run.
pub fn track_failure(error: TrackError) -> Failure {
    Failure::new(exit::TRAIN, error)
}
