//! Where the parts of the official metric tools are, from `[metrics]` and the process environment.

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
