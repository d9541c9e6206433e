//! `vlp run`: brings experiments, and all they descend from, to a finished state; prints their tables.
//!
//! What is finished already is reused, what is unfinished is resumed. Deciding that is left to `pipeline`. With several
//! files a failure stops what descends from it; the other experiments run, and the exit code is that of the first failure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::equivalence;
use super::facts::facts;
use super::report::after_run;
use super::table;
use super::tracking::{self, Tracking};
use crate::config::{self, Experiment, Launcher, Overrides, Problems, Settings, gpus_of};

use crate::launch::LaunchError;
use crate::launch::local::{self, Outcome};
use crate::launch::plan::{self, Machine, Plan};
use crate::launch::triage::{Cause, RankFailure, gpu_capacity};
use crate::launch::{memory, slurm, supervise};
use crate::model::device;
use crate::pipeline::PipelineError;
use crate::pipeline::lineage::{self, LineageError, Source};
use crate::pipeline::stage::{self, Candidate, Decided, Decision, Request, Upstream};
use crate::track::{Condition, RunDir, RunRecord, TrackError};

/// Time between two questions to Slurm.
const SLURM_POLL: Duration = Duration::from_secs(2);

/// Train and evaluate experiments and all they start from; the same command again resumes or reuses.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment files; what several start from runs once.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    /// Layers above the files.
    pub layers: LayerArgs,
    /// Print the plan and stop; the same as `vlp plan`.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    /// Which earlier runs count.
    pub reuse: ReuseArgs,
}

/// Flags that say which earlier runs count.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReuseArgs {
    /// Start new runs of these experiments beside those there are.
    #[arg(long)]
    pub fresh: bool,
    /// Use finished runs although their data, or the program that trained them, differ.
    #[arg(long)]
    pub allow_drift: bool,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let prepared = Prepared::new(&args.files, &args.layers, &args.reuse, context)?;
    if args.dry_run {
        print(&prepared.describe(context)?)?;
        return Ok(exit::OK);
    }
    if prepared.decided.iter().any(|d| !matches!(d.decision, Decision::Reuse(_))) {
        summarise(&prepared, context);
    }
    let mut done: BTreeMap<&str, Upstream> = BTreeMap::new();
    let mut failures: Vec<(&str, Failure)> = Vec::new();
    let mut skipped: Vec<String> = Vec::new();
    let mut submitted = false;
    for candidate in &prepared.stages {
        let name = candidate.experiment.settings.experiment.name.as_str();
        let upstream = match lineage::source(&candidate.experiment.settings.init) {
            Source::Experiment(upstream) => match done.get(upstream.as_str()) {
                Some(upstream) => Some(upstream),
                // A submitted job goes on by itself; the same command continues when it is over.
                None if submitted => continue,
                None => {
                    skipped.push(format!("{name} (starts from {upstream})"));
                    continue;
                }
            },
            Source::Random | Source::Checkpoint(_) => None,
        };
        match run_stage(candidate, upstream, &prepared.request, args, context) {
            Ok(Some(record)) => drop(done.insert(name, Upstream::Ready(Box::new(record)))),
            Ok(None) => submitted = true,
            // One file is one chain: all that follows descends from it.
            Err(failure) if args.files.len() == 1 || failure.code == exit::RESUMABLE => return Err(failure),
            Err(failure) => {
                eprintln!("{}", failure.report.trim_end());
                failures.push((name, failure));
            }
        }
    }
    if submitted && failures.is_empty() {
        return Ok(exit::OK);
    }
    let named: Vec<&Experiment> = prepared.named().map(|candidate| &candidate.experiment).collect();
    print_tables(&named, context)?;
    for upstream in done.values() {
        if let Upstream::Ready(record) = upstream {
            tracking::send_tables(record);
        }
    }
    match failures.first() {
        None => Ok(exit::OK),
        Some((_, first)) => Err(Failure { code: first.code, report: unfinished(&failures, &skipped) }),
    }
}

/// What is left to do after failures.
fn unfinished(failures: &[(&str, Failure)], skipped: &[String]) -> String {
    let names = failures.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut report = format!("error: failed: {names}");
    if !skipped.is_empty() {
        report.push_str(&format!("; not started: {}", skipped.join(", ")));
    }
    report.push_str("\n  help: mend the causes above; the same command goes on, and what is finished is reused");
    report
}

/// Experiments with all that is known and decided before anything runs.
pub struct Prepared {
    /// The stages, upstream before downstream, each once.
    pub stages: Vec<Candidate>,
    /// What happens to each.
    pub decided: Vec<Decided>,
    /// What was asked for.
    request: Request,
    /// Names of the experiments whose files were named.
    names: BTreeSet<String>,
}

impl Prepared {
    /// Loads the experiments in `files` and those they start from, asks for their facts and decides all stages.
    pub fn new(files: &[PathBuf], layers: &LayerArgs, reuse: &ReuseArgs, context: &Context) -> Result<Self, Failure> {
        let targets = load_all(files, layers, context)?;
        let names: BTreeSet<String> = targets.iter().map(|e| e.settings.experiment.name.clone()).collect();
        let experiments = lineage::resolve_all(targets, &inherited(layers)).map_err(|e| lineage_failure(e, context))?;
        let mut stages = Vec::new();
        for experiment in experiments {
            if !experiment.warnings.0.is_empty() {
                eprint!("{}", experiment.warnings.render(context.color));
            }
            let facts = facts(&experiment.settings).map_err(|e| Failure::new(exit::DATA, e))?;
            stages.push(Candidate { experiment, facts });
        }
        let fresh = if reuse.fresh { names.clone() } else { BTreeSet::new() };
        let request = Request { fresh, allow_drift: reuse.allow_drift };
        let mut decided = stage::decide_all(&stages, &request).map_err(pipeline_failure)?;
        for (candidate, decided) in stages.iter().zip(&mut decided) {
            if let Some(comparison) = equivalence::with_paper(&candidate.experiment) {
                decided.notes.push(comparison.title());
                decided.notes.extend(comparison.lines());
            }
        }
        Ok(Self { stages, decided, request, names })
    }

