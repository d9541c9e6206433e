//! From layers to one [`Settings`]: merges them over the defaults with figment, replaces `${VARIABLE}` in paths, and
//! keeps where each value came from.

use std::collections::BTreeMap;
use std::fmt;

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Value as Merged;
use serde_json::Value as Json;

use super::diagnose::{Place, Problem};
use super::layers::{Layer, Stack, Via};
use super::options::Settings;
use super::schema::Shape;
use super::tree::Node;
use super::validate::join;

/// Where one value was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere: the built-in default.
    #[default]
    Default,
    /// In a file.
    File {
        /// The file, relative to where `vlp` was started.
        file: String,
        /// Line, from 1.
        line: usize,
    },
    /// In a `[profile.NAME]` table.
    Profile {
        /// Name of the profile.
        name: String,
        /// The file, relative to where `vlp` was started.
        file: String,
        /// Line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// In `--set`.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line } => write!(f, "{file}:{line}"),
            Origin::Profile { name, file, line } => write!(f, "{file}:{line} (profile {name})"),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::Set => f.write_str("--set"),
        }
    }
}

/// Where every value that is not a default was given.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Origin of the option with this dotted key, spelt as [`flatten`] spells it.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// The options among `settings` whose values come from `[profile.NAME]` tables, by key, spelt as [`flatten`] spells it.
    pub fn of_profiles(&self, settings: &Settings) -> BTreeMap<String, Json> {
        let mut all = flatten(settings);
        all.retain(|key, _| matches!(self.of(key), Origin::Profile { .. }));
        all
    }
}

/// The layers merged: settings, and for each key that a layer gives, the highest layer that does.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    layers: &'a [Layer],
    winners: BTreeMap<String, usize>,
    value: Merged,
}

impl<'a> Merge<'a> {
    /// Merges the layers of `stack` over the defaults.
    pub fn of(stack: &'a Stack) -> Result<Self, Problem> {
        let base = Figment::from(Serialized::defaults(Settings::default()));
        let figment = stack.layers.iter().fold(base, |figment, layer| figment.merge(layer));
        let value = figment.find_value("").map_err(|e| internal(&e))?;
        let mut merge = Self { layers: &stack.layers, winners: BTreeMap::new(), value };
        let names: Vec<String> = stack.layers.iter().map(Layer::name).collect();
        record(&merge.value, "", &mut merge.winners, &|value| {
            let name = &figment.get_metadata(value.tag())?.name;
            names.iter().rposition(|n| n == name)
        });
        Ok(merge)
    }

    /// The settings, with `${VARIABLE}` as written.
    pub fn settings(&self) -> Result<Settings, Problem> {
        self.value.deserialize().map_err(|e| internal(&e))
    }

    /// Replaces `${VARIABLE}` in all paths by its value in `environment`.
    pub fn expand(&mut self, environment: &BTreeMap<String, String>) -> Vec<Problem> {
        let mut value = self.value.clone();
        let mut failures = Failures::default();
        expand(&mut value, Shape::settings(), "", environment, &mut failures);
        self.value = value;
        let mut problems: Vec<Problem> = Vec::new();
        for (variable, keys) in &failures.unset {
            let names = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let example = variable.trim_end_matches("_ROOT").trim_end_matches("_DIR").to_lowercase();
            let message = format!(
                "environment variable `{variable}` is not set; {names} {}",
                if keys.len() == 1 { "uses it" } else { "use it" }
            );
            let help = format!("export {variable}=/path/to/{example}");
            let labels: Vec<(&str, &str)> =
                keys.iter().enumerate().map(|(i, k)| (k.as_str(), if i == 0 { "not set" } else { "" })).collect();
            problems.push(Problem::error(self.place(&labels), message, help));
        }
        for key in &failures.malformed {
            let message = format!("`{key}` has a `${{` that no `}}` closes");
            problems.push(Problem::error(self.place(&[(key, "not closed")]), message, "write `${NAME}`"));
        }
        problems
    }

    /// The node of the highest layer that gives `key`, with the position of that layer.
    pub fn winner(&self, key: &str) -> Option<(usize, &'a Node)> {
        let index = *self.winners.get(key)?;
        Some((index, self.layers.get(index)?.tree.find(key)?))
    }

    /// Where to point for a problem between several keys, each with its label: the key that was given last, and the
    /// others as far as they are in the same file.
    pub fn place(&self, keys: &[(&str, &str)]) -> Place {
        let mut given: Vec<_> = keys.iter().filter_map(|(key, label)| Some((self.winner(key)?, *label))).collect();
        given.sort_by_key(|((layer, _), _)| std::cmp::Reverse(*layer));
        let Some(((first, node), label)) = given.first() else {
            let file = self.layers.iter().rev().find_map(|l| l.source.as_ref()).map(|s| s.name.clone());
            return Place::Outside {
                origin: file.map(|f| format!("in `{f}`")).unwrap_or_default(),
                note: String::new(),
            };
        };
        let mut place = self.layers[*first].place(&node.span, label.to_string());
        if let Place::Text { source, labels } = &mut place {
            let same = |layer: usize| self.layers[layer].source.as_ref().is_some_and(|s| s == source);
            let rest = given.iter().skip(1).filter(|((layer, _), _)| same(*layer));
            labels.extend(rest.map(|((_, node), label)| (node.span.clone(), label.to_string())));
        }
        place
    }

