//! Checks the data of an experiment before any compute is spent on it: every image of the splits, every table, every number.
//!
//! Collects all defects instead of stopping at the first. Nothing is repaired.

use std::fmt;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;

use crate::config::DataSettings;

use super::error::{DataError, RegionProblem};
use super::karpathy::{ImageRecord, read_images};
use super::positions::BOX_COLUMNS;
use super::region_store::{RegionStore, Table};
use super::tokenizer::Tokenizer;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Images of the splits that were checked.
    pub images: usize,
    /// Captions of these images.
    pub captions: usize,
    /// All defects, in the order of the annotation file.
    pub defects: Vec<Defect>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Defect {
    /// The file.
    pub file: String,
    /// The dataset in it, or the image's file name; empty where the file as a whole is meant.
    pub dataset: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for defect in &self.defects {
            writeln!(f, "{defect}")?;
        }
        let defects = match self.defects.len() {
            0 => "no defects".to_owned(),
            1 => "1 defect".to_owned(),
            n => format!("{n} defects"),
        };
        write!(f, "{} images, {} captions: {defects}", self.images, self.captions)
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dataset.as_str() {
            "" => write!(f, "{}: {}", self.file, self.problem),
            dataset => write!(f, "{}, {dataset}: {}", self.file, self.problem),
        }
    }
}

/// Checks all images of `splits`: presence, shape and element type of their three tables, finite numbers, boxes of positive
/// extent, class scores between 0 and 1, captions. Also reads the vocabulary.
///
/// # Errors
/// What keeps the images from being listed or any region from being found: annotations, list of valid images, box file.
pub fn verify(settings: &DataSettings, splits: &[String]) -> Result<VerifyReport, DataError> {
    let images = read_images(settings, splits)?;
    let store = RegionStore::open(settings)?;
    let mut defects: Vec<Defect> = match Tokenizer::from_file(&settings.vocabulary, settings.cased) {
        Ok(_) => Vec::new(),
        Err(error) => vec![defect(&error, &settings.vocabulary)],
    };
    defects.extend(images.par_iter().flat_map_iter(|image| check(settings, &store, image)).collect::<Vec<_>>());
    Ok(VerifyReport {
        images: images.len(),
        captions: images.iter().map(|image| image.references.len()).sum(),
        defects,
    })
}

fn check(settings: &DataSettings, store: &RegionStore, image: &ImageRecord) -> Vec<Defect> {
    let mut defects = Vec::new();
    if image.references.is_empty() {
        defects.push(Defect {
            file: settings.annotations.clone(),
            dataset: image.file_name.clone(),
            problem: "no captions".into(),
        });
    }
    let mut values = Vec::new();
    for table in [Table::Features, Table::Classes, Table::Boxes] {
        let problem = match store.read_table(table, &image.stem, &mut values) {
            Err(error) => {
                defects.push(defect(&error, &settings.region_prefix));
                continue;
            }
            Ok(()) => not_finite(&values, store.shape(table)[1]).or_else(|| match table {
                Table::Features => None,
                Table::Classes => no_probabilities(&values, store.shape(table)[1]),
                Table::Boxes => empty_boxes(&values),
            }),
        };
        if let (Some(problem), Ok((file, dataset))) = (problem, store.locate(table, &image.stem)) {
            defects.push(Defect { file: file.display().to_string(), dataset, problem: problem.to_string() });
        }
    }
    defects
}

/// An error as a defect; `file` is named where the error names none.
fn defect(error: &DataError, file: &str) -> Defect {
    match error {
        DataError::Region { path, dataset, problem } => {
            Defect { file: path.display().to_string(), dataset: dataset.clone(), problem: problem.to_string() }
        }
        DataError::Vocabulary { path, problem } => {
            Defect { file: path.display().to_string(), dataset: String::new(), problem: problem.to_string() }
        }
        other => {
            let problem = other.to_string().lines().next().unwrap_or_default().to_owned();
            Defect { file: file.to_owned(), dataset: String::new(), problem }
        }
    }
}

fn not_finite(values: &[f32], columns: usize) -> Option<RegionProblem> {
    let first = values.iter().position(|x| !x.is_finite())?;
    let count = values.iter().filter(|x| !x.is_finite()).count();
    Some(RegionProblem::NotFinite { count, row: first / columns, column: first % columns })
}

/// Scores are a softmax over the classes; float16 may round one slightly above 1.
fn no_probabilities(values: &[f32], columns: usize) -> Option<RegionProblem> {
    let bad = |x: &f32| !(0.0..=1.001).contains(x);
    let first = values.iter().position(bad)?;
    let count = values.iter().filter(|x| bad(x)).count();
    let value = values[first].to_string();
    Some(RegionProblem::NoProbabilities { count, row: first / columns, column: first % columns, value })
}

fn empty_boxes(values: &[f32]) -> Option<RegionProblem> {
    let empty = |b: &&[f32]| b[2] <= b[0] || b[3] <= b[1];
    let boxes = || values.chunks_exact(BOX_COLUMNS);
    let (row, corners) = boxes().enumerate().find(|(_, b)| empty(b))?;
    let corners = corners[..4].iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
    Some(RegionProblem::EmptyBoxes { count: boxes().filter(empty).count(), boxes: boxes().len(), row, corners })
}
