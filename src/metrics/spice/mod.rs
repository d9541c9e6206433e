//! SPICE (Anderson et al., ECCV 2016): captions compared as scene graphs, by the official tool `spice-1.0.jar`.
//!
//! The tool is AGPL software and is used as a separate process only; it is not part of this project, and neither are the
//! language models it needs (Stanford CoreNLP 3.6.0). Where something is absent, [`SpiceError::NotAvailable`] names each
//! missing file and how to get it: there is never a score of 0 instead. Nothing is downloaded here.
//!
//! Parsing is slow (COCO's 25,000 test references: a good part of an hour the first time); the tool keeps the parsed
//! captions in the cache folder.
//!
//! ```
//! use vlp::metrics::spice::{SpiceError, SpiceSettings, check};
//! match check(&SpiceSettings::new("nowhere", "cache")) {
//!     Err(SpiceError::NotAvailable(unavailable)) => {
//!         assert!(unavailable.to_string().contains("\n  file `nowhere/spice-1.0.jar`\n"));
//!     }
//!     other => panic!("{other:?}"),
//! }
//! ```

mod java;
mod process;
mod resources;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::{CaptionEntry, MetricsError, tokenize_captions};

pub use java::{JavaVersion, OLDEST as OLDEST_JAVA, version as java_version};
pub use resources::{Missing, Unavailable};

/// The kinds of tuples that the tool reports; the F of `All` is SPICE.
pub const CATEGORIES: [&str; 7] = ["All", "Object", "Attribute", "Relation", "Color", "Size", "Cardinality"];

/// Where the tool is, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiceSettings {
    /// Folder with `spice-1.0.jar` and `lib/`.
    pub folder: PathBuf,
    /// Folder for the tool's cache of parsed captions (`tuples`), a compiled Java class and temporary files; made if absent.
    pub cache: PathBuf,
    /// The `java` program, a path or a name to be looked for in `PATH`.
    pub java: PathBuf,
    /// Largest Java heap in MiB (`-Xmx`); the tool's authors ask for 8192.
    pub memory_mib: u64,
    /// After this time the tool is killed.
    pub timeout: Duration,
    /// Parser threads; 0 for as many as there are processors.
    pub threads: usize,
}

impl SpiceSettings {
    /// The tool in `folder`, with the authors' 8 GiB, all processors, and at most two hours.
    pub fn new(folder: impl Into<PathBuf>, cache: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            cache: cache.into(),
            java: "java".into(),
            memory_mib: 8192,
            timeout: Duration::from_secs(7200),
            threads: 0,
        }
    }
}

/// SPICE of a set of captions.
#[derive(Debug, Clone, PartialEq)]
pub struct SpiceScores {
    /// SPICE of the set, 0 to 1: the mean of the images' F over all tuples.
    pub spice: f64,
    /// Means by category (see [`CATEGORIES`]), over the images for which it is defined, as the tool prints them.
    pub corpus: BTreeMap<String, Tuples>,
    /// By image, in the order given, and category.
    pub per_image: Vec<BTreeMap<String, Tuples>>,
}

/// How many tuples of one category agree.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
pub struct Tuples {
    /// Harmonic mean of precision and recall; none where the candidate and the references have no tuple of the category.
    pub f: Option<f64>,
    /// Part of the candidate's tuples that the references have.
    #[serde(rename = "pr")]
    pub precision: Option<f64>,
    /// Part of the references' tuples that the candidate has.
    #[serde(rename = "re")]
    pub recall: Option<f64>,
    /// Tuples of the candidate that the references have.
    #[serde(rename = "tp")]
    pub true_positives: u64,
    /// Tuples of the candidate that the references do not have.
    #[serde(rename = "fp")]
    pub false_positives: u64,
    /// Tuples of the references that the candidate does not have.
    #[serde(rename = "fn")]
    pub false_negatives: u64,
    /// Images that count in the means.
    #[serde(rename = "numImages")]
    pub images: u64,
}

