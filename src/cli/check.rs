//! `vlp check FILE…`: all problems of all files in one pass, and how variants of the paper's experiments compare with these.
//! Looks at the configuration alone, not at the data.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, exit};
use super::equivalence;
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

/// Prints to stderr the problems of each file and a line `FILE: ok` or `FILE: 2 errors`. A problem in a fragment that
/// several files extend is shown once.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let overrides = args.layers.overrides();
    let mut shown = Problems::default();
    let mut blocks: Vec<String> = Vec::new();
    let mut comparisons: Vec<String> = Vec::new();
    let mut verdicts = String::new();
    let mut failed = false;
    for file in &args.files {
        let (found, verdict) = match config::check(file, &overrides) {
            Ok(Checked::Experiment(experiment)) => {
                if let Some(comparison) = equivalence::with_paper(&experiment).filter(|_| !context.quiet) {
                    let lines: String = comparison.lines().iter().map(|line| format!("  {line}\n")).collect();
                    comparisons.push(format!("{}: {}\n{lines}", file.display(), comparison.title()));
                }
                (experiment.warnings, "ok".to_string())
            }
            Ok(Checked::Fragment) => (Problems::default(), "ok (a fragment: no [experiment] table)".to_string()),
            Ok(Checked::Sweep(sweep)) => {
                let verdict = format!("ok (a sweep of {} trials)", sweep.settings.trials);
                (sweep.base.warnings, verdict)
            }
            Err(problems) => {
                failed = true;
                let summary = problems.summary();
                (problems, summary)
            }
        };
        let fresh = Problems(found.0.into_iter().filter(|problem| !shown.0.contains(problem)).collect());
        if !fresh.0.is_empty() {
            blocks.push(fresh.render(context.color));
        }
        verdicts.push_str(&format!("{}: {verdict}\n", file.display()));
        shown.0.extend(fresh.0);
    }
    blocks.extend(comparisons);
    if !context.quiet {
        blocks.push(verdicts);
    }
    let report = blocks.join("\n");
    if failed {
        return Err(Failure { code: exit::CONFIG, report });
    }
    eprint!("{report}");
    Ok(exit::OK)
}
