//! Runs the processes of a plan to their end: holds the run folder, keeps the journal's states, and tries again from the
//! newest checkpoint after a failure that need not recur.

use std::time::Duration;

use super::LaunchError;
use super::local::{Outcome, attempt};
use super::plan::Process;
use super::signals::Signals;
use crate::config::LaunchSettings;
use crate::track::{Entry, Journal, RunDir, State, TrackError};

/// Number of the attempt, in the environment of its processes: ranks of different attempts do not meet.
pub const ATTEMPT: &str = "RUN_ATTEMPT";

/// Runs the processes that `processes` gives for each attempt, counted from 0, in the folder `run`, until all have ended
/// well, or there is nothing left to try. A folder that another runner holds is refused. The calling thread must live as
/// long as the program: the processes die with it.
pub fn run(
    run: &RunDir,
    limits: &LaunchSettings,
    processes: &mut dyn FnMut(usize) -> Result<Vec<Process>, LaunchError>,
) -> Result<Outcome, LaunchError> {
    let _held = run.hold()?;
    // What an earlier runner was asked is no word to this one.
    match std::fs::remove_file(run.stop_at_epoch_file()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TrackError::io("remove", &run.stop_at_epoch_file())(error).into());
        }
        _ => {}
    }
    let journal = Journal::open(&run.journal_file())?;
    let signals = Signals::watch()?;
    let hang_timeout = (limits.hang_timeout_s > 0).then(|| Duration::from_secs(limits.hang_timeout_s));
    for number in 0.. {
        record(&journal, State::Running, format!("process {}", std::process::id()))?;
        let outcome = processes(number).and_then(|mut processes| {
            for process in &mut processes {
                process.env.insert(ATTEMPT.into(), number.to_string());
            }
            attempt(run, &processes, &signals, hang_timeout)
        });
        match &outcome {
            Ok(Outcome::Finished) => record(&journal, State::Finished, String::new())?,
            Ok(Outcome::Interrupted) => {
                // Who asks for an end at the boundary of an epoch says why.
                let why = std::fs::read_to_string(run.stop_at_epoch_file()).unwrap_or_default();
                record(&journal, State::Interrupted, why.trim_end())?;
            }
            Ok(Outcome::Failed(failure)) => {
                let detail = failure.headline();
                record(&journal, State::Failed, &*detail)?;
                if number < limits.max_restarts && !failure.cause.recurs() && signals.count() == 0 {
                    let left = limits.max_restarts - number;
                    tracing::warn!("{failure}");
                    let note = format!("{detail}; starting again from the newest checkpoint ({left} restarts left)");
                    tracing::warn!("{note}");
                    journal.append(&Entry::warning(note))?;
                    continue;
                }
            }
            Err(error) => record(&journal, State::Failed, error.to_string())?,
        }
        return outcome;
    }
    Ok(Outcome::Finished)
}

fn record(journal: &Journal, state: State, detail: impl Into<String>) -> Result<(), TrackError> {
    journal.append(&Entry::state(state, detail))?;
    journal.sync()
}