/// Why there is no SPICE.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpiceError {
    /// Files or programs are absent.
    #[error(transparent)]
    NotAvailable(#[from] Unavailable),
    /// The captions cannot be scored.
    #[error(transparent)]
    Captions(#[from] MetricsError),
    /// Two images have the same id.
    #[error("image `{id}` is given twice\n  help: give exactly one caption per image")]
    DuplicateImage {
        /// The image.
        id: String,
    },
    /// The cache folder cannot be used, or a program cannot be started.
    #[error("cannot {action} `{}`: {source}\n  help: check that it exists, that you may use it, and that the disk is not full", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, folder or program.
        path: PathBuf,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// The tool was killed.
    #[error("the SPICE tool was stopped after {} s\n  help: give it more time, fewer captions, or more threads; what it parsed is kept in `{}`", limit.as_secs(), cache.display())]
    Timeout {
        /// The limit.
        limit: Duration,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The tool, or the compiler of the Java class, failed.
    #[error("{program} failed ({status}); its last words:\n{last_words}\n  help: {help}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// Exit code or signal.
        status: String,
        /// End of what it printed, indented.
        last_words: String,
        /// What to do.
        help: &'static str,
    },
    /// The tool's answer is not what it should be.
    #[error("the SPICE tool's answer cannot be used: {problem}\n  help: use `spice-1.0.jar` of pycocoevalcap 1.2; if it is that, empty `{}`", cache.display())]
    Answer {
        /// What is wrong with it.
        problem: String,
        /// The cache folder.
        cache: PathBuf,
    },
}

/// Whether SPICE can be computed: the files are there, and Java.
///
/// # Errors
/// [`SpiceError::NotAvailable`] with all that is missing; [`SpiceError::Io`].
pub fn check(settings: &SpiceSettings) -> Result<JavaVersion, SpiceError> {
    let mut missing = resources::missing_files(&settings.folder);
    let version = match java::version(&settings.java)? {
        Ok(version) => {
            missing.extend(java::missing_compiler(&settings.java, version, &settings.cache)?);
            Some(version)
        }
        Err(java) => {
            missing.push(java);
            None
        }
    };
    match version {
        Some(version) if missing.is_empty() => Ok(version),
        _ => Err(Unavailable { folder: settings.folder.clone(), missing }.into()),
    }
}

/// Tokenises captions as the COCO tools do, and scores them.
///
/// # Errors
/// [`SpiceError`].
pub fn score_captions(images: &[CaptionEntry], settings: &SpiceSettings) -> Result<SpiceScores, SpiceError> {
    score_tokenized(&tokenize_captions(images), settings)
}

/// Scores captions that are already tokenised, as `pycocoevalcap` hands them to the tool.
///
/// # Errors
/// [`SpiceError`].
pub fn score_tokenized(images: &[CaptionEntry], settings: &SpiceSettings) -> Result<SpiceScores, SpiceError> {
    super::check(images.iter().map(|image| (image.id.as_str(), image.references.len())))?;
    let mut ids = HashSet::new();
    if let Some(twice) = images.iter().find(|image| !ids.insert(image.id.as_str())) {
        return Err(SpiceError::DuplicateImage { id: twice.id.clone() });
    }
    let version = check(settings)?;
    let cache = process::folder(&settings.cache)?;
    let tuples = process::folder(&cache.join("tuples"))?;
    let engine = java::script_engine(&settings.java, version, &cache)?;
    let work = process::WorkFolder::new(&cache)?;
    let (input, output) = (work.path().join("in.json"), work.path().join("out.json"));
    process::write(&input, &input_json(images))?;
    let jar = process::absolute(&settings.folder)?.join(resources::JAR);
    let mut command = Command::new(&settings.java);
    command.args(version.flags()).arg(format!("-Xmx{}M", settings.memory_mib)).arg("-Dfile.encoding=UTF-8");
    command.arg("-cp").arg(java::class_path(engine.as_deref(), &jar)).arg("edu.anu.spice.SpiceScorer");
    command.arg(&input).arg("-out").arg(&output).arg("-cache").arg(&tuples).args(["-subset", "-silent"]);
    if settings.threads > 0 {
        command.arg("-threads").arg(settings.threads.to_string());
    }
    let end = process::run(&mut command, settings.timeout, &work)?;
    match end {
        process::End::Timeout => return Err(SpiceError::Timeout { limit: settings.timeout, cache }),
        process::End::Failed { status, printed } => {
            let last_words = last_words(&printed);
            let help = "OutOfMemoryError: allow more memory; ClassNotFoundException or a missing model: unpack CoreNLP 3.6.0 again";
            return Err(SpiceError::Failed { program: "the SPICE tool", status, last_words, help });
        }
        process::End::Success { .. } => {}
    }
    parse(&output, images).map_err(|problem| SpiceError::Answer { problem, cache })
}

/// The last lines of what a Java program printed, indented, without the frames of stack traces.
fn last_words(printed: &str) -> String {
    let frame = |line: &str| line.starts_with("\tat ") || line.starts_with("\t... ");
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty() && !frame(line)).collect();
    let last = &lines[lines.len().saturating_sub(12)..];
    if last.is_empty() { "    (nothing)".to_owned() } else { format!("    {}", last.join("\n    ")) }
}

