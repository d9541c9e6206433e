//! `vlp stop`: asks a run to save and end, wherever its processes are.

use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::logs::find;
use super::run::{launch_failure, track_failure};
use crate::config::OutputSettings;
use crate::launch::slurm;
use crate::track::{RunDir, State, What, read};

/// Ask a run to save a checkpoint and end; `vlp run` resumes it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder, experiment (its newest run), or `<experiment>/<run id>` below `runs`.
    pub run: PathBuf,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let run = find(&args.run, Path::new(&OutputSettings::default().runs))?;
    let job = slurm::job_of(&run);
    let how = match job {
        Some(job) if slurm::state(&job).map_err(launch_failure)?.is_some() => {
            slurm::stop(&run, &job).map_err(launch_failure)?;
            format!("job {}", job.id)
        }
        _ => {
            let process = process_of(&run)?;
            // SAFETY: kill has no memory effects.
            if unsafe { libc::kill(process, libc::SIGTERM) } != 0 {
                let error = std::io::Error::last_os_error();
                let help = "stop it on the machine, and as the user, that runs it";
                let report =
                    format!("cannot signal process {process} of {}: {error}\n  help: {help}", run.path().display());
                return Err(Failure::new(exit::TRAIN, report));
            }
            format!("process {process}")
        }
    };
    if !context.quiet {
        eprintln!("asked {how} to stop: {} saves at its next step and ends", run.path().display());
    }
    Ok(exit::OK)
}

/// The process at work in a run on this machine: the one that the journal named last.
fn process_of(run: &RunDir) -> Result<i32, Failure> {
    let idle = || {
        let help = "`vlp status` shows where it stands";
        Failure::new(exit::CONFIG, format!("nothing runs in `{}`\n  help: {help}", run.path().display()))
    };
    if !run.is_held() {
        return Err(idle());
    }
    let entries = read(&run.journal_file()).map_err(track_failure)?;
    let process = entries.iter().rev().find_map(|entry| match &entry.what {
        What::State { state: State::Running, detail } => detail.strip_prefix("process ")?.parse::<i32>().ok(),
        _ => None,
    });
    process.filter(|process| *process > 0).ok_or_else(idle)
}
