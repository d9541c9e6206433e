//! `vlp compare`: runs side by side: settings that differ, scores, and whether the differences are more than chance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::logs::find;
use super::run::{print, track_failure};
use crate::config::OutputSettings;
use crate::results::compare::{self, Compared, text};
use crate::results::items::{self, ItemScores};
use crate::track::RunRecord;

/// Compare runs: settings that differ, scores, significance.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders, experiments (their newest run), or `<experiment>/<run id>` below `runs`; the others are held against the
    /// first.
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// Markdown, scores in points.
    #[default]
    Md,
    /// JSON in full precision, scores in unit fractions.
    Json,
}

/// Runs the command.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    let folder = OutputSettings::default().runs;
    let mut loaded: Vec<(RunRecord, BTreeMap<String, ItemScores>)> = Vec::new();
    for named in &args.runs {
        let record = RunRecord::read(&find(named, Path::new(&folder))?).map_err(track_failure)?;
        let mut scores = BTreeMap::new();
        for (evaluation, _) in record.scores.iter() {
            let Some((checkpoint, split)) = compare::evaluation_parts(evaluation) else { continue };
            let found = items::load(&record, checkpoint, split).map_err(track_failure)?;
            scores.extend(found.map(|found| (evaluation.clone(), found)));
        }
        loaded.push((record, scores));
    }
    let runs: Vec<Compared> = loaded.iter().map(|(record, scores)| Compared { record, items: scores }).collect();
    let comparison = compare::compare(&runs);
    print(&match args.format {
        Format::Md => text::markdown(&comparison),
        Format::Json => format!("{:#}\n", text::json(&comparison)),
    })?;
    Ok(exit::OK)
}
