//! Runs the processes of a plan under Slurm: the batch script as a pure function of the settings, and the few commands
//! that submit, ask about and stop a job.
//!
//! Before its time is up, and when it is preempted, Slurm signals the workers; they save and end with exit code 75, and
//! the script puts the job back into the queue. Journal and states are written by rank 0.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::LaunchError;
use super::plan::Plan;
use crate::config::Settings;
use crate::track::{RunDir, TrackError, write_atomic};

/// Written by `vlp stop`: the script does not put the job back into the queue.
const STOPPED: &str = ".stopped";

/// Most seconds between two looks at the marks of the ranks.
const LOOK_S: u64 = 10;

/// A submitted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: String,
}

/// The batch script of a stage. `program` is the worker program, the same path on all nodes.
pub fn script(settings: &Settings, plan: &Plan) -> String {
    let (launch, slurm) = (&settings.launch, &settings.slurm);
    let run = plan.run.display().to_string();
    let mut lines = vec!["#!/bin/bash".to_owned()];
    let mut option = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("#SBATCH --{name}={value}"));
        }
    };
    option("job-name", format!("vlp-{}", settings.experiment.name));
    option("nodes", slurm.nodes.to_string());
    option("ntasks-per-node", (launch.world_size / slurm.nodes.max(1)).to_string());
    let number = |n: usize| if n == 0 { String::new() } else { n.to_string() };
    option("cpus-per-task", number(launch.threads));
    option("gpus-per-node", number(slurm.gpus_per_node));
    option("time", slurm.time.clone());
    option("partition", slurm.partition.clone());
    option("account", slurm.account.clone());
    option("constraint", slurm.constraint.clone());
    option("signal", format!("TERM@{}", slurm.signal_s));
    option("output", format!("{run}/slurm-%j.log"));
    option("open-mode", "append".into());
    lines.push(format!("#SBATCH --{}", if slurm.requeue { "requeue" } else { "no-requeue" }));
    lines.extend(slurm.extra.iter().map(|line| format!("#SBATCH {line}")));
    lines.push("set -u".into());
    lines.extend(slurm.setup.iter().cloned());
    let first_node = "$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)";
    let address = if slurm.nodes > 1 { first_node } else { "127.0.0.1" };
    lines.push(format!("export MASTER_ADDR={address} MASTER_PORT={}", launch.master_port));
    lines.push("export RUN_ATTEMPT=\"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}\"".into());
    if launch.threads > 0 {
        lines.push(format!("export OMP_NUM_THREADS={0} RAYON_NUM_THREADS={0}", launch.threads));
    }
    let worker: Vec<String> = plan.processes.first().map_or_else(Vec::new, |process| {
        std::iter::once(process.program.display().to_string()).chain(process.args.iter().cloned()).collect()
    });
    let worker: Vec<String> = worker.iter().map(|word| quoted(word)).collect();
    if launch.hang_timeout_s > 0 {
        lines.extend(watch(launch.hang_timeout_s, &plan.run));
    }
    let place = "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS";
    lines.push(format!("srun --kill-on-bad-exit=1 bash -c '{place}; exec \"$@\"' worker {}", worker.join(" ")));
    lines.push("code=$?".into());
    if launch.hang_timeout_s > 0 {
        lines.push("kill \"$watcher\"".into());
    }
    if slurm.requeue {
        let stopped = quoted(&plan.run.join(STOPPED).display().to_string());
        lines.push("# 75: saved before its end; on with it when there is room again.".into());
        lines.push(format!("[ \"$code\" -ne 75 ] || [ -e {stopped} ] || scontrol requeue \"$SLURM_JOB_ID\""));
    }
    lines.push("exit \"$code\"".into());
    lines.join("\n") + "\n"
}

