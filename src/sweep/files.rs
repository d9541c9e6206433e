//! The experiment files that a sweep writes: one for each trial, and one with the best settings found.
//!
//! Both extend the base experiment and say only what differs from it.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::study::Trial;
use crate::config::{Sweep, toml_text};

/// Name of a trial's experiment: that of the sweep and the number of the trial, from 001.
pub fn trial_name(sweep: &Sweep, number: usize) -> String {
    name_of_trial(&sweep.settings.name, number)
}

/// The same, of the sweep with this name.
pub(super) fn name_of_trial(sweep: &str, number: usize) -> String {
    format!("{sweep}-{:03}", number + 1)
}

/// What all trials of a sweep get, besides the options that are searched over.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// Options and their values.
    pub options: Vec<(String, Value)>,
    /// The profile that they were resolved under.
    pub profile: Option<String>,
}

impl Fixed {
    /// A comment for the head of a file: the options of the profile are in it, but not what it says about other experiments.
    fn remark(&self) -> String {
        let said = |name: &String| {
            format!(
                "# With the options of the profile {name}; `--profile {name}` applies it to what this starts from too.\n"
            )
        };
        self.profile.as_ref().map(said).unwrap_or_default()
    }
}

/// The experiment file of a trial, for the folder `folder`; `fixed` is what all trials get. `threads` per process, where the base leaves them open;
/// `parent` is the MLflow run of the sweep, if there is one. Its tables go to `results`.
pub fn trial_file(
    sweep: &Sweep,
    trial: &Trial,
    fixed: &Fixed,
    folder: &Path,
    threads: Option<usize>,
    parent: Option<&str>,
    results: &Path,
) -> String {
    let mut more = fixed.options.clone();
    more.extend([
        ("output.runs".to_owned(), Value::from(sweep.base.settings.output.runs.as_str())),
        ("output.results".to_owned(), results.display().to_string().into()),
    ]);
    more.extend(threads.map(|threads| ("launch.threads".to_owned(), threads.into())));
    more.extend(parent.map(|parent| ("track.parent_run".to_owned(), parent.into())));
    let title = format!("# Trial {} of the sweep {}, written by `vlp sweep`.", trial.number + 1, sweep.settings.name);
    let description = format!("Trial {} of the sweep {}", trial.number + 1, sweep.settings.name);
    // Rows of tables are those of the base, not of trials.
    let head = format!("{title}\n{}extends = [{}]\npaper = []\n", fixed.remark(), base(sweep, folder));
    head + &tables(&trial_name(sweep, trial.number), &description, trial, more)
}

/// The experiment file with the settings of the best trial.
pub fn best_file(sweep: &Sweep, trial: &Trial, value: f64, fixed: &Fixed, folder: &Path) -> String {
    let (name, metric) = (&sweep.settings.name, &sweep.settings.metric);
    let title = format!(
        "# The best settings of the sweep {name}: trial {} with {metric} {value}, written by `vlp sweep`.",
        trial.number + 1
    );
    let head = format!("{title}\n{}extends = [{}]\npaper = []\n", fixed.remark(), base(sweep, folder));
    head + &tables(
        &format!("{name}-best"),
        &format!("The best settings of the sweep {name}"),
        trial,
        fixed.options.clone(),
    )
}

/// The base experiment as a TOML string, relative to `folder` where that can be said.
fn base(sweep: &Sweep, folder: &Path) -> String {
    let path = relative(&sweep.base.file, folder).unwrap_or_else(|| sweep.base.file.clone());
    toml_text(&path.display().to_string().into())
}

/// `[experiment]`, then one table for each section with a changed option.
fn tables(name: &str, description: &str, trial: &Trial, more: Vec<(String, Value)>) -> String {
    let own = [("experiment.name".to_owned(), name.into()), ("experiment.description".to_owned(), description.into())];
    let mut all: Vec<(String, Value)> = own.into_iter().chain(trial.options.iter().cloned()).chain(more).collect();
    // What comes first wins: a key stands in a file once.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(key, _)| seen.insert(key.clone()));
    let mut sections: Vec<&str> = Vec::new();
    for (key, _) in &all {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    let mut out = String::new();
    for section in sections {
        out.push_str(&format!("\n[{section}]\n"));
        for (key, value) in &all {
            if let Some((of, option)) = key.rsplit_once('.')
                && of == section
            {
                out.push_str(&format!("{option} = {}\n", toml_text(value)));
            }
        }
    }
    out
}

/// `file` as seen from `folder`: both made absolute, what they share left out.
fn relative(file: &Path, folder: &Path) -> Option<PathBuf> {
    let (file, folder) = (file.canonicalize().ok()?, folder.canonicalize().ok()?);
    let (file, folder): (Vec<Component>, Vec<Component>) = (file.components().collect(), folder.components().collect());
    let shared = file.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[shared..].iter().map(|_| Component::ParentDir);
    Some(up.chain(file[shared..].iter().copied()).collect())
}
