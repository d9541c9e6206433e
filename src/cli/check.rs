//! `vlp check FILE…`: all problems of all files in one pass. Looks at the configuration alone, not at the data.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, exit};
use crate::config::{self, Checked, Problems};

/// Report every problem of experiment files, with file, line and a hint.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
}

/// Prints `FILE: ok` or the problems of each file to stderr; a problem in a file that several extend is shown once.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let overrides = args.layers.overrides();
    let mut shown = Problems::default();
    let mut report = String::new();
    let mut failed = false;
    for file in &args.files {
        let (found, verdict) = match config::check(file, &overrides) {
            Ok(Checked::Experiment(experiment)) => (experiment.warnings, Some("ok")),
            Ok(Checked::Fragment) => (Problems::default(), Some("ok (a fragment: no [experiment] table)")),
            Err(problems) => (problems, None),
        };
        failed |= verdict.is_none();
        let fresh = Problems(found.0.into_iter().filter(|problem| !shown.0.contains(problem)).collect());
        let text = fresh.render(context.color);
        if !text.is_empty() && !report.is_empty() {
            report.push('\n');
        }
        report.push_str(&text);
        if let Some(verdict) = verdict.filter(|_| !context.quiet) {
            report.push_str(&format!("{}: {verdict}\n", file.display()));
        }
        shown.0.extend(fresh.0);
    }
    if failed {
        return Err(Failure { code: exit::CONFIG, report });
    }
    eprint!("{report}");
    Ok(exit::OK)
}
