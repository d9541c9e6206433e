//! Which of the paper's experiments an experiment is a variant of, and how both compare: for `vlp check` and `vlp plan`.
//!
//! The paper's experiments are the files of `experiments/paper`. A variant is one of them with other layers on top, a file
//! that extends one, or a file with a `[[paper]]` row of one.

use std::path::{Path, PathBuf};

use super::context::LayerArgs;
use crate::config::{self, Experiment, Overrides, Settings};
use crate::pipeline::equivalence::{Point, compare};
use crate::pipeline::lineage;

/// How an experiment compares with the paper's.
pub struct Comparison {
    /// The paper's file.
    paper: PathBuf,
    /// What stays equal, and what does not; never empty.
    points: Vec<Point>,
}

impl Comparison {
    /// What is compared.
    pub fn title(&self) -> String {
        format!("compared with {}", self.paper.display())
    }

    /// One line per point, those that differ marked.
    pub fn lines(&self) -> Vec<String> {
        self.points.iter().map(|point| format!("{} {point}", if point.same { ' ' } else { '!' })).collect()
    }
}

/// The comparison; none for an experiment that is no variant of the paper's, or in which nothing differs.
pub fn with_paper(experiment: &Experiment) -> Option<Comparison> {
    let (paper, settings) = origin(experiment)?;
    let points = compare(&experiment.settings, &settings);
    (!points.is_empty()).then_some(Comparison { paper, points })
}

/// The paper's file that an experiment is a variant of, with its settings.
fn origin(experiment: &Experiment) -> Option<(PathBuf, Settings)> {
    if let Some(file) = experiment.files.iter().rev().find(|file| is_of_paper(file)) {
        return Some((file.clone(), settings_of(file)?));
    }
    let folder = lineage::experiments_root(&experiment.file).join("paper");
    let has_row = |settings: &Settings| {
        let rows = &experiment.settings.paper;
        settings.paper.iter().any(|row| rows.iter().any(|own| (&own.table, &own.row) == (&row.table, &row.row)))
    };
    let mut files = lineage::experiments_in(&folder, 1).into_iter().filter(|named| is_of_paper(&named.file));
    files.find_map(|named| Some((named.file.clone(), settings_of(&named.file).filter(has_row)?)))
}

/// Whether a file lies in a folder `experiments/paper`.
fn is_of_paper(file: &Path) -> bool {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let names: Vec<_> = whole.parent().into_iter().flat_map(Path::components).rev().take(2).collect();
    matches!(names.as_slice(), [paper, experiments] if paper.as_os_str() == "paper" && experiments.as_os_str() == "experiments")
}

/// The settings of a file alone, without the layers above it; none where a variable of its paths is not set.
fn settings_of(file: &Path) -> Option<Settings> {
    let Overrides { environment, .. } = LayerArgs::default().overrides();
    let environment = environment.into_iter().filter(|(name, _)| !name.starts_with("VLP_")).collect();
    let overrides = Overrides { environment, ..Overrides::default() };
    config::load(file, &overrides).ok().map(|experiment| experiment.settings)
}
