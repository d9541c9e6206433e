//! Runs the trials of a sweep: as processes `vlp run FILE`, some at a time, watched through their journals.
//!
//! A trial that is to be stopped is asked through a file in its run folder, and ends at the boundary of an epoch. All
//! decisions stand in the study file before they take effect. The trials die with this process, however it ends; they are
//! resumed by the next one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::super::context::{Context, Failure, LayerArgs, exit};
use super::super::run::{Prepared, ReuseArgs, launch_failure, print, track_failure};
use super::super::tracking;
use super::{length, page, study_failure, table};
use crate::config::{MlflowMode, Sweep, SweepMethod};
use crate::launch::local::dies_with_this;
use crate::launch::signals::Signals;
use crate::pipeline::stage::Decision;
use crate::sweep::{
    Fixed, Outcome, Report, Study, Summary, Trial, best_file, best_tags, judge, proposal, trial_file, trial_name,
    values_of,
};
use crate::track::mlflow::ParentRun;
use crate::track::{Condition, Entry, Journal, RunDir, RunRecord, State, TrackError, now, read, write_atomic};

/// The experiment file with the best settings, in the folder of the sweep.
pub const BEST: &str = "best.toml";

/// The path of the sweep file, in the folder of the sweep.
pub const SOURCE: &str = "sweep-file";

/// Files and logs of the trials, in the folder of the sweep.
const TRIALS: &str = "trials";

/// Time between two looks at the trials.
const LOOK: Duration = Duration::from_millis(100);

/// A journal is read again after this many times the time that the last reading took.
const READING_SHARE: u32 = 20;

/// Brings a sweep to its end; `retry_failed` begins anew what failed before.
pub fn execute(sweep: &Sweep, layers: &LayerArgs, retry_failed: bool, context: &Context) -> Result<u8, Failure> {
    let study = Study::open(sweep).map_err(study_failure)?;
    let folder = study.folder().to_path_buf();
    let source = sweep.file.canonicalize().unwrap_or_else(|_| sweep.file.clone());
    write_atomic(&folder.join(SOURCE), format!("{}\n", source.display()).as_bytes()).map_err(track_failure)?;
    std::fs::create_dir_all(folder.join(TRIALS)).map_err(TrackError::io("create", &folder)).map_err(track_failure)?;
    let signals = Signals::watch().map_err(launch_failure)?;
    let mut runner =
        Runner { sweep, layers, context, study, folder, parent: None, running: Vec::new(), interrupted: 0 };
    runner.upstream()?;
    if retry_failed {
        runner.retry_failed()?;
    }
    let stopped = runner.work(&signals)?;
    runner.finish(stopped)
}

/// A trial at work.
struct Running {
    number: usize,
    child: Child,
    /// The run folder, once there is one.
    run: Option<RunDir>,
    values: Vec<(u64, f64)>,
    /// Epochs of its training.
    epochs: u64,
    /// Length of its journal when that was last read, and when to read it again.
    seen: (u64, Instant),
}

struct Runner<'a> {
    sweep: &'a Sweep,
    layers: &'a LayerArgs,
    context: &'a Context,
    study: Study,
    folder: PathBuf,
    parent: Option<ParentRun>,
    running: Vec<Running>,
    /// Trials that ended as ones that somebody else interrupted.
    interrupted: usize,
}