/// Lines that end the processes with the job's step when none of them makes progress for `seconds`. As on one machine, progress
/// is a change of a rank's log or mark; its time is that of this node's clock, whatever the times of the files are.
fn watch(seconds: u64, run: &Path) -> Vec<String> {
    let ranks = quoted(&run.join("ranks").display().to_string());
    let pause = seconds.clamp(1, LOOK_S);
    let text = format!(
        "watch() {{\n\
         \x20   local now seen= since=$SECONDS step\n\
         \x20   while sleep {pause}; do\n\
         \x20       now=$(stat -c '%n %y %s' {ranks}/.*.alive {ranks}/*.log 2>/dev/null)\n\
         \x20       if [ \"$now\" != \"$seen\" ]; then seen=$now since=$SECONDS; continue; fi\n\
         \x20       [ $((SECONDS - since)) -ge {seconds} ] || continue\n\
         \x20       echo \"hung: no process made progress for {seconds} s (launch.hang_timeout_s); they are killed\" >&2\n\
         \x20       for step in $(squeue --steps --noheader --format=%i --jobs=\"$SLURM_JOB_ID\"); do\n\
         \x20           case $step in *.[0-9]*) scancel --signal=KILL \"$step\" ;; esac\n\
         \x20       done\n\
         \x20       since=$SECONDS\n\
         \x20   done\n\
         }}\n\
         watch & watcher=$!"
    );
    text.lines().map(str::to_owned).collect()
}

/// A word of a shell command.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Writes the script into the run folder and submits it. A job of this run that is still there is not submitted again.
pub fn submit(run: &RunDir, settings: &Settings, plan: &Plan) -> Result<Job, LaunchError> {
    if let Some(job) = job_of(run)
        && state(&job)?.is_some()
    {
        return Ok(job);
    }
    let stopped = run.path().join(STOPPED);
    match std::fs::remove_file(&stopped) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TrackError::io("remove", &stopped)(error).into());
        }
        _ => {}
    }
    let file = run.path().join("slurm.sh");
    write_atomic(&file, script(settings, plan).as_bytes())?;
    let said = call("sbatch", &["--parsable", &file.display().to_string()])?;
    // `id` or `id;cluster`.
    let id = said.trim().split(';').next().unwrap_or_default().to_owned();
    write_atomic(&job_file(run), format!("{id}\n").as_bytes())?;
    Ok(Job { id })
}

/// The job of a run, if it was submitted.
pub fn job_of(run: &RunDir) -> Option<Job> {
    let id = std::fs::read_to_string(job_file(run)).ok()?.trim().to_owned();
    (!id.is_empty()).then_some(Job { id })
}

/// What Slurm says about a job, e.g. `PENDING`; none when it is over.
pub fn state(job: &Job) -> Result<Option<String>, LaunchError> {
    let said = match call("squeue", &["--noheader", "--format=%T", "--jobs", &job.id]) {
        // A job that has been gone for a while.
        Err(LaunchError::Scheduler { said, .. }) if said.contains("Invalid job id") => return Ok(None),
        said => said?,
    };
    Ok(said.lines().next().map(|line| line.trim().to_owned()).filter(|state| !state.is_empty()))
}

/// Asks the workers of a job to save and end, and keeps the job from coming back; one that has not begun is cancelled.
pub fn stop(run: &RunDir, job: &Job) -> Result<(), LaunchError> {
    write_atomic(&run.path().join(STOPPED), b"")?;
    match state(job)?.as_deref() {
        None => Ok(()),
        Some("RUNNING") => call("scancel", &["--signal=TERM", &job.id]).map(|_| ()),
        Some(_) => call("scancel", &[&job.id]).map(|_| ()),
    }
}

fn job_file(run: &RunDir) -> PathBuf {
    run.path().join("slurm.job")
}

fn call(program: &'static str, arguments: &[&str]) -> Result<String, LaunchError> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|source| LaunchError::Spawn { rank: 0, program: Path::new(program).into(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(LaunchError::Scheduler { program, said })
}
