//! Which experiments an experiment descends from, by the `init.from` of each.
//!
//! A value with a `/`, or one that ends in `.safetensors`, `.bin` or `.pt`, is a checkpoint; any other names an
//! experiment, looked for by `experiment.name` among the files beside the one that names it, then anywhere below the
//! `experiments` folder that holds it, then in the same way from the files that it extends. Upstream experiments get the layers in `inherited`: environment, `--device`, and
//! the profile where they have it; but not `--set`, which speaks of the named file only.

use std::path::{Path, PathBuf};

use crate::config::{self, Experiment, InitSettings, Overrides, Problems};

/// Why the chain cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LineageError {
    /// An upstream experiment is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// No experiment has the name.
    #[error("{}: `init.from` is `{name}`, but no experiment has that name; known: {known}\n  help: {help}", file.display())]
    Unknown {
        /// The file that names it.
        file: PathBuf,
        /// The name.
        name: String,
        /// All names that were found, comma-separated.
        known: String,
        /// What to do.
        help: String,
    },
    /// Several experiments have the name.
    #[error("{}: `init.from` is `{name}`, a name that several files have: {files}\n  help: rename all but one, or put the right one into the same folder", file.display())]
    Ambiguous {
        /// The file that names it.
        file: PathBuf,
        /// The name.
        name: String,
        /// The files, comma-separated.
        files: String,
    },
    /// Two different files that are to be run have the same name, and so the same folder of runs.
    #[error("{} and {} are both named `{name}`, and their runs would go to one folder\n  help: rename one of them, or run them one after the other", first.display(), second.display())]
    SameName {
        /// The one file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
        /// The name.
        name: String,
    },
    /// An experiment descends from itself.
    #[error("{}: `init.from` leads back to the experiment itself: {chain}\n  help: give one of them a checkpoint path, or no `init.from`", file.display())]
    Cycle {
        /// The first file.
        file: PathBuf,
        /// `a → b → a`.
        chain: String,
    },
}

/// What `init.from` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Random weights.
    Random,
    /// A weights file, or a checkpoint folder.
    Checkpoint(PathBuf),
    /// An experiment, by name.
    Experiment(String),
}

/// What `init.from` says.
pub fn source(init: &InitSettings) -> Source {
    let from = init.from.as_str();
    if from.is_empty() {
        Source::Random
    } else if from.contains('/') || [".safetensors", ".bin", ".pt"].iter().any(|end| from.ends_with(end)) {
        Source::Checkpoint(PathBuf::from(from))
    } else {
        Source::Experiment(from.to_string())
    }
}

/// The chain that ends with `target`, upstream first.
pub fn resolve(target: Experiment, inherited: &Overrides) -> Result<Vec<Experiment>, LineageError> {
    resolve_all(vec![target], inherited)
}

/// `targets` and all that they descend from, each once, upstream before downstream. An upstream experiment that is itself
/// among the targets is taken as it was loaded there.
pub fn resolve_all(targets: Vec<Experiment>, inherited: &Overrides) -> Result<Vec<Experiment>, LineageError> {
    let mut stages: Vec<Experiment> = Vec::new();
    for target in &targets {
        for experiment in chain(target, &targets, inherited)? {
            let name = &experiment.settings.experiment.name;
            match stages.iter().find(|stage| stage.settings.experiment.name == *name) {
                None => stages.push(experiment),
                Some(stage) if same_file(&stage.file, &experiment.file) => {}
                Some(stage) => {
                    let (first, second, name) = (stage.file.clone(), experiment.file.clone(), name.clone());
                    return Err(LineageError::SameName { first, second, name });
                }
            }
        }
    }
    Ok(stages)
}

