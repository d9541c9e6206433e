//! The index of all runs as a page, with the report of each: what `vlp dashboard --static` writes.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::context::{Context, Failure};
use super::super::report::{Collected, report_file, write_own};
use super::super::run::track_failure;
use crate::results::report::{Listed, Reported, index};
use crate::track::{RunDir, write_atomic};

/// Name of the index in the folder of the runs.
const FILE: &str = "index.html";

/// Writes the index into the folder of the runs, and the reports that are missing or old; its path.
pub fn write(folder: &Path, context: &Context) -> Result<PathBuf, Failure> {
    let mut listed: Vec<(String, Listed)> = Vec::new();
    let mut collected = Collected::default();
    for run in RunDir::all(folder).map_err(track_failure)? {
        let name = run.path().strip_prefix(folder).unwrap_or(run.path()).display().to_string();
        listed.push((run.id(), one(&run, &name, &mut collected, context)));
    }
    // Run ids begin with the time of creation.
    listed.sort_by(|a, b| b.0.cmp(&a.0));
    let runs: Vec<Listed> = listed.into_iter().map(|(_, listed)| listed).collect();
    let out = folder.join(FILE);
    let page = index(&folder.display().to_string(), &runs);
    write_atomic(&out, page.as_bytes()).map_err(track_failure)?;
    Ok(out)
}

/// A line of the index; the report is written where it is missing or old.
fn one(run: &RunDir, name: &str, collected: &mut Collected, context: &Context) -> Listed {
    let address = || Some(format!("{name}/{}", report_file(run).file_name().unwrap_or_default().to_string_lossy()));
    let reported = match Reported::read(run) {
        Ok(reported) => reported,
        Err(error) => return Listed::Unreadable(name.to_string(), error.to_string()),
    };
    if is_fresh(run) {
        return Listed::Run(Box::new(reported), address());
    }
    match write_own(run, collected) {
        Ok(reported) => Listed::Run(Box::new(reported), address()),
        Err(failure) => {
            if !context.quiet {
                eprintln!("warning: no report of {name}: {}", failure.report.trim_end());
            }
            Listed::Run(Box::new(reported), None)
        }
    }
}

/// Whether the report is as new as the journal and the scores.
fn is_fresh(run: &RunDir) -> bool {
    let time = |path: PathBuf| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let report = time(report_file(run));
    report.is_some() && [run.journal_file(), run.scores_file()].into_iter().all(|file| time(file) <= report)
}
