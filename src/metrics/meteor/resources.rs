//! The files METEOR needs: where they are, and what is read out of the jar. Nothing in the jar is run here.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::MeteorError;
use super::normaliser::Abbreviations;
use super::wordnet::WordNet;

/// Name of the jar in the folder of resources.
pub const JAR: &str = "meteor-1.5.jar";
/// Name of the paraphrase table, in the folder of resources or in `data/` there (where the jar looks for it).
pub const PARAPHRASES: &str = "paraphrase-en.gz";

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `meteor-1.5.jar`.
    pub jar: PathBuf,
    /// `paraphrase-en.gz`.
    pub paraphrases: PathBuf,
}

impl Files {
    /// Looks in `folder`.
    ///
    /// # Errors
    /// [`MeteorError::Missing`] names all files that are not there.
    pub fn find(folder: &Path) -> Result<Self, MeteorError> {
        let missing = Self::missing(folder);
        if missing.is_empty() {
            return Ok(Self { jar: folder.join(JAR), paraphrases: paraphrases(folder) });
        }
        let names: Vec<&str> = missing.iter().map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
        Err(MeteorError::Missing { folder: folder.to_owned(), files: names.join(" and ") })
    }

    /// Where in `folder` files are expected that are not there, in the layout of PyPI's `pycocoevalcap`.
    pub fn missing(folder: &Path) -> Vec<&'static str> {
        let jar = (!folder.join(JAR).is_file()).then_some(JAR);
        jar.into_iter().chain((!paraphrases(folder).is_file()).then_some("data/paraphrase-en.gz")).collect()
    }
}

/// The paraphrase table below `data/`, else directly in the folder.
fn paraphrases(folder: &Path) -> PathBuf {
    let below = folder.join("data").join(PARAPHRASES);
    if below.is_file() { below } else { folder.join(PARAPHRASES) }
}

/// The English data inside the jar.
#[derive(Debug, Clone)]
pub struct Language {
    /// Words that count less in the score (`the`, `of`, punctuation), in lower case.
    pub function_words: HashSet<Box<str>>,
    /// Abbreviations for the normaliser.
    pub abbreviations: Abbreviations,
    /// Synonyms.
    pub wordnet: WordNet,
}

impl Language {
    /// Reads the jar.
    ///
    /// # Errors
    /// [`MeteorError`] if the file cannot be read, or is not METEOR's jar.
    pub fn read(jar: &Path) -> Result<Self, MeteorError> {
        let file = File::open(jar).map_err(|error| MeteorError::read(jar, error))?;
        let bad = |reason: String| MeteorError::BadJar { path: jar.to_owned(), reason };
        let mut archive = zip::ZipArchive::new(file).map_err(|error| bad(error.to_string()))?;
        let mut text = |name: &str| {
            let mut text = String::new();
            let mut member = archive.by_name(name).map_err(|error| bad(format!("`{name}`: {error}")))?;
            member.read_to_string(&mut text).map_err(|error| bad(format!("`{name}`: {error}")))?;
            Ok(text)
        };
        let function_words = text("function/english.words")?.split_whitespace().map(Into::into).collect();
        let abbreviations = Abbreviations::parse(&text("nonbreaking/english.prefixes")?);
        let synsets = text("synonym/english.synsets")?;
        let wordnet = WordNet::parse(&synsets, &text("synonym/english.exceptions")?)
            .map_err(|line| bad(format!("`synonym/english.synsets`, line {line}: expected numbers of synonym sets")))?;
        Ok(Self { function_words, abbreviations, wordnet })
    }
}