impl Runner<'_> {
    /// What the base starts from is finished before the trials: they would all begin with it.
    fn upstream(&self) -> Result<(), Failure> {
        // Runs of the base itself do not matter here.
        let reuse = ReuseArgs { fresh: true, allow_drift: false };
        let prepared = Prepared::new(std::slice::from_ref(&self.sweep.base.file), self.layers, &reuse, self.context)?;
        let own = prepared.stages.len().saturating_sub(1);
        for (stage, decided) in prepared.stages.iter().zip(&prepared.decided).take(own) {
            if matches!(decided.decision, Decision::Reuse(_)) {
                continue;
            }
            let file = &stage.experiment.file;
            self.say(&format!("upstream {}", file.display()));
            let mut command = self.vlp(file)?;
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|e| no_process(&e))?;
            if !status.success() {
                let help = "mend the cause above; the same command goes on";
                let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::TRAIN);
                let report = format!("{} failed, and the trials start from it\n  help: {help}", file.display());
                return Err(Failure::new(code, report));
            }
        }
        Ok(())
    }

    /// Trials that failed are as if they had not ended; their files are written anew, with the options of this command.
    fn retry_failed(&mut self) -> Result<(), Failure> {
        let failed = self.study.retry_failed().map_err(study_failure)?;
        if failed.is_empty() {
            self.say(&format!("note  no trial of the sweep {} has failed", self.sweep.settings.name));
        }
        for name in failed.into_iter().map(|number| trial_name(self.sweep, number)) {
            let file = self.folder.join(TRIALS).join(format!("{name}.toml"));
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(track_failure(TrackError::io("remove", &file)(error)));
                }
                _ => self.say(&format!("retry {name}")),
            }
        }
        Ok(())
    }

    /// `vlp run FILE` with the layers of this command, but `--set`: that stands in the files of the trials, and upstream
    /// experiments get none.
    fn vlp(&self, file: &Path) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|e| no_process(&e))?;
        let mut command = Command::new(program);
        command.args(["--quiet", "--color", "never", "run"]).arg(file);
        let layers = self.layers;
        for (flag, value) in
            [("--profile", &layers.profile), ("--device", &layers.device), ("--launcher", &layers.launcher)]
        {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        dies_with_this(&mut command);
        Ok(command)
    }

    /// Runs until all trials have ended or somebody asks for an end, which it says.
    fn work(&mut self, signals: &Signals) -> Result<bool, Failure> {
        let mut passed_on = 0;
        let mut unfinished: Vec<usize> =
            self.study.trials().iter().filter(|trial| trial.outcome.is_none()).map(|trial| trial.number).collect();
        unfinished.reverse();
        loop {
            let received = signals.count();
            if received > passed_on {
                let number = if passed_on == 0 { signals.to_pass_on() } else { libc::SIGKILL };
                self.running.iter().for_each(|trial| signal(&trial.child, number));
                passed_on = received;
            }
            self.look(received > 0)?;
            while received == 0 && self.running.len() < self.sweep.settings.parallel {
                let Some(number) = unfinished.pop().map_or_else(|| self.next(), |number| Ok(Some(number)))? else {
                    break;
                };
                self.start(number)?;
            }
            if self.running.is_empty() {
                return Ok(received > 0);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The number of a new trial; none when all have been asked, or when the next one has to wait for results.
    fn next(&mut self) -> Result<Option<usize>, Failure> {
        let number = self.study.trials().len();
        if number >= length(self.sweep) {
            return Ok(None);
        }
        let before = self.visible_to(number);
        if before.iter().any(|trial| trial.outcome.is_none()) && self.waits() {
            return Ok(None);
        }
        let Some(options) = proposal(self.sweep, number, &before) else { return Ok(None) };
        self.study.asked(options).map(Some).map_err(study_failure)
    }

    /// Whether proposals look at results: then a trial sees those of fixed trials, not of whichever were quicker, so that the
    /// same seed proposes the same trials.
    fn waits(&self) -> bool {
        self.sweep.settings.method == SweepMethod::Tpe
    }

    /// The trials that proposals and decisions about trial `number` may look at.
    fn visible_to(&self, number: usize) -> Vec<&Trial> {
        let until = if self.waits() { (number + 1).saturating_sub(self.sweep.settings.parallel) } else { usize::MAX };
        self.study.trials().iter().filter(|trial| trial.number < until && trial.number != number).collect()
    }

    fn start(&mut self, number: usize) -> Result<(), Failure> {
        let trial = self.study.trials()[number].clone();
        let name = trial_name(self.sweep, number);
        // It was to be stopped when the sweep was killed; at work it is no more.
        let run = self.run_of(number)?;
        let finished = run.as_ref().and_then(|run| RunRecord::read(run).ok()).map(|record| record.condition);
        if trial.pruned_after.is_some() && finished != Some(Condition::Finished) {
            let values = run.as_ref().map_or_else(|| Ok(Vec::new()), |run| self.values(run))?;
            return self.ended(number, Outcome::Pruned, run, values, String::new());
        }
        let trials = self.folder.join(TRIALS);
        let file = trials.join(format!("{name}.toml"));
        if !file.exists() {
            let threads = self.threads();
            let parent = self.parent_id();
            let results = self.folder.join("results");
            let fixed = self.fixed();
            let text = trial_file(self.sweep, &trial, &fixed, &trials, threads, parent.as_deref(), &results);
            write_atomic(&file, text.as_bytes()).map_err(track_failure)?;
        }
        let log = trials.join(format!("{name}.log"));
        let stderr = std::fs::File::options().append(true).create(true).open(&log);
        let stderr = stderr.map_err(TrackError::io("open", &log)).map_err(track_failure)?;
        let mut command = self.vlp(&file)?;
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(|e| no_process(&e))?;
        let epochs = trial.options.iter().find(|(key, _)| key == "train.epochs").and_then(|(_, value)| value.as_u64());
        let epochs = epochs.unwrap_or(self.sweep.base.settings.train.epochs as u64);
        let options: Vec<String> =
            trial.options.iter().map(|(key, value)| format!("{key}={}", crate::config::toml_text(value))).collect();
        self.say(&format!("start {name}  {}", options.join(" ")));
        self.running.push(Running { number, child, run: None, values: Vec::new(), epochs, seen: (0, Instant::now()) });
        Ok(())
    }

    /// Options that `--set`, `--device`, `--launcher` and `--profile` fix for all trials, as they were resolved.
    fn fixed(&self) -> Fixed {
        let settings = serde_json::to_value(&self.sweep.base.settings).unwrap_or_default();
        let layers = self.layers;
        // Trials have names, tables and folders of their own.
        let own = |key: &str| ["experiment.", "output.", "paper"].iter().any(|start| key.starts_with(start));
        let base = &self.sweep.base;
        let of_profile = base.origins.of_profiles(&base.settings).into_iter().filter(|(key, _)| !own(key));
        let value = |(key, _): (String, String)| {
            let value = settings.pointer(&format!("/{}", key.replace('.', "/")))?.clone();
            Some((key, value))
        };
        let options = layers.fixed().into_iter().filter_map(value).chain(of_profile).collect();
        Fixed { options, profile: layers.profile.clone() }
    }

    /// Threads of each process, where the base leaves them open: the trials share the processors.
    fn threads(&self) -> Option<usize> {
        let launch = &self.sweep.base.settings.launch;
        let searched = self.sweep.space.iter().any(|(key, _)| key == "launch.threads");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processes = self.sweep.settings.parallel * launch.world_size;
        (launch.threads == 0 && !searched && self.sweep.settings.parallel > 1).then(|| (processors / processes).max(1))
    }

    /// Id of the MLflow run of the sweep, where runs are told to a server that answers.
    fn parent_id(&mut self) -> Option<String> {
        if self.parent.is_none() {
            let track = &self.sweep.base.settings.track;
            let server = tracking::server().filter(|_| track.mlflow == MlflowMode::Auto)?;
            let tags = [
                ("vlp.sweep".to_owned(), self.sweep.settings.name.clone()),
                ("vlp.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("mlflow.source.name".to_owned(), self.sweep.file.display().to_string()),
                ("mlflow.note.content".to_owned(), self.sweep.settings.description.clone()),
            ];
            let (name, id) = (self.sweep.settings.name.as_str(), self.study.id());
            let opened = server
                .and_then(|server| ParentRun::open(server, &tracking::experiment(track), name, id, now(), &tags))
                .inspect_err(|error| tracing::warn!("the trial will have no parent run in MLflow: {error}"));
            self.parent = opened.ok();
        }
        self.parent.as_ref().map(|parent| parent.id().to_owned())
    }

    /// Looks at all running trials once.
    fn look(&mut self, stopping: bool) -> Result<(), Failure> {
        let mut index = 0;
        while index < self.running.len() {
            let status = self.running[index].child.try_wait().map_err(|e| no_process(&e))?;
            match status {
                Some(status) => {
                    let trial = self.running.remove(index);
                    self.over(&trial, status, stopping)?;
                }
                None => {
                    self.watch(index)?;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Reads what a trial has reached, and asks it to stop when others did better.
    fn watch(&mut self, index: usize) -> Result<(), Failure> {
        let number = self.running[index].number;
        if self.running[index].run.is_none() {
            self.running[index].run = self.run_of(number)?;
        }
        let Some(run) = self.running[index].run.clone() else { return Ok(()) };
        let length = std::fs::metadata(run.journal_file()).map_or(0, |data| data.len());
        let (seen, due) = self.running[index].seen;
        if length == seen || Instant::now() < due {
            return Ok(());
        }
        let started = Instant::now();
        let values = self.values(&run)?;
        self.running[index].seen = (length, Instant::now() + started.elapsed() * READING_SHARE);
        let more = values.len() > self.running[index].values.len();
        self.running[index].values = values;
        // Values are looked at when there is one more: others may have ended in between.
        if !more || self.study.trials()[number].pruned_after.is_some() {
            return Ok(());
        }
        let trial = &self.running[index];
        if let Some(epoch) = self.verdict(number, trial.epochs, &trial.values) {
            self.study.prune(number, epoch).map_err(study_failure)?;
            write_atomic(&run.stop_at_epoch_file(), format!("{}\n", self.pruned_by()).as_bytes())
                .map_err(track_failure)?;
        }
        Ok(())
    }

    /// The epoch after which a trial should go no further.
    fn verdict(&self, number: usize, epochs: u64, values: &[(u64, f64)]) -> Option<u64> {
        let others = self.running.iter().filter(|other| other.number != number);
        let others: Vec<Report> = others.map(|o| Report { number: o.number, values: &o.values }).collect();
        judge(self.sweep, epochs, Report { number, values }, &self.visible_to(number), &others)
    }

    fn pruned_by(&self) -> String {
        format!("pruned by the sweep {}", self.sweep.settings.name)
    }

    /// A trial's process has ended.
    fn over(&mut self, trial: &Running, status: ExitStatus, stopping: bool) -> Result<(), Failure> {
        let number = trial.number;
        let run = self.run_of(number)?;
        let values = run.as_ref().map_or_else(|| Ok(Vec::new()), |run| self.values(run))?;
        // A trial may be quicker than a look at it; what `tpe` sees later must not depend on that.
        if self.waits()
            && status.success()
            && self.study.trials()[number].pruned_after.is_none()
            && let Some(epoch) = self.verdict(number, trial.epochs, &values)
        {
            self.study.prune(number, epoch).map_err(study_failure)?;
        }
        let pruned = self.study.trials()[number].pruned_after.is_some();
        match status.code() {
            Some(0) if pruned && self.waits() => self.ended(number, Outcome::Pruned, run, values, String::new()),
            Some(0) if values.is_empty() => {
                let detail = format!("the journal has no value of `{}`", self.sweep.settings.metric);
                self.ended(number, Outcome::Failed, run, values, detail)
            }
            Some(0) => self.ended(number, Outcome::Complete, run, values, String::new()),
            Some(code) if code == i32::from(exit::RESUMABLE) && pruned => {
                self.ended(number, Outcome::Pruned, run, values, String::new())
            }
            Some(code) if code == i32::from(exit::RESUMABLE) => {
                self.interrupted += 1;
                Ok(())
            }
            // Killed after it was asked to end: it can be resumed.
            None if stopping => {
                self.interrupted += 1;
                Ok(())
            }
            _ => {
                let detail = self.why(number, run.as_ref(), status);
                self.ended(number, Outcome::Failed, run, values, detail)
            }
        }
    }

    fn ended(
        &mut self,
        number: usize,
        outcome: Outcome,
        run: Option<RunDir>,
        values: Vec<(u64, f64)>,
        detail: String,
    ) -> Result<(), Failure> {
        let name = trial_name(self.sweep, number);
        let sweep = &self.sweep.settings;
        let mut values = values;
        if let Some(epoch) = self.study.trials()[number].pruned_after.filter(|_| outcome == Outcome::Pruned) {
            values.retain(|(reached, _)| *reached <= epoch);
        }
        // A runner that was killed with the sweep could not say it.
        if let (Outcome::Pruned, Some(run)) = (outcome, &run)
            && RunRecord::read(run).is_ok_and(|record| matches!(record.condition, Condition::Died | Condition::Failed))
        {
            let journal = Journal::open(&run.journal_file()).map_err(track_failure)?;
            let entry = Entry::state(State::Interrupted, self.pruned_by());
            journal.append(&entry).and_then(|()| journal.sync()).map_err(track_failure)?;
        }
        let path = run.map(|run| run.path().to_path_buf()).unwrap_or_default();
        self.study.ended(number, outcome, path, values, detail.clone()).map_err(study_failure)?;
        let trial = &self.study.trials()[number];
        let best = trial.best(sweep.direction);
        let value = best.map_or_else(String::new, |value| format!("  {} {value:.4}", sweep.metric));
        self.say(&match outcome {
            Outcome::Complete => format!("done  {name}{value}"),
            Outcome::Pruned => format!("prune {name}{value}  after epoch {}", trial.pruned_after.unwrap_or_default()),
            Outcome::Failed => format!("fail  {name}  {detail}"),
        });
        Ok(())
    }

    /// Why a trial failed: what its run or its log says last, in one line.
    fn why(&self, number: usize, run: Option<&RunDir>, status: ExitStatus) -> String {
        let record = run.and_then(|run| RunRecord::read(run).ok()).map(|record| record.detail);
        let log = self.folder.join(TRIALS).join(format!("{}.log", trial_name(self.sweep, number)));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let said = log.lines().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
        said.or(record.filter(|detail| !detail.is_empty() && !detail.starts_with("process ")))
            .unwrap_or_else(|| status.to_string())
    }

    fn run_of(&self, number: usize) -> Result<Option<RunDir>, Failure> {
        let runs = Path::new(&self.sweep.base.settings.output.runs);
        RunDir::latest(runs, &trial_name(self.sweep, number)).map_err(track_failure)
    }

    fn values(&self, run: &RunDir) -> Result<Vec<(u64, f64)>, Failure> {
        Ok(values_of(&read(&run.journal_file()).map_err(track_failure)?, &self.sweep.settings.metric))
    }

    /// The table, the best settings, the report, and what MLflow is told.
    fn finish(mut self, stopped: bool) -> Result<u8, Failure> {
        let summary = Summary::of(self.sweep, self.study.trials());
        if let Some((number, value)) = summary.best {
            let text = best_file(self.sweep, &self.study.trials()[number], value, &self.fixed(), &self.folder);
            write_atomic(&self.folder.join(BEST), text.as_bytes()).map_err(track_failure)?;
        }
        let unfinished = stopped || self.interrupted > 0;
        // A sweep of which all trials were there already has nothing to tell.
        if let Some(parent) = self.parent.take() {
            let best = summary.best.map(|(number, value)| (trial_name(self.sweep, number), value));
            let tags = best_tags(best.as_ref().map(|(name, value)| (name.as_str(), *value)));
            if let Err(error) = parent.stands((!unfinished).then(now), &tags) {
                tracing::warn!("{error}");
            }
        }
        if let Err(failure) = page::write(self.sweep, &self.study, None) {
            let reason = failure.report.trim_end();
            eprintln!("warning: no report of {}: {reason}", self.folder.display());
        }
        print(&table(self.sweep, self.study.trials()))?;
        if unfinished {
            let help = format!("`vlp sweep resume {}` goes on", self.sweep.file.display());
            let report = format!("interrupted: {}\n  help: {help}", self.folder.display());
            return Err(Failure { code: exit::RESUMABLE, report });
        }
        if summary.best.is_none() {
            let help = format!("the logs in {} say why", self.folder.join(TRIALS).display());
            let report = format!("no trial of the sweep {} came to its end\n  help: {help}", self.sweep.settings.name);
            return Err(Failure::new(exit::TRAIN, report));
        }
        Ok(exit::OK)
    }

    fn say(&self, line: &str) {
        if !self.context.quiet {
            eprintln!("{line}");
        }
    }
}

fn signal(child: &Child, number: i32) {
    // SAFETY: kill has no memory effects; the process was not waited for, so the number is still its own.
    unsafe { libc::kill(child.id() as i32, number) };
}

fn no_process(error: &std::io::Error) -> Failure {
    let help = "check the limits of the system (`ulimit -u`), and that the program was not removed";
    Failure::new(exit::TRAIN, format!("cannot run `vlp run` for a trial: {error}\n  help: {help}"))
}
