//! All caption scores that `[metrics]` can ask for, and for each one that cannot be computed here, why not.
//!
//! The formulas are in `crate::metrics`; this module finds the official tools' parts and brings the results into one shape.
//! A score that is not available is a reason in words, never a zero. The process environment comes in as a function.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::EvaluateError;
use crate::config::{MeteorProgram, Metric, MetricsSettings, VqaEvaluator};
use crate::data::karpathy::ImageId;
use crate::metrics::meteor::jar::Jar;
use crate::metrics::meteor::{Meteor, MeteorError, MeteorScores};
use crate::metrics::spice::{self, CATEGORIES, SpiceSettings};
use crate::metrics::vqa::Evaluator;
use crate::metrics::{CAPTION_METRICS, CaptionEntry, MetricsError, score_captions, tokenize_captions};

/// Where the official tools' parts are, whether they are there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Folder of METEOR's jar and paraphrases; none when neither an option, a variable nor a home folder names it.
    pub meteor: Option<PathBuf>,
    /// Folder of SPICE's jar and libraries.
    pub spice: Option<PathBuf>,
    /// Folder for what is computed once: compiled paraphrases, parsed captions.
    pub cache: Option<PathBuf>,
    /// The `java` program, a path or a name to be looked for in PATH.
    pub java: PathBuf,
}

impl Places {
    /// The places that the options name; `variable` gives the environment variables for those that are empty.
    pub fn new(settings: &MetricsSettings, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let given = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        let user = cache().map(|folder| folder.join("vlp"));
        let folder = |option: &str, override_: &str, name: &str| {
            given(option).or_else(|| variable(override_)).or_else(|| Some(user.as_ref()?.join(name)))
        };
        let java = || Some(variable("JAVA_HOME")?.join("bin").join("java"));
        Self {
            meteor: folder(&settings.meteor_folder, "VLP_METEOR_DIR", "meteor"),
            spice: folder(&settings.spice_folder, "VLP_SPICE_DIR", "spice"),
            java: given(&settings.java).or_else(java).unwrap_or_else(|| "java".into()),
            cache: given(&settings.cache).or(user),
        }
    }

    /// A metric's folder and the cache folder, or what to set.
    fn of(
        &self,
        folder: Option<&PathBuf>,
        metric: &str,
        variable: &str,
        jar: &str,
    ) -> Result<(PathBuf, PathBuf), String> {
        folder.cloned().zip(self.cache.clone()).ok_or_else(|| {
            let help =
                format!("set HOME, or {variable} to the folder of `{jar}` and XDG_CACHE_HOME to one for its cache");
            format!("{metric} is not available: there is no folder to look for it\n  help: {help}")
        })
    }
}

/// One score: of the whole set, and of each image.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// `cider`, `spice`, `spice_color`, …
    pub name: String,
    /// Score of the set, in unit fractions; none where it is undefined, or not available.
    pub corpus: Option<f64>,
    /// By image, in the order given; empty where it is not available.
    pub per_image: Vec<Option<f64>>,
}

/// Scores of a set of captions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CaptionReport {
    /// One column for each score that was asked for; SPICE adds its categories.
    pub columns: Vec<Column>,
    /// Why a score is not available: what is missing, and how to get it.
    pub not_available: BTreeMap<&'static str, String>,
}

impl CaptionReport {
    /// Scores of the set that there are, by name, in unit fractions.
    pub fn corpus(&self) -> BTreeMap<String, f64> {
        self.columns.iter().filter_map(|column| Some((column.name.clone(), column.corpus?))).collect()
    }

    /// [`Self::corpus`], where every score must be there.
    ///
    /// # Errors
    /// The reason why one is not.
    pub fn complete(self) -> Result<BTreeMap<String, f64>, EvaluateError> {
        match self.not_available.values().next() {
            None => Ok(self.corpus()),
            Some(reason) => Err(EvaluateError::Metrics(reason.clone())),
        }
    }