/// The tool's input in ASCII, so that no default character set can spoil it.
fn input_json(images: &[CaptionEntry]) -> String {
    let entry = |image: &CaptionEntry| serde_json::json!({ "image_id": image.id, "test": image.candidate, "refs": image.references });
    let text = serde_json::Value::Array(images.iter().map(entry).collect()).to_string();
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")));
        }
    }
    ascii
}

#[derive(Deserialize)]
struct Answer {
    image_id: String,
    scores: BTreeMap<String, Tuples>,
}

/// The answer by id: the order of the entries does not matter.
fn parse(output: &Path, images: &[CaptionEntry]) -> Result<SpiceScores, String> {
    let text = std::fs::read_to_string(output).map_err(|e| format!("cannot read it: {e}"))?;
    scores(&text, images)
}

fn scores(text: &str, images: &[CaptionEntry]) -> Result<SpiceScores, String> {
    let answers: Vec<Answer> = serde_json::from_str(text).map_err(|e| format!("not the expected JSON: {e}"))?;
    let mut by_id: BTreeMap<String, BTreeMap<String, Tuples>> = BTreeMap::new();
    for Answer { image_id, scores } in answers {
        if let Some(category) = CATEGORIES.iter().find(|category| !scores.contains_key(**category)) {
            return Err(format!("image `{image_id}` has no `{category}`"));
        }
        if by_id.insert(image_id.clone(), scores).is_some() {
            return Err(format!("image `{image_id}` occurs twice"));
        }
    }
    let per_image: Vec<BTreeMap<String, Tuples>> = images
        .iter()
        .map(|image| by_id.remove(&image.id).ok_or_else(|| format!("image `{}` is missing", image.id)))
        .collect::<Result<_, _>>()?;
    if let Some(id) = by_id.keys().next() {
        return Err(format!("image `{id}` was never asked for"));
    }
    if let Some((image, _)) = images.iter().zip(&per_image).find(|(_, scores)| scores["All"].f.is_none()) {
        return Err(format!("image `{}` has no F score", image.id));
    }
    let corpus: BTreeMap<String, Tuples> =
        CATEGORIES.iter().map(|&name| (name.to_owned(), mean(per_image.iter().map(|image| image[name])))).collect();
    Ok(SpiceScores { spice: corpus["All"].f.unwrap_or_default(), corpus, per_image })
}

/// Counts are summed; F, precision and recall are means over the images for which all three are defined.
fn mean(images: impl Iterator<Item = Tuples>) -> Tuples {
    let mut sum = Tuples::default();
    let mut scores = [0.0; 3];
    for image in images {
        sum.true_positives += image.true_positives;
        sum.false_positives += image.false_positives;
        sum.false_negatives += image.false_negatives;
        if let (Some(f), Some(precision), Some(recall)) = (image.f, image.precision, image.recall) {
            scores = [scores[0] + f, scores[1] + precision, scores[2] + recall];
            sum.images += 1;
        }
    }
    let [f, precision, recall] = scores.map(|score| (sum.images > 0).then(|| score / sum.images as f64));
    Tuples { f, precision, recall, ..sum }
}

#[cfg(test)]
mod tests;
