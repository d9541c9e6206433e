//! What can be wrong with data on disk, and the words in which it is said.
//!
//! Every text starts with what is wrong (file, dataset or key, what was found, what was expected) and ends with a line
//! `  help: …`. Deciding what to do about an error is the caller's business.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Data on disk is missing or wrong; the program's exit code is 3.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// An option that names a file is empty.
    #[error(
        "`{key}` is empty, expected the path of the {what}\n  help: set `{key}` in the experiment file; `vlp explain {key}` tells what it means"
    )]
    NotSet {
        /// Option, with its section.
        key: &'static str,
        /// What the file is.
        what: &'static str,
    },

    /// A file named by an option does not exist.
    #[error("no {what} at `{}`\n  help: `{key}` names it; correct the path, or put the file there", path.display())]
    Missing {
        /// Option that names the file.
        key: &'static str,
        /// What the file is.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },

    /// A file exists but cannot be read.
    #[error("cannot read {what} `{}`: {source}\n  help: check that it is a file and its permissions", path.display())]
    Unreadable {
        /// What the file is.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// A file is not JSON.
    #[error(
        "`{}` is not valid JSON: line {line}, column {column}: {message}\n\
         \x20 help: the file may be cut short or edited by hand; fetch it again",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },

    /// A JSON file holds something else than the layout demands.
    #[error("`{}`: {place} is {found}, expected {expected}\n  help: {help}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Where, e.g. `images[17].sentences[2].raw` (with its back quotes).
        place: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: &'static str,
        /// What to do.
        help: &'static str,
    },

    /// Splits that the annotation file does not have.
    #[error(
        "`{}` has no split {}; it has {}\n\
         \x20 help: correct the names in `data.train_splits`, `select.split` or `evaluate.splits`",
        path.display(), quoted(missing), quoted(available)
    )]
    UnknownSplit {
        /// The annotation file.
        path: PathBuf,
        /// Asked for and absent.
        missing: Vec<String>,
        /// Present.
        available: Vec<String>,
    },

    /// None of the images of the splits is in the list of valid images.
    #[error(
        "no image left: none of the {images} images of {} in `{}` is among the {entries} entries of `{}`\n\
         \x20 help: the two files must speak of the same images; `{example}`, for one, is not in the list",
        quoted(splits), annotations.display(), valid.display()
    )]
    NoValidImage {
        /// The annotation file.
        annotations: PathBuf,
        /// The list of valid images.
        valid: PathBuf,
        /// Splits asked for.
        splits: Vec<String>,
        /// Images of the splits.
        images: usize,
        /// Entries of the list.
        entries: usize,
        /// One of the images, by file name.
        example: String,
    },

    /// An image's id cannot be derived from its annotation.
    #[error(
        "`{}`: {place} is {found}: no image id can be derived from it, expected {expected}\n\
         \x20 help: `data.dataset` decides how ids are derived; is it the right collection?",
        path.display()
    )]
    ImageId {
        /// The annotation file.
        path: PathBuf,
        /// Where, with back quotes.
        place: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },

    /// The vocabulary is unusable.
    #[error(
        "vocabulary `{}`: {problem}\n\
         \x20 help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being \
         its id",
        path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: VocabularyProblem,
    },

    /// A table of region features, class scores or boxes is unusable.
    #[error("`{}`{}: {problem}\n  help: {}", path.display(), in_dataset(dataset), problem.help())]
    Region {
        /// The file.
        path: PathBuf,
        /// Dataset in the file; empty when the file as a whole is meant.
        dataset: String,
        /// What is wrong.
        problem: RegionProblem,
    },

    /// A file of another program.
    #[error(transparent)]
    Format(#[from] crate::formats::FormatError),

    /// A split without a question file.
    #[error(
        "`data.imdb` names no question file of split `{split}`; it {}\n\
         \x20 help: add it, e.g. imdb = {{ {split} = \"…/imdb_{split}.npy\" }}, or correct `data.train_splits`, `select.split` or `evaluate.splits`",
        if known.is_empty() { "names none".to_owned() } else { format!("has {}", quoted(known)) }
    )]
    NoImdb {
        /// Asked for.
        split: String,
        /// Present.
        known: Vec<String>,
    },

    /// The answer vocabulary is unusable.
    #[error("answer vocabulary `{}`: {problem}\n  help: `data.answers` must list one answer per line, `<unk>` first (answers_vqa.txt)", path.display())]
    Answers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },

    /// The answers to a question are unusable.
    #[error("`{}`: question {question}: {problem}\n  help: `data.imdb` must name question files in pythia's layout, with ten answers per question", path.display())]
    PeoplesAnswers {
        /// The file.
        path: PathBuf,
        /// Id of the question.
        question: u64,
        /// What is wrong.
        problem: String,
    },

    /// A loader thread broke down; this is a defect of the program.
    #[error(
        "a loader thread broke down at batch {index}: {message}\n  help: this is a defect of vlp; please report it with the lines above"
    )]
    Worker {
        /// The item that was being made.
        index: usize,
        /// The panic's message.
        message: String,
    },
}

/// What is wrong with a vocabulary. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VocabularyProblem {
    /// Not text.
    NotUtf8 {
        /// Line of the first bad byte.
        line: usize,
    },
    /// A line without a token between others.
    Blank {
        /// The line.
        line: usize,
    },
    /// A token occurs twice.
    Duplicate {
        /// The token, as it is called here.
        token: String,
        /// First occurrence.
        first: usize,
        /// Second occurrence.
        second: usize,
    },
    /// Control tokens that are not there.
    ControlTokens {
        /// Their names.
        missing: Vec<String>,
    },
}