    /// Everything in full precision; `ids` names the images, in the order in which they were scored, or is empty.
    pub fn json(&self, images: usize, ids: &[ImageId]) -> Value {
        let named = |value: &dyn Fn(&Column) -> Option<f64>| -> Value {
            self.columns.iter().map(|c| (c.name.clone(), json!(value(c)))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut all = json!({
            "images": images,
            "scores": named(&|column| column.corpus),
            "not_available": self.not_available,
        });
        if !ids.is_empty() {
            let of = |at: usize| named(&|column| column.per_image.get(at).copied().flatten());
            let image = |(at, id): (usize, &ImageId)| json!({ "image_id": id, "scores": of(at) });
            all["per_image"] = ids.iter().enumerate().map(image).collect();
        }
        all
    }
}

/// What computes the scores.
#[derive(Debug, Clone)]
pub struct Scorers<'a> {
    /// `[metrics]`.
    pub settings: &'a MetricsSettings,
    /// Where the parts are.
    pub places: Places,
}

impl Scorers<'_> {
    /// The scores of `metrics`; those that are not available are named in the report.
    ///
    /// # Errors
    /// [`MetricsError`] if there is no image, or one without references.
    pub fn score(&self, images: &[CaptionEntry], metrics: &[Metric]) -> Result<CaptionReport, MetricsError> {
        let mut report = CaptionReport::default();
        let wanted = |name: &str| metrics.iter().any(|metric| metric.name() == name);
        let native: Vec<&str> = CAPTION_METRICS.into_iter().filter(|name| wanted(name)).collect();
        if !native.is_empty() {
            let found = score_captions(images)?;
            report.columns.extend(native.into_iter().map(|name| Column {
                name: name.to_owned(),
                corpus: found.corpus.get(name).copied(),
                per_image: found.per_image.iter().map(|image| image.get(name).copied()).collect(),
            }));
        }
        if metrics.contains(&Metric::Meteor) {
            report.add("meteor", self.meteor(images));
        }
        if metrics.contains(&Metric::Spice) {
            report.add("spice", self.spice(images));
        }
        Ok(report)
    }

    /// What validation computes after each epoch: the scores that need nothing installed, and METEOR when it decides.
    pub fn of_validation(select: Metric) -> Vec<Metric> {
        let needs_nothing = |metric: &Metric| CAPTION_METRICS.contains(&metric.name());
        Metric::ALL.into_iter().filter(|metric| needs_nothing(metric) || *metric == select).collect()
    }

    /// Whether METEOR can be computed; compiles its paraphrases if that was not done yet.
    ///
    /// # Errors
    /// What is missing and how to get it.
    pub fn check_meteor(&self) -> Result<(), String> {
        match self.settings.meteor {
            MeteorProgram::Native => self.native_meteor().map(drop),
            MeteorProgram::Jar => {
                self.meteor_jar()?;
                match spice::java_version(&self.places.java).map_err(|error| meteor_reason(&error))? {
                    Ok(_) => Ok(()),
                    Err(missing) => {
                        let help = "install Java 8 or later, or set `metrics.meteor` to \"native\", which needs none";
                        Err(meteor_reason(&format!("its jar needs {missing}\n  help: {help}")))
                    }
                }
            }
        }
    }

    fn meteor_folders(&self) -> Result<(PathBuf, PathBuf), String> {
        self.places.of(self.places.meteor.as_ref(), "METEOR", "VLP_METEOR_DIR", "meteor-1.5.jar")
    }

    /// METEOR as this program computes it; compiles its paraphrases if that was not done yet.
    ///
    /// # Errors
    /// What is missing and how to get it.
    pub fn native_meteor(&self) -> Result<Meteor, String> {
        let (folder, cache) = self.meteor_folders()?;
        Meteor::open(&folder, &cache.join("meteor-cache")).map_err(|error| meteor_reason(&error))
    }

    fn meteor_jar(&self) -> Result<Jar, String> {
        let (folder, _) = self.meteor_folders()?;
        Ok(Jar::new(&folder).map_err(|error| meteor_reason(&error))?.java(&self.places.java))
    }

    fn meteor(&self, images: &[CaptionEntry]) -> Result<Vec<Column>, String> {
        let tokenized = tokenize_captions(images);
        let pairs: Vec<(&str, Vec<&str>)> = tokenized
            .iter()
            .map(|image| (image.candidate.as_str(), image.references.iter().map(String::as_str).collect()))
            .collect();
        let MeteorScores { corpus, per_image } = match self.settings.meteor {
            MeteorProgram::Native => self.native_meteor()?.score(&pairs),
            MeteorProgram::Jar => {
                self.meteor_jar()?.score(&pairs).map_err(|error: MeteorError| meteor_reason(&error))?.scores
            }
        };
        let per_image = per_image.into_iter().map(Some).collect();
        Ok(vec![Column { name: "meteor".to_owned(), corpus: Some(corpus), per_image }])
    }

    /// How SPICE is run here.
    ///
    /// # Errors
    /// What to set when no folder can be named.
    pub fn spice_settings(&self) -> Result<SpiceSettings, String> {
        let (folder, cache) = self.places.of(self.places.spice.as_ref(), "SPICE", "VLP_SPICE_DIR", "spice-1.0.jar")?;
        Ok(SpiceSettings {
            java: self.places.java.clone(),
            memory_mib: self.settings.spice_memory_mb,
            timeout: Duration::from_secs(self.settings.spice_timeout_s),
            threads: self.settings.spice_threads,
            ..SpiceSettings::new(folder, cache.join("spice-cache"))
        })
    }

