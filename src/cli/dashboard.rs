//! `vlp dashboard`: the user interface of MLflow over all runs and sweeps; with --static, an index of them as a page.
//!
//! The store is a folder of `output.results` that is filled from the journals and can be removed at any time: the next call
//! fills it again. The environment names no server here: `MLFLOW_TRACKING_URI` is another one.

mod feed;
mod page;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{Context, Failure, exit};
use super::places::{in_path, variable};
use super::run::{launch_failure, print, track_failure};
use crate::config::OutputSettings;
use crate::launch::signals::Signals;
use crate::track::{Held, TrackError};

use feed::Feed;
use server::UserInterface;

/// Version that the tests run against.
pub const VERSION: &str = "3.17.2";

/// Folder of the store, in that of the results.
const STORE: &str = "mlflow";

/// File that the one who feeds a store holds.
const HELD: &str = ".dashboard.lock";

/// Time between two looks at the server and for signals.
const LOOK: Duration = Duration::from_millis(50);

/// Show all runs and sweeps in the user interface of MLflow, or, with --static, as a page.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the runs.
    #[arg(value_name = "RUNS", default_value = "runs")]
    runs: PathBuf,
    /// Write `index.html` into the folder of the runs, and the reports that are missing or older than their run.
    #[arg(long = "static", conflicts_with_all = ["port", "mlflow"])]
    page: bool,
    /// Port on 127.0.0.1; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    port: u16,
    /// The program `mlflow`; by default $VLP_MLFLOW, else the one in PATH.
    #[arg(long, value_name = "PATH")]
    mlflow: Option<PathBuf>,
}

/// Runs the command; prints the path of the index, or the address of the user interface.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    if args.page {
        has_runs(&args.runs)?;
        print(&format!("{}\n", page::write(&args.runs, context)?.display()))?;
        return Ok(exit::OK);
    }
    let program = program(args.mlflow.as_deref())?;
    has_runs(&args.runs)?;
    let store = Path::new(&OutputSettings::default().results).join(STORE);
    std::fs::create_dir_all(&store).map_err(TrackError::io("create", &store)).map_err(track_failure)?;
    let _held = Held::take(&store.join(HELD)).map_err(track_failure)?.ok_or_else(|| {
        let help = "open the address that it printed, or stop it with Ctrl-C";
        let report = format!("the store `{}` is in use by another `vlp dashboard`\n  help: {help}", store.display());
        Failure::new(exit::CONFIG, report)
    })?;
    let port = server::free_port(args.port)?;
    let signals = Signals::watch().map_err(launch_failure)?;
    let mut interface = UserInterface::start(&program, &store, port)?;
    if !context.quiet {
        eprintln!("start {} over {}", program.display(), store.display());
    }
    while !interface.answers()? {
        if signals.count() > 0 {
            return Ok(exit::OK);
        }
        std::thread::sleep(LOOK);
    }
    let feed = Feed::start(&args.runs, &store, interface.server().clone(), context)?;
    print(&format!("{}\n", interface.server().address()))?;
    let ended = loop {
        if signals.count() > 0 {
            break Ok(exit::OK);
        }
        if let Err(failure) = interface.is_up() {
            break Err(failure);
        }
        std::thread::sleep(LOOK);
    };
    // What is on its way to the server when it ends is in doubt, and asked for the next time.
    interface.stop();
    feed.stop();
    ended
}

fn has_runs(runs: &Path) -> Result<(), Failure> {
    if runs.is_dir() {
        return Ok(());
    }
    let help = "give the folder that `output.runs` names, or run an experiment first";
    let report = format!("there is no folder of runs `{}`\n  help: {help}", runs.display());
    Err(Failure::new(exit::CONFIG, report))
}

/// The program `mlflow`: the one that `named` or VLP_MLFLOW names, or the one in PATH.
pub fn program(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let flag = named.map(|path| (path.to_path_buf(), "--mlflow"));
    let (found, looked) = match flag.or_else(|| Some((variable("VLP_MLFLOW")?, "VLP_MLFLOW"))) {
        Some((path, by)) => {
            let looked = format!("`{}`, named by {by}", path.display());
            (Some(path).filter(|path| path.is_file()), looked)
        }
        None => (in_path("mlflow"), "a program `mlflow` in PATH".to_owned()),
    };
    found.ok_or_else(|| {
        let install =
            format!("`python3 -m venv ~/mlflow && ~/mlflow/bin/pip install mlflow=={VERSION}` installs MLflow");
        let help = format!(
            "{install}; then `vlp dashboard --mlflow ~/mlflow/bin/mlflow`. `vlp dashboard --static` needs nothing, and writes all runs as one page"
        );
        Failure::new(exit::CONFIG, format!("the user interface of MLflow needs {looked}; there is none\n  help: {help}"))
    })
}