impl fmt::Display for VocabularyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { line } => write!(f, "line {line} is not UTF-8 text"),
            Self::Blank { line } => write!(f, "line {line} is blank, expected a token"),
            Self::Duplicate { token, first, second } => {
                write!(f, "`{token}` stands on line {first} and again on line {second}, expected it once")
            }
            Self::ControlTokens { missing } => write!(f, "no line holds {}", quoted(missing)),
        }
    }
}

/// What is wrong with a table of region features, class scores or boxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionProblem {
    /// The file does not exist.
    NoFile {
        /// Option that leads to it.
        key: &'static str,
    },
    /// The file cannot be opened or read; what the system or the HDF5 library says.
    Unreadable(String),
    /// The file is not in the HDF5 format.
    NotHdf5,
    /// The file has no such dataset.
    NoDataset,
    /// The table has another shape.
    Shape {
        /// Found sizes.
        found: Vec<usize>,
        /// Expected sizes.
        expected: Vec<usize>,
        /// Options that decide the expected sizes.
        keys: &'static str,
    },
    /// The elements are not of a type that is read.
    ElementType {
        /// Found type.
        found: String,
    },
    /// An npy file in Fortran order.
    FortranOrder,
    /// The file ends before the table does.
    CutShort,
    /// Numbers that are infinite or not a number.
    NotFinite {
        /// How many.
        count: usize,
        /// Index of the first in row-major order: row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// Boxes without area.
    EmptyBoxes {
        /// How many.
        count: usize,
        /// Rows.
        boxes: usize,
        /// Row of the first.
        row: usize,
        /// Its corners x1 y1 x2 y2, as text.
        corners: String,
    },
    /// Class scores that are no probabilities.
    NoProbabilities {
        /// How many.
        count: usize,
        /// Row of the first.
        row: usize,
        /// Its column.
        column: usize,
        /// Its value, as text.
        value: String,
    },
    /// The name of the image is too short for the last three characters to choose the file.
    ShortName,
}

impl RegionProblem {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::NoFile { key } => format!("`{key}` leads to it; correct it, or fetch the file"),
            Self::Unreadable(message) if message.contains("errno = 24") || message.contains("os error 24") => {
                "the process may not open more files; raise the limit (`ulimit -n 8192`)".into()
            }
            Self::Unreadable(_) | Self::NotHdf5 | Self::CutShort => {
                "the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)".into()
            }
            Self::NoDataset => {
                "datasets are named after the images' file names without ending; is the image's file complete? (`vlp data verify` checks all images)".into()
            }
            Self::Shape { keys, .. } => format!("{keys} must fit the files"),
            Self::ElementType { .. } => "store the table as float16 or float32".into(),
            Self::FortranOrder => "store it with `numpy.save(path, numpy.ascontiguousarray(table))`".into(),
            Self::NotFinite { .. } | Self::NoProbabilities { .. } => {
                "the detector's output is damaged; extract the image's regions again, or take the image off the list of valid images".into()
            }
            Self::EmptyBoxes { .. } => {
                "boxes are x1 y1 x2 y2 with x2 > x1 and y2 > y1; such regions get area 0 and are otherwise used as they are".into()
            }
            Self::ShortName => "region files are chosen by the last three characters of the image's name".into(),
        }
    }
}

impl fmt::Display for RegionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile { .. } => f.write_str("no such file"),
            Self::Unreadable(message) => write!(f, "cannot be read: {message}"),
            Self::NotHdf5 => f.write_str("found something else than an HDF5 file"),
            Self::NoDataset => f.write_str("not in the file"),
            Self::Shape { found, expected, .. } => {
                write!(f, "found shape {}, expected {}", sizes(found), sizes(expected))
            }
            Self::ElementType { found } => write!(f, "found elements of type {found}, expected float16 or float32"),
            Self::FortranOrder => f.write_str("found a table in Fortran order, expected C order"),
            Self::CutShort => f.write_str("the file ends within the table"),
            Self::NotFinite { count, row, column } => {
                write!(f, "{count} numbers are not finite, the first in row {row}, column {column}")
            }
            Self::EmptyBoxes { count, boxes, row, corners } => {
                write!(f, "{count} of {boxes} boxes have no area, the first in row {row}: {corners}")
            }
            Self::NoProbabilities { count, row, column, value } => {
                write!(f, "{count} class scores are outside 0 to 1, the first in row {row}, column {column}: {value}")
            }
            Self::ShortName => f.write_str("found a name of fewer than three characters, expected three or more"),
        }
    }
}

impl DataError {
    /// An error about a table of regions.
    pub fn region(path: &Path, dataset: &str, problem: RegionProblem) -> Self {
        Self::Region { path: path.to_owned(), dataset: dataset.to_owned(), problem }
    }

    /// An error about what people answered to a question.
    pub fn answers(path: &str, question: u64, problem: &str) -> Self {
        let problem = problem.lines().next().unwrap_or_default().to_owned();
        Self::PeoplesAnswers { path: PathBuf::from(path), question, problem }
    }

    /// An error of the file system about the file that `key` names.
    pub fn file(key: &'static str, what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { key, what, path: path.to_owned() },
            _ => Self::Unreadable { what, path: path.to_owned(), source },
        }
    }
}

/// The whole content of a file named by the option `key`.
pub fn read_file(key: &'static str, what: &'static str, path: &str) -> Result<Vec<u8>, DataError> {
    if path.is_empty() {
        return Err(DataError::NotSet { key, what });
    }
    std::fs::read(path).map_err(|source| DataError::file(key, what, Path::new(path), source))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn sizes(shape: &[usize]) -> String {
    format!("[{}]", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

fn in_dataset(dataset: &str) -> String {
    if dataset.is_empty() { String::new() } else { format!(", dataset `{dataset}`") }
}