fn chain(target: &Experiment, targets: &[Experiment], inherited: &Overrides) -> Result<Vec<Experiment>, LineageError> {
    let mut chain = vec![target.clone()];
    loop {
        let current = &chain[chain.len() - 1];
        let Source::Experiment(name) = source(&current.settings.init) else { break };
        if chain.iter().any(|e| e.settings.experiment.name == name) {
            let names = chain.iter().map(|e| e.settings.experiment.name.as_str()).chain([name.as_str()]);
            let file = chain[0].file.clone();
            return Err(LineageError::Cycle { file, chain: names.collect::<Vec<_>>().join(" → ") });
        }
        let file = find_for(current, &name)?;
        let upstream = match targets.iter().find(|other| same_file(&other.file, &file)) {
            Some(target) => target.clone(),
            None => load(&file, inherited)?,
        };
        chain.push(upstream);
    }
    chain.reverse();
    Ok(chain)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a))
}

/// Loads an upstream experiment; a profile that it does not have is left out.
fn load(file: &Path, inherited: &Overrides) -> Result<Experiment, Problems> {
    let loaded = config::load(file, inherited);
    let unknown = inherited.profile.as_ref().map(|name| format!("unknown profile `{name}`"));
    match loaded {
        Err(problems) if problems.0.iter().any(|problem| Some(&problem.message) == unknown.as_ref()) => {
            config::load(file, &Overrides { profile: None, ..inherited.clone() })
        }
        loaded => loaded,
    }
}

/// A file that declares an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The file.
    pub file: PathBuf,
    /// Its `experiment.name`.
    pub name: String,
}

/// Files below `folder` that declare an experiment, by path; at most `depth` folders deep. Fragments (without a name)
/// and files that are no TOML are left out: whoever loads one hears about it.
pub fn experiments_in(folder: &Path, depth: usize) -> Vec<Named> {
    walkdir::WalkDir::new(folder)
        .max_depth(depth)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "toml") && entry.path().is_file())
        .filter_map(|entry| Some(Named { name: name_in(entry.path())?, file: entry.into_path() }))
        .collect()
}

/// The `experiments` folder that holds `file`, else the folder of `file`.
pub fn experiments_root(file: &Path) -> PathBuf {
    let named = |path: &Path| {
        path.ancestors().skip(1).find(|a| a.file_name().is_some_and(|n| n == "experiments")).map(Path::to_path_buf)
    };
    named(file).or_else(|| named(&file.canonicalize().ok()?)).unwrap_or_else(|| folder_of(file))
}

/// The file of the upstream experiment `name`: looked for from the file itself, then from those that it extends, the
/// highest first. A file that only extends an experiment may lie anywhere.
fn find_for(experiment: &Experiment, name: &str) -> Result<PathBuf, LineageError> {
    let not_found = match find(&experiment.file, name) {
        Err(error @ LineageError::Unknown { .. }) => error,
        found => return found,
    };
    let extended = experiment.files.iter().rev().filter(|file| !same_file(file, &experiment.file));
    for file in extended {
        match find(file, name) {
            Err(LineageError::Unknown { .. }) => {}
            found => return found,
        }
    }
    Err(not_found)
}

fn find(file: &Path, name: &str) -> Result<PathBuf, LineageError> {
    let beside = experiments_in(&folder_of(file), 1);
    let everywhere = experiments_in(&experiments_root(file), usize::MAX);
    for place in [&beside, &everywhere] {
        let found: Vec<&Named> = place.iter().filter(|e| e.name == name).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.file.clone()),
            several => {
                let files = several.iter().map(|e| e.file.display().to_string()).collect::<Vec<_>>().join(", ");
                return Err(LineageError::Ambiguous { file: file.to_path_buf(), name: name.into(), files });
            }
        }
    }
    let names: std::collections::BTreeSet<&str> = beside.iter().chain(&everywhere).map(|e| e.name.as_str()).collect();
    let known = if names.is_empty() { "none".into() } else { names.iter().copied().collect::<Vec<_>>().join(", ") };
    let close = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min();
    let help = match close {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => "give the name of an experiment, or a checkpoint path with a `/` in it".to_string(),
    };
    Err(LineageError::Unknown { file: file.to_path_buf(), name: name.into(), known, help })
}

fn name_in(file: &Path) -> Option<String> {
    Some(config::outline(file).name).filter(|name| !name.is_empty())
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
