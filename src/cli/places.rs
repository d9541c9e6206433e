//! Where programs and the parts of the official metric tools are, from `[metrics]` and the process environment.

use std::path::PathBuf;

use crate::config::MetricsSettings;
use crate::evaluate::{Places, Scorers};

/// What computes the scores, with the places of this process's environment.
pub fn scorers(settings: &MetricsSettings) -> Scorers<'_> {
    Scorers { settings, places: Places::new(settings, variable) }
}

/// A variable that is set, and not to nothing.
pub fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The first file of this name in PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}