    /// The stages whose files were named.
    pub fn named(&self) -> impl Iterator<Item = &Candidate> {
        self.stages.iter().filter(|stage| self.names.contains(&stage.experiment.settings.experiment.name))
    }

    /// The full plan.
    pub fn describe(&self, context: &Context) -> Result<String, Failure> {
        Ok(stage::describe(&self.stages, &self.decided, &machine(context)?))
    }
}

/// Loads all files; the mistakes of all are reported together.
fn load_all(files: &[PathBuf], layers: &LayerArgs, context: &Context) -> Result<Vec<Experiment>, Failure> {
    let mut experiments = Vec::new();
    let mut problems = Problems::default();
    for file in files {
        match config::load(file, &layers.overrides()) {
            Ok(experiment) => experiments.push(experiment),
            // A mistake in a fragment that several files extend is reported once.
            Err(found) => {
                problems.0.extend(found.0.into_iter().filter(|p| !problems.0.contains(p)).collect::<Vec<_>>())
            }
        }
    }
    if problems.0.is_empty() { Ok(experiments) } else { Err(config_failure(&problems, context)) }
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
    for (candidate, decided) in prepared.stages.iter().zip(&prepared.decided) {
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
    request: &Request,
    args: &Args,
    context: &Context,
) -> Result<Option<RunRecord>, Failure> {
    let mut decided = stage::decide(candidate, upstream, request).map_err(pipeline_failure)?;
    let settings = &candidate.experiment.settings;
    decided.lock.device = resolved_device(settings);
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
    let gpus = gpus_of(&decided.lock.device, launch.world_size);
    let tracking = Tracking::start(&run, settings, Some(gpus), context);
    let outcome = supervise::run(&run, launch, &mut processes);
    tracking.finish();
    match outcome.map_err(launch_failure)? {
        Outcome::Finished => {
            after_run(&run);
            if !context.quiet {
                eprintln!("done  {}", run.path().display());
            }
            RunRecord::read(&run).map(Some).map_err(track_failure)
        }
        Outcome::Interrupted => Err(interrupted(&run, args)),
        Outcome::Failed(failure) => Err(failed(&run, &failure, candidate, args)),
    }
}

/// `launch.device` with `auto` resolved for the processes of one machine.
pub fn resolved_device(settings: &Settings) -> String {
    let nodes = if settings.launch.launcher == Launcher::Slurm { settings.slurm.nodes } else { 1 };
    device::resolve(&settings.launch.device, settings.launch.processes_per_machine(nodes))
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
    let tracking = Tracking::start(run, settings, None, context);
    let waited = loop {
        match slurm::state(&job) {
            Ok(Some(_)) => std::thread::sleep(SLURM_POLL),
            over => break over,
        }
    };
    tracking.finish();
    waited.map_err(launch_failure)?;
    let record = RunRecord::read(run).map_err(track_failure)?;
    match record.condition {
        Condition::Finished => {
            after_run(run);
            Ok(Some(record))
        }
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
fn failed(run: &RunDir, failure: &RankFailure, candidate: &Candidate, args: &Args) -> Failure {
    let code = match failure.cause {
        Cause::Configuration => exit::CONFIG,
        Cause::Data => exit::DATA,
        _ => exit::TRAIN,
    };
    let settings = &candidate.experiment.settings;
    let fits = match (failure.cause, gpu_capacity(&failure.last_lines.join("\n"))) {
        (Cause::OutOfMemory, Some(bytes)) => match memory::largest_batch(settings, &candidate.facts, bytes) {
            // The estimate said it would fit.
            Some(batch) if batch == settings.train.batch_size => String::new(),
            Some(batch) => {
                format!(" (by the estimate of `vlp plan`, a batch of {batch} fits into {})", plan::bytes_text(bytes))
            }
            None => format!(" (by the estimate of `vlp plan`, no batch fits into {})", plan::bytes_text(bytes)),
        },
        _ => String::new(),
    };
    let help = format!("{}{fits}; {} goes on from the last checkpoint", failure.cause.advice(), same_command(args));
    Failure::new(code, format!("{} failed: {failure}\n  help: {help}", run.path().display()))
}

/// How to name the command that resumes a run; `--fresh` would start yet another one.
fn same_command(args: &Args) -> String {
    let without = if args.reuse.fresh { ", but without --fresh," } else { "" };
    let files = args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
    format!("`vlp run {files}` with the same options{without}")
}

/// Writes all tables and prints those with a row of `experiments`.
fn print_tables(experiments: &[&Experiment], context: &Context) -> Result<(), Failure> {
    let rows: Vec<_> = experiments.iter().flat_map(|experiment| &experiment.settings.paper).collect();
    let tables = table::collect_with(experiments)?;
    table::write(&tables)?;
    let own: Vec<_> = tables.into_iter().filter(|t| rows.iter().any(|row| row.table == t.name)).collect();
    if let ([one], true, false) = (experiments, own.is_empty(), context.quiet) {
        eprintln!("note  {} has no [[paper]] rows, so there is no table to print", one.file.display());
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
        PipelineError::Select(_) | PipelineError::Refused(_) | PipelineError::Drift(_) => exit::CONFIG,
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
