//! SPICE and METEOR for `vlp score`: where their parts are looked for, and what is said when they are absent.
//!
//! They are computed in `crate::metrics`.

use std::path::PathBuf;

use crate::metrics::CaptionEntry;
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
pub fn meteor(_images: &[CaptionEntry]) -> Result<Family, String> {
    let help = "compute it with pycocoevalcap 1.2, which carries `meteor-1.5.jar`";
    Err(format!("METEOR is not available: this version of vlp cannot compute it\n  help: {help}"))
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
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache"))).map(|c| c.join("vlp"));
    let folder = variable("VLP_SPICE_DIR").or_else(|| Some(cache.as_ref()?.join("spice")));
    let none = || {
        let help =
            "set HOME, or VLP_SPICE_DIR to the folder of `spice-1.0.jar` and XDG_CACHE_HOME to one for its cache";
        format!("SPICE is not available: there is no folder to look for it\n  help: {help}")
    };
    let (folder, cache) = folder.zip(cache).ok_or_else(none)?;
    let mut settings = SpiceSettings::new(folder, cache.join("spice-cache"));
    if let Some(home) = variable("JAVA_HOME") {
        settings.java = home.join("bin").join("java");
    }
    Ok(settings)
}