    /// Where to point for a problem with the name of a key, not with its value.
    pub fn place_of_key(&self, key: &str, label: &str) -> Place {
        match self.winner(key).and_then(|(layer, node)| Some((self.layers.get(layer)?, node))) {
            Some((layer, node)) => layer.place(&node.key, label.to_string()),
            None => self.place(&[]),
        }
    }

    /// Where a key would have to be written that no layer gives: at the header of its table, if a file has it.
    pub fn place_missing(&self, section: &str, label: &str) -> Place {
        let files = self.layers.iter().rev().filter(|l| matches!(l.via, Via::File));
        let mut headers = files.filter_map(|layer| Some((layer, layer.tree.find(section)?)));
        match headers.next() {
            Some((layer, node)) => layer.place(&node.span, label.to_string()),
            None => self.place(&[]),
        }
    }

    /// Where every value comes from.
    pub fn origins(&self) -> Origins {
        let origin = |key: &String| {
            let (layer, node) = self.winner(key)?;
            let layer = self.layers.get(layer)?;
            let spot = || layer.source.as_ref().map(|s| (s.name.clone(), s.line(node.key.start)));
            Some(match &layer.via {
                Via::File => spot().map(|(file, line)| Origin::File { file, line })?,
                Via::Profile(name) => spot().map(|(file, line)| Origin::Profile { name: name.clone(), file, line })?,
                Via::Environment { variable, .. } => Origin::Environment(variable.clone()),
                Via::Set(_) => Origin::Set,
            })
        };
        Origins(self.winners.keys().filter_map(|key| Some((key.clone(), origin(key)?))).collect())
    }
}

/// Dotted keys and their values: `train.batch_size`, `paper.0.expect.cider`. Arrays of plain values are one value.
pub fn flatten(settings: &Settings) -> BTreeMap<String, Json> {
    let mut out = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(settings) {
        flatten_into(value, "", &mut out);
    }
    out
}

fn flatten_into(value: Json, key: &str, out: &mut BTreeMap<String, Json>) {
    match value {
        Json::Object(map) => map.into_iter().for_each(|(name, child)| flatten_into(child, &join(key, &name), out)),
        Json::Array(items) if items.iter().any(Json::is_object) => {
            items.into_iter().enumerate().for_each(|(i, item)| flatten_into(item, &join(key, &i.to_string()), out));
        }
        leaf => {
            out.insert(key.to_string(), leaf);
        }
    }
}

fn record(
    value: &Merged,
    key: &str,
    winners: &mut BTreeMap<String, usize>,
    layer_of: &dyn Fn(&Merged) -> Option<usize>,
) {
    if let Some(layer) = layer_of(value) {
        winners.insert(key.to_string(), layer);
    }
    match value {
        Merged::Dict(_, dict) => {
            dict.iter().for_each(|(name, child)| record(child, &join(key, name), winners, layer_of))
        }
        Merged::Array(_, items) => {
            items.iter().enumerate().for_each(|(i, item)| record(item, &join(key, &i.to_string()), winners, layer_of));
        }
        _ => {}
    }
}

/// Keys whose path could not be expanded.
#[derive(Default)]
struct Failures {
    /// By variable.
    unset: BTreeMap<String, Vec<String>>,
    malformed: Vec<String>,
}

fn expand(
    value: &mut Merged,
    shape: Shape,
    key: &str,
    environment: &BTreeMap<String, String>,
    failures: &mut Failures,
) {
    match value {
        Merged::Dict(_, dict) => {
            for (name, child) in dict.iter_mut() {
                if let Merged::String(_, text) = child
                    && shape.is_path()
                {
                    *text = expand_text(text, &join(key, name), environment, failures);
                } else if let Some(shape) = shape.child(name) {
                    expand(child, shape, &join(key, name), environment, failures);
                }
            }
        }
        Merged::String(_, text) if shape.is_path() => *text = expand_text(text, key, environment, failures),
        _ => {}
    }
}

fn expand_text(text: &str, key: &str, environment: &BTreeMap<String, String>, failures: &mut Failures) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((variable, tail)) = after.split_once('}') else {
            failures.malformed.push(key.to_string());
            return text.to_string();
        };
        match environment.get(variable).filter(|value| !value.is_empty()) {
            Some(value) => out.push_str(value),
            None => {
                let keys = failures.unset.entry(variable.to_string()).or_default();
                if keys.last().is_none_or(|last| last != key) {
                    keys.push(key.to_string());
                }
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Values that passed the schema and yet do not fit the types; the two are generated from each other.
fn internal(error: &figment::Error) -> Problem {
    let place = Place::Outside { origin: String::new(), note: String::new() };
    Problem::error(place, error.to_string(), "the schema allows a value that the program does not: please report this")
}