    fn spice(&self, images: &[CaptionEntry]) -> Result<Vec<Column>, String> {
        let scores = spice::score_captions(images, &self.spice_settings()?).map_err(|error| error.to_string())?;
        let column = |category: &str| Column {
            name: match category {
                "All" => "spice".to_owned(),
                other => format!("spice_{}", other.to_lowercase()),
            },
            corpus: scores.corpus[category].f,
            per_image: scores.per_image.iter().map(|image| image[category].f).collect(),
        };
        Ok(CATEGORIES.into_iter().map(column).collect())
    }
}

impl CaptionReport {
    fn add(&mut self, name: &'static str, found: Result<Vec<Column>, String>) {
        match found {
            Ok(columns) => self.columns.extend(columns),
            Err(reason) => {
                self.not_available.insert(name, reason);
                self.columns.push(Column { name: name.to_owned(), corpus: None, per_image: Vec::new() });
            }
        }
    }
}

fn meteor_reason(error: &impl std::fmt::Display) -> String {
    format!("METEOR is not available: {error}")
}

impl From<VqaEvaluator> for Evaluator {
    fn from(choice: VqaEvaluator) -> Self {
        match choice {
            VqaEvaluator::Official => Self::Official,
            VqaEvaluator::Legacy => Self::Legacy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(settings: &MetricsSettings, variables: &[(&str, &str)]) -> Places {
        Places::new(settings, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn options_come_before_variables_and_those_before_the_cache_folder() {
        let settings = MetricsSettings::default();
        let home = places(&settings, &[("HOME", "/h")]);
        assert_eq!(home.meteor, Some("/h/.cache/vlp/meteor".into()));
        assert_eq!(home.spice, Some("/h/.cache/vlp/spice".into()));
        assert_eq!(home.cache, Some("/h/.cache/vlp".into()));
        assert_eq!(home.java, PathBuf::from("java"));
        let variables = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("VLP_METEOR_DIR", "/m"), ("JAVA_HOME", "/j")];
        let set = places(&settings, &variables);
        assert_eq!(set.meteor, Some("/m".into()));
        assert_eq!(set.spice, Some("/x/vlp/spice".into()));
        assert_eq!(set.java, PathBuf::from("/j/bin/java"));
        let options = MetricsSettings { meteor_folder: "a".into(), java: "b".into(), cache: "c".into(), ..settings };
        let options = places(&options, &variables);
        assert_eq!((options.meteor, options.cache), (Some("a".into()), Some("c".into())));
        assert_eq!(options.java, PathBuf::from("b"));
        assert_eq!(places(&MetricsSettings::default(), &[]).cache, None);
    }

    #[test]
    fn what_is_missing_is_said_and_no_score_is_made_up() {
        let settings = MetricsSettings::default();
        let scorers = Scorers { settings: &settings, places: places(&settings, &[]) };
        let entry = |id: &str| CaptionEntry { id: id.into(), candidate: "a".into(), references: vec!["a".into()] };
        let report = scorers.score(&[entry("1"), entry("2")], &[Metric::Spice, Metric::RougeL, Metric::Meteor]);
        let report = report.unwrap();
        assert_eq!(report.corpus(), BTreeMap::from([("rouge_l".to_owned(), 1.0)]));
        assert_eq!(
            report.not_available["meteor"],
            "METEOR is not available: there is no folder to look for it\n  help: set HOME, or VLP_METEOR_DIR to the \
             folder of `meteor-1.5.jar` and XDG_CACHE_HOME to one for its cache"
        );
        let json = report.json(2, &[ImageId::Number(1), ImageId::Name("b".into())]);
        assert_eq!(json["scores"], json!({ "rouge_l": 1.0, "meteor": null, "spice": null }));
        assert_eq!(
            json["per_image"][1],
            json!({ "image_id": "b", "scores": { "rouge_l": 1.0, "meteor": null, "spice": null } })
        );
        assert_eq!(report.not_available.len(), 2);
    }

    #[test]
    fn validation_computes_what_needs_nothing_and_what_decides() {
        let names = |metric| Scorers::of_validation(metric).into_iter().map(Metric::name).collect::<Vec<_>>();
        assert_eq!(names(Metric::Cider), ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]);
        assert_eq!(names(Metric::Meteor), ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider"]);
    }
}
