//! `vlp track sync`: sends to the MLflow server what it lacks of runs, each point once.

use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::logs::find;
use super::run::track_failure;
use super::tracking::{experiment, server, tables};
use crate::config::{MlflowMode, OutputSettings};
use crate::track::mlflow::{Artifact, MlflowError, Server, Sink};
use crate::track::{RunDir, RunRecord};

/// Tell an MLflow server what it lacks of runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send all points and files of runs that the server at MLFLOW_TRACKING_URI does not have; can be repeated.
    Sync(SyncArgs),
}

#[derive(Debug, clap::Args)]
struct SyncArgs {
    /// Run folders, experiments (their newest run), or `<experiment>/<run id>` below `runs`; all runs below `runs` by default.
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let Command::Sync(args) = &args.command;
    let server = server().ok_or_else(|| {
        let help = "set it to the address of the server, e.g. `export MLFLOW_TRACKING_URI=http://127.0.0.1:5000`";
        Failure::new(exit::CONFIG, format!("MLFLOW_TRACKING_URI is not set\n  help: {help}"))
    })?;
    let server = server.map_err(|error| Failure::new(exit::CONFIG, error))?;
    let folder = OutputSettings::default().runs;
    let runs = match args.runs.as_slice() {
        [] => RunDir::all(Path::new(&folder)).map_err(track_failure)?,
        named => named.iter().map(|run| find(run, Path::new(&folder))).collect::<Result<_, _>>()?,
    };
    let mut failed = 0;
    for run in &runs {
        let said = match sync(run, server.clone()) {
            Ok(Some((points, files))) => format!("sync  {}: {points} points, {files} files", run.path().display()),
            Ok(None) => format!("sync  {}: left out, `track.mlflow` is \"off\"", run.path().display()),
            Err(error @ MlflowError::Unreachable { .. }) => return Err(Failure::new(exit::TRAIN, error)),
            Err(error) => {
                failed += 1;
                eprintln!("error: {}: {error}", run.path().display());
                continue;
            }
        };
        if !context.quiet {
            eprintln!("{said}");
        }
    }
    if failed == 0 {
        return Ok(exit::OK);
    }
    let help = "mend the causes above; the same command sends what is missing";
    Err(Failure::new(exit::TRAIN, format!("{failed} of {} runs could not be sent\n  help: {help}", runs.len())))
}

/// Points and files that were sent; none for a run that is kept away from servers.
fn sync(run: &RunDir, server: Server) -> Result<Option<(u64, usize)>, MlflowError> {
    let record = RunRecord::read(run)?;
    let settings = &record.lock.settings;
    if settings.track.mlflow == MlflowMode::Off {
        return Ok(None);
    }
    let mut sink = Sink::open(run, server, &experiment(&settings.track))?;
    sink.drain()?;
    let files = sink.upload(&Artifact::of_run(&record, &tables(settings))?)?;
    Ok(Some((sink.points(), files)))
}
