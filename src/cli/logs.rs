//! `vlp logs`: the log of one rank of a run, as plain lines.

use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::run::{print, track_failure};
use crate::config::OutputSettings;
use crate::track::{RunDir, render_line};

/// Print the log of a run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder, experiment (its newest run), or `<experiment>/<run id>` below `runs`.
    pub run: PathBuf,
    /// Number of the process.
    #[arg(long, default_value_t = 0)]
    pub rank: usize,
}

/// Runs the command.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    let run = find(&args.run, Path::new(&OutputSettings::default().runs))?;
    let log = run.rank_log(args.rank);
    let bytes = std::fs::read(&log).map_err(|error| {
        let help = format!("{}; `vlp status` shows how far the run is", ranks_text(&run));
        Failure::new(exit::CONFIG, format!("no log of rank {}: {}: {error}\n  help: {help}", args.rank, log.display()))
    })?;
    let text: String = String::from_utf8_lossy(&bytes).lines().map(|line| render_line(line) + "\n").collect();
    print(&text)?;
    Ok(exit::OK)
}

/// The run that `named` means: a run folder, else `<runs>/<named>`, else the newest run of the experiment.
pub(super) fn find(named: &Path, runs: &Path) -> Result<RunDir, Failure> {
    if let Ok(run) = RunDir::open(named).or_else(|_| RunDir::open(&runs.join(named))) {
        return Ok(run);
    }
    let name = named.to_string_lossy();
    let newest = RunDir::latest(runs, &name).map_err(track_failure)?;
    newest.ok_or_else(|| {
        let help = "name a run folder, an experiment, or `<experiment>/<run id>`; `vlp status` lists them";
        Failure::new(exit::CONFIG, format!("no run `{name}`, here or in `{}`\n  help: {help}", runs.display()))
    })
}

fn ranks_text(run: &RunDir) -> String {
    let entries = std::fs::read_dir(run.ranks()).into_iter().flatten().flatten();
    let mut ranks: Vec<usize> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).collect();
    ranks.sort_unstable();
    match ranks.as_slice() {
        [] => "no rank has written a log yet".into(),
        ranks => {
            let names: Vec<String> = ranks.iter().map(usize::to_string).collect();
            format!("there are logs of rank {}", names.join(", "))
        }
    }
}
