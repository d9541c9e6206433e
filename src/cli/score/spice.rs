//! SPICE and METEOR for `vlp score`: where their parts are looked for, and what is said when they are absent.
//!
//! They are computed in `crate::metrics`.

use std::path::PathBuf;

use crate::metrics::CaptionEntry;
use crate::metrics::meteor::Meteor;
use crate::metrics::ptb_tokenizer::tokenize_lines;
use crate::metrics::spice::{self, CATEGORIES, SpiceSettings};

/// Scores of one metric and, for SPICE, its categories.
pub struct Family {
    /// Names, the metric's own first.
    pub names: Vec<String>,
    /// One for each name; none where it is undefined.
    pub corpus: Vec<Option<f64>>,
    /// `[image][name]`.
    pub per_image: Vec<Vec<Option<f64>>>,
}

/// METEOR of captions, or why there is none.
pub fn meteor(images: &[CaptionEntry]) -> Result<Family, String> {
    let (folder, cache) = folders("METEOR", "VLP_METEOR_DIR", "meteor", "meteor-1.5.jar")?;
    let meteor = Meteor::open(&folder, &cache.join("meteor-cache"))
        .map_err(|error| format!("METEOR is not available: {error}"))?;
    let candidates: Vec<&str> = images.iter().map(|image| image.candidate.as_str()).collect();
    let references: Vec<&str> = images.iter().flat_map(|image| &image.references).map(String::as_str).collect();
    let mut references = tokenize_lines(&references).into_iter();
    let tokenized: Vec<(String, Vec<String>)> = tokenize_lines(&candidates)
        .into_iter()
        .zip(images)
        .map(|(candidate, image)| (candidate, references.by_ref().take(image.references.len()).collect()))
        .collect();
    let scores = meteor.score(&tokenized);
    Ok(Family {
        names: vec!["meteor".to_owned()],
        corpus: vec![Some(scores.corpus)],
        per_image: scores.per_image.iter().map(|score| vec![Some(*score)]).collect(),
    })
}

/// SPICE of captions, or why there is none.
pub fn spice(images: &[CaptionEntry]) -> Result<Family, String> {
    let scores = spice::score_captions(images, &settings()?).map_err(|error| error.to_string())?;
    let names = CATEGORIES.iter().map(|category| match *category {
        "All" => "spice".to_owned(),
        other => format!("spice_{}", other.to_lowercase()),
    });
    Ok(Family {
        names: names.collect(),
        corpus: CATEGORIES.iter().map(|category| scores.corpus[*category].f).collect(),
        per_image: scores
            .per_image
            .iter()
            .map(|image| CATEGORIES.iter().map(|category| image[*category].f).collect())
            .collect(),
    })
}

/// `$VLP_SPICE_DIR`, else `vlp/spice` in the user's cache folder; `$JAVA_HOME`, else `java` in PATH.
fn settings() -> Result<SpiceSettings, String> {
    let (folder, cache) = folders("SPICE", "VLP_SPICE_DIR", "spice", "spice-1.0.jar")?;
    let mut settings = SpiceSettings::new(folder, cache.join("spice-cache"));
    if let Some(home) = variable("JAVA_HOME") {
        settings.java = home.join("bin").join("java");
    }
    Ok(settings)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of a metric's parts (`override_`, else `vlp/<name>` in the user's cache folder), and the cache folder.
fn folders(metric: &str, override_: &str, name: &str, jar: &str) -> Result<(PathBuf, PathBuf), String> {
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache"))).map(|c| c.join("vlp"));
    let folder = variable(override_).or_else(|| Some(cache.as_ref()?.join(name)));
    let none = || {
        let help = format!("set HOME, or {override_} to the folder of `{jar}` and XDG_CACHE_HOME to one for its cache");
        format!("{metric} is not available: there is no folder to look for it\n  help: {help}")
    };
    folder.zip(cache).ok_or_else(none)
}
