//! `vlp graph`: what starts from what, with the runs of each experiment: as text, or as SVG.
//!
//! Experiments come from the files below `experiments`, and need none of the variables that their paths use.

mod draw;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::context::{Context, Failure, LayerArgs, exit};
use super::run::{print, track_failure};
use crate::config::{self, InitSettings, OutputSettings};
use crate::pipeline::lineage::{self, Source};
use crate::pipeline::stage;
use crate::track::{RunRecord, selection_metric};

/// Draw what starts from what: experiments, their runs, states and scores.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment files whose ancestors and descendants are drawn, or folders of which all are.
    #[arg(value_name = "FILE|DIR", default_value = "experiments")]
    paths: Vec<PathBuf>,
    /// Form of the drawing.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Form of the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// A tree of lines.
    #[default]
    Text,
    /// A picture.
    Svg,
}

/// An experiment in the drawing.
#[derive(Debug, Clone)]
struct Node {
    file: PathBuf,
    name: String,
    /// Where the weights come from, if not from another node: a path, or an experiment without a file.
    from: Option<String>,
    upstream: Option<usize>,
    /// Runs, oldest first: id, state, score.
    runs: Vec<String>,
}

/// Runs the command.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    let nodes = nodes(&args.paths)?;
    print(&match args.format {
        Format::Text => draw::text(&nodes),
        Format::Svg => draw::svg(&nodes),
    })?;
    Ok(exit::OK)
}

fn nodes(paths: &[PathBuf]) -> Result<Vec<Node>, Failure> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for path in paths {
        let folder = match (path.is_dir(), path.is_file()) {
            (true, _) => path.clone(),
            (_, true) => lineage::experiments_root(path),
            _ => {
                let help = "name experiment files or folders of them, or run this in the folder that has `experiments`";
                let report = format!("`{}` is neither a file nor a folder\n  help: {help}", path.display());
                return Err(Failure::new(exit::CONFIG, report));
            }
        };
        for named in lineage::experiments_in(&folder, usize::MAX) {
            if found.iter().all(|(file, _)| !same(file, &named.file)) {
                found.push((named.file, named.name));
            }
        }
    }
    let all = found.iter().map(|(file, _)| node(file, &found)).collect::<Result<Vec<_>, _>>()?;
    let wanted: Vec<bool> = (0..all.len()).map(|i| is_wanted(i, &all, paths)).collect();
    let kept: Vec<usize> = (0..all.len()).filter(|i| wanted[*i]).collect();
    let place = |old: usize| kept.iter().position(|kept| *kept == old);
    Ok(kept.iter().map(|i| Node { upstream: all[*i].upstream.and_then(place), ..all[*i].clone() }).collect())
}

/// One experiment with its runs; `all` are the files and names among which its upstream is looked for.
fn node(file: &Path, all: &[(PathBuf, String)]) -> Result<Node, Failure> {
    let loaded = config::load(file, &LayerArgs::default().overrides()).ok();
    let outline = config::outline(file);
    let from = loaded.as_ref().map_or(&outline.upstream, |experiment| &experiment.settings.init.from).clone();
    let upstream = match lineage::source(&InitSettings { from: from.clone(), ..InitSettings::default() }) {
        Source::Experiment(name) => {
            let named = || all.iter().enumerate().filter(|(_, (_, other))| *other == name);
            named().find(|(_, (other, _))| other.parent() == file.parent()).or_else(|| named().next()).map(|(i, _)| i)
        }
        Source::Random | Source::Checkpoint(_) => None,
    };
    let runs = loaded.map_or_else(|| OutputSettings::default().runs, |experiment| experiment.settings.output.runs);
    let (records, unreadable) = stage::records(Path::new(&runs), &outline.name).map_err(track_failure)?;
    let runs = records.iter().map(run_text).chain(unreadable).collect();
    let from = (upstream.is_none() && !from.is_empty()).then_some(from);
    Ok(Node { file: file.to_path_buf(), name: outline.name, from, upstream, runs })
}

/// `20261123-194809  finished  val/cider 52.1 (epoch 16)`.
fn run_text(record: &RunRecord) -> String {
    let mut text = format!("{}  {}", record.run.id(), record.condition);
    if let (Some(score), Some(epoch)) = (record.best_score, record.best_epoch) {
        let metric = selection_metric(&record.lock.settings).unwrap_or_default();
        text.push_str(&format!("  {metric} {:.1} (epoch {epoch})", score * 100.0));
    }
    text
}

/// Whether a node lies in one of the folders, or is a file, an ancestor or a descendant of a file.
fn is_wanted(index: usize, all: &[Node], paths: &[PathBuf]) -> bool {
    let line = |start: usize| {
        let mut seen = BTreeSet::new();
        std::iter::successors(Some(start), |i| all[*i].upstream).take_while(|i| seen.insert(*i)).collect::<Vec<_>>()
    };
    let ancestors = line(index);
    paths.iter().any(|path| {
        if path.is_dir() {
            return within(&all[index].file, path);
        }
        let is_path = |i: &usize| same(&all[*i].file, path);
        let below = (0..all.len()).filter(|i| is_path(i)).any(|i| line(i).contains(&index));
        ancestors.iter().any(is_path) || below
    })
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a))
}

fn within(file: &Path, folder: &Path) -> bool {
    file.canonicalize().ok().zip(folder.canonicalize().ok()).is_some_and(|(file, folder)| file.starts_with(folder))
}
