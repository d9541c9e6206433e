//! `vlp table`: published scores beside measured ones, from run records; also written to the results folder.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::run::{print, track_failure};
use crate::config::{self, Experiment, OutputSettings, Settings};
use crate::pipeline::lineage;
use crate::results::render::{self, Format};
use crate::results::table::{Table, Verdict, tables};
use crate::track::{RunDir, RunRecord};

/// Print the tables of published and measured scores.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment files, or folders of them, whose rows are shown even if they have not run.
    #[arg(value_name = "FILE|DIR", default_value = "experiments")]
    pub paths: Vec<PathBuf>,
    /// Format; a drawn table on a terminal and Markdown elsewhere when not given.
    #[arg(long)]
    pub format: Option<FormatArg>,
    /// Exit with code 5 when a measured score is outside its tolerance.
    #[arg(long)]
    pub check: bool,
}

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatArg {
    /// Markdown.
    Md,
    /// Comma-separated values.
    Csv,
    /// LaTeX.
    Latex,
    /// JSON in full precision.
    Json,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let tables = collect(&args.paths, context)?;
    write(&tables)?;
    if tables.is_empty() && !context.quiet {
        eprintln!("note  no [[paper]] rows in {}", listed(&args.paths));
    }
    print(&text(&tables, args.format, context))?;
    let outside = tables.iter().flat_map(|t| &t.cells).filter(|c| c.verdict == Verdict::OutsideTolerance).count();
    if args.check && outside > 0 {
        let help = "the column `Verdict` says which; `vlp status` shows the runs";
        let plural = if outside == 1 { "score is" } else { "scores are" };
        return Err(Failure::new(exit::OUTSIDE, format!("{outside} {plural} outside tolerance\n  help: {help}")));
    }
    Ok(exit::OK)
}

/// Tables in a format; without one, drawn on a terminal and Markdown elsewhere.
pub fn text(tables: &[Table], format: Option<FormatArg>, context: &Context) -> String {
    let format = match format {
        None if tables.is_empty() => return String::new(),
        None if std::io::stdout().is_terminal() => return render::terminal(tables, context.color),
        None | Some(FormatArg::Md) => Format::Markdown,
        Some(FormatArg::Csv) => Format::Csv,
        Some(FormatArg::Latex) => Format::Latex,
        Some(FormatArg::Json) => Format::Json,
    };
    render::render(tables, format)
}

/// Writes the files of all tables to their results folders.
pub fn write(tables: &[Table]) -> Result<(), Failure> {
    tables.iter().try_for_each(|table| render::write(table, &table.folder).map(drop).map_err(track_failure))
}

/// All tables after a run of `experiments`: their rows, those of the files around them, and those of all runs beside
/// their own.
pub fn collect_with(experiments: &[&Experiment]) -> Result<Vec<Table>, Failure> {
    let mut settings: Vec<Settings> = experiments.iter().map(|experiment| experiment.settings.clone()).collect();
    let mut seen: BTreeSet<PathBuf> = experiments.iter().filter_map(|e| std::fs::canonicalize(&e.file).ok()).collect();
    for experiment in experiments {
        for named in lineage::experiments_in(&lineage::experiments_root(&experiment.file), usize::MAX) {
            if std::fs::canonicalize(&named.file).is_ok_and(|file| seen.insert(file)) {
                settings.extend(load_quietly(&named.file));
            }
        }
    }
    from_settings(&settings)
}

fn collect(paths: &[PathBuf], context: &Context) -> Result<Vec<Table>, Failure> {
    let mut settings = Vec::new();
    for path in paths {
        if path.is_file() {
            let loaded = config::load(path, &LayerArgs::default().overrides());
            settings.push(loaded.map_err(|problems| config_failure(&problems, context))?.settings);
        } else if path.is_dir() {
            let named = lineage::experiments_in(path, usize::MAX);
            settings.extend(named.iter().filter_map(|named| load_quietly(&named.file)));
        } else {
            let help = "name experiment files or folders of them, or run this in the folder that has `experiments`";
            let found = format!("`{}` is neither a file nor a folder", path.display());
            return Err(Failure::new(exit::CONFIG, format!("{found}\n  help: {help}")));
        }
    }
    from_settings(&settings)
}

/// A file of a folder; none when it cannot be resolved here, as when `${DATA_ROOT}` is unset.
fn load_quietly(file: &Path) -> Option<Settings> {
    match config::load(file, &LayerArgs::default().overrides()) {
        Ok(experiment) => Some(experiment.settings),
        Err(problems) => {
            tracing::debug!(file = %file.display(), %problems, "left out of the tables");
            None
        }
    }
}

fn from_settings(settings: &[Settings]) -> Result<Vec<Table>, Failure> {
    let mut folders: BTreeSet<&str> = settings.iter().map(|s| s.output.runs.as_str()).collect();
    let default = OutputSettings::default().runs;
    folders.insert(&default);
    let mut records = Vec::new();
    for folder in folders {
        for run in RunDir::all(Path::new(folder)).map_err(track_failure)? {
            match RunRecord::read(&run) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(run = %run.path().display(), %error, "run left out of the tables"),
            }
        }
    }
    Ok(tables(settings, &records))
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
