//! The layers of a configuration, lowest first: files named by `extends`, the file, profile tables, `VLP_…`
//! environment variables, `--set`. (The defaults lie below all of them; `resolve.rs` adds them.)
//!
//! Every layer is checked against the schema here, and holds valid values only. A file that is reached twice through
//! `extends` counts once, at its lowest place.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Map, Value as Merged};
use figment::{Metadata, Profile, Provider};

use super::Overrides;
use super::diagnose::{Place, Problem, did_you_mean};
use super::schema::{Kind, Shape};
use super::tree::{Node, Source, SyntaxError, Value, parse_document, parse_value};
use super::validate::{Checker, join};

/// Prefix of the environment variables that set an option.
const PREFIX: &str = "VLP_";

/// Variables with that prefix that are no options.
const OTHER_VARIABLES: [&str; 8] = [
    "VLP_CHROMIUM",
    "VLP_CUDA_INCLUDE",
    "VLP_GOLDEN_DIR",
    "VLP_METEOR_DIR",
    "VLP_MLFLOW",
    "VLP_NCCL_INCLUDE",
    "VLP_SPICE_DIR",
    "VLP_TORCH_PYTHON",
];

/// Where a layer comes from.
#[derive(Debug, Clone)]
pub(crate) enum Via {
    /// A file.
    File,
    /// A `[profile.NAME]` table of a file.
    Profile(String),
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
        /// Its value.
        value: String,
    },
    /// `--set KEY=VALUE`.
    Set(String),
}

/// Some settings and where they come from.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Where it comes from.
    pub via: Via,
    /// The file, if it is in one.
    pub source: Option<Arc<Source>>,
    /// Valid values.
    pub tree: Node,
}

impl Layer {
    /// How this layer is called in messages; also its name in figment's metadata.
    pub fn name(&self) -> String {
        let file = self.source.as_ref().map(|s| s.name.as_str()).unwrap_or_default();
        match &self.via {
            Via::File => file.to_string(),
            Via::Profile(name) => format!("profile `{name}` in {file}"),
            Via::Environment { variable, value } => format!("environment variable `{variable}={value}`"),
            Via::Set(argument) => format!("`--set {argument}`"),
        }
    }

    /// How a span of this layer is shown, with a label. Where there is no line to put it under, a label is left out
    /// unless it asks something: others repeat the message.
    pub fn place(&self, span: &Range<usize>, label: String) -> Place {
        match &self.source {
            Some(source) => Place::Text { source: source.clone(), labels: vec![(span.clone(), label)] },
            None => {
                let note = if label.ends_with('?') { label } else { String::new() };
                Place::Outside { origin: format!("in {}", self.name()), note }
            }
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = self.tree.entries().iter().map(|(key, node)| (key.clone(), to_figment(node))).collect();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

fn to_figment(node: &Node) -> Merged {
    match &node.value {
        Value::Text(s) => s.clone().into(),
        Value::Integer(n) => n.unwrap_or_default().into(),
        Value::Float(x) => (*x).into(),
        Value::Boolean(b) => (*b).into(),
        Value::Datetime => "".into(),
        Value::Array(items) => items.iter().map(to_figment).collect::<Vec<_>>().into(),
        Value::Table(entries) => entries.iter().map(|(k, n)| (k.clone(), to_figment(n))).collect::<Dict>().into(),
    }
}

/// All layers of an experiment, and what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Keys whose value in some layer was left out.
    pub rejected: BTreeSet<String>,
    /// A file is missing or is not TOML, so that nothing can be said about the settings as a whole.
    pub incomplete: bool,
    /// The trees of all files, profiles included, in order of reading.
    files: Vec<(Arc<Source>, Node)>,
    seen: BTreeSet<PathBuf>,
}

/// Reads `file`, what it extends, and the overrides.
pub(crate) fn collect(file: &Path, overrides: &Overrides) -> Stack {
    let mut stack = Stack::default();
    match std::fs::read_to_string(file) {
        Ok(text) => stack.add_file(file, text, &mut Vec::new()),
        Err(error) => {
            let what = unreadable(&error);
            let help = match sibling(file).filter(|_| error.kind() == std::io::ErrorKind::NotFound) {
                Some(near) => format!("did you mean `{}`?", shown(&file.with_file_name(near))),
                None if error.kind() == std::io::ErrorKind::NotFound => "`vlp list` shows the experiments".into(),
                None => "name a TOML file; `vlp list` shows the experiments".into(),
            };
            let place = Place::Outside { origin: String::new(), note: String::new() };
            stack.problems.push(Problem::error(place, format!("experiment file `{}` {what}", shown(file)), help));
            stack.incomplete = true;
        }
    }
    for (source, tree) in &stack.files {
        stack.layers.push(Layer { via: Via::File, source: Some(source.clone()), tree: without_extras(tree) });
    }
    if let Some(name) = &overrides.profile {
        stack.add_profile(name);
    }
    for (variable, value) in &overrides.environment {
        stack.add_variable(variable, value);
    }
    for argument in &overrides.set {
        stack.add_set(argument);
    }
    stack
}

impl Stack {
    /// Adds what the file extends, then the file. `above` is the chain of files that led here.
    fn add_file(&mut self, file: &Path, text: String, above: &mut Vec<(PathBuf, String)>) {
        let identity = identity(file);
        if !self.seen.insert(identity.clone()) {
            return;
        }
        let source = Arc::new(Source { name: shown(file), text });
        let (document, syntax) = parse_document(&source.text);
        let place = |span: &Range<usize>, label: String| Place::Text {
            source: source.clone(),
            labels: vec![(span.clone(), label)],
        };
        let mut checker = Checker::new(&place);
        let tree = checker.check(&document, Shape::root(), "").unwrap_or(document);
        let trusted = |problem: &Problem| {
            problem.line().is_none_or(|line| {
                syntax.iter().filter(|e| !e.duplicate).all(|e| {
                    let broken = source.line(e.span.start);
                    if e.derails { line < broken } else { line != broken }
                })
            })
        };
        self.problems.extend(syntax.iter().map(|error| syntax_problem(&source, error)));
        self.problems.extend(checker.problems.into_iter().filter(trusted));
        self.rejected.extend(checker.rejected);
        self.incomplete |= syntax.iter().any(|e| !e.duplicate);

        above.push((identity, source.name.clone()));
        if let Some(Value::Array(items)) = tree.child("extends").map(|n| n.value.clone()) {
            for item in items {
                let Value::Text(entry) = &item.value else { continue };
                self.extend_from(file, entry, &item.span, &source, above);
            }
        }
        above.pop();
        self.files.push((source, tree));
    }

    fn extend_from(
        &mut self,
        file: &Path,
        entry: &str,
        span: &Range<usize>,
        source: &Arc<Source>,
        above: &mut Vec<(PathBuf, String)>,
    ) {
        let target = file.parent().unwrap_or(Path::new("")).join(entry);
        let place = |label: String| Place::Text { source: source.clone(), labels: vec![(span.clone(), label)] };
        let id = identity(&target);
        if let Some(start) = above.iter().position(|(other, _)| *other == id) {
            let chain: Vec<&str> =
                above[start..].iter().map(|(_, name)| name.as_str()).chain([above[start].1.as_str()]).collect();
            let message = format!("`extends` goes in a circle: {}", chain.join(" → "));
            let help = "move what the files share into a file of its own, and extend that";
            self.problems.push(Problem::error(place("closes the circle".into()), message, help));
            self.incomplete = true;
            return;
        }
        match std::fs::read_to_string(&target) {
            Ok(text) => self.add_file(&target, text, above),
            Err(error) => {
                let label = match sibling(&target) {
                    Some(near) => format!("did you mean `{}`?", Path::new(entry).with_file_name(near).display()),
                    None => format!("relative to the folder of `{}`", source.name),
                };
                let message = format!("`extends` names `{}`, which {}", shown(&target), unreadable(&error));
                let help = "paths in `extends` are relative to the folder of the file that names them";
                self.problems.push(Problem::error(place(label), message, help));
                self.incomplete = true;
            }
        }
    }

    fn add_profile(&mut self, name: &str) {
        let mut known = BTreeSet::new();
        let mut found = Vec::new();
        for (source, tree) in &self.files {
            for (profile, node) in tree.child("profile").map(Node::entries).unwrap_or_default() {
                known.insert(profile.clone());
                if profile == name {
                    let via = Via::Profile(name.to_string());
                    found.push(Layer { via, source: Some(source.clone()), tree: node.clone() });
                }
            }
        }
        if found.is_empty() && !self.incomplete {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let note = did_you_mean(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let place = Place::Outside { origin: format!("in `--profile {name}`"), note: note.unwrap_or_default() };
            let help = match known.as_slice() {
                [] => "neither the file nor the files it extends have a `[profile.NAME]` table".to_string(),
                known => format!("the profiles of this experiment: {}", known.join(", ")),
            };
            self.problems.push(Problem::error(place, format!("unknown profile `{name}`"), help));
        }
        self.layers.extend(found);
    }

    fn add_variable(&mut self, variable: &str, value: &str) {
        if OTHER_VARIABLES.contains(&variable) {
            return;
        }
        let Some(name) = variable.strip_prefix(PREFIX) else { return };
        let key = name.to_lowercase().replace("__", ".");
        let via = Via::Environment { variable: variable.to_string(), value: value.to_string() };
        let spell = |key: &str| format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
        self.add_override(
            via,
            &key,
            value,
            &spell,
            "`vlp explain` lists the options; `VLP_TRAIN__BATCH_SIZE=8` sets `train.batch_size`",
        );
    }

    fn add_set(&mut self, argument: &str) {
        let via = Via::Set(argument.to_string());
        let help = "write `--set KEY=VALUE`, for example `--set train.batch_size=8`";
        match argument.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                self.add_override(via, key.trim(), value.trim(), &str::to_string, "`vlp explain` lists the options");
            }
            _ => {
                let place = Place::Outside {
                    origin: format!("in `--set {argument}`"),
                    note: "expected a key, `=` and a value".into(),
                };
                self.problems.push(Problem::error(place, "`--set` without a key and a value", help));
            }
        }
    }

    /// One option given outside the files. `spell` writes a key the way this layer does.
    fn add_override(&mut self, via: Via, key: &str, text: &str, spell: &dyn Fn(&str) -> String, help: &str) {
        let shape = Shape::settings().find(key).filter(|_| key.split('.').all(|part| part.parse::<usize>().is_err()));
        let value = match (parse_value(text), shape.map(|s| s.kind())) {
            (Some(value @ Value::Text(_)), _) => value,
            (_, Some(Kind::Text | Kind::Choice)) | (None, _) => Value::Text(text.to_string()),
            (Some(value), _) => value,
        };
        let blank = Node { key: 0..0, span: 0..0, value: Value::Table(Vec::new()) };
        let mut layer = Layer { via, source: None, tree: blank.clone() };
        let Some(shape) = shape else {
            let mut options = option_keys();
            options.extend(Shape::settings().properties().map(|(section, _)| section.to_string()));
            let note = did_you_mean(key, options.iter().map(String::as_str))
                .map(|near| format!("did you mean `{}`?", spell(near)));
            let place = layer.place(&(0..0), note.unwrap_or_default());
            self.problems.push(Problem::error(place, format!("unknown key `{key}`"), help));
            return;
        };
        let place = |span: &Range<usize>, label: String| layer.place(span, label);
        let mut checker = Checker::new(&place);
        let checked = checker.check(&Node { value, ..blank.clone() }, shape, key);
        self.problems.extend(checker.problems);
        self.rejected.extend(checker.rejected);
        if let Some(leaf) = checked {
            layer.tree = key.rsplit('.').fold(leaf, |inner, name| Node {
                value: Value::Table(vec![(name.to_string(), inner)]),
                ..blank.clone()
            });
            self.layers.push(layer);
        }
    }
}

/// Dotted keys of all options that one value can set.
pub(crate) fn option_keys() -> Vec<String> {
    let mut keys = Vec::new();
    for (section, shape) in Shape::settings().properties() {
        if shape.kind() == Kind::Section {
            keys.extend(shape.properties().map(|(name, _)| join(section, name)));
        } else {
            keys.push(section.to_string());
        }
    }
    keys
}

/// An error of the syntax as a problem.
pub(crate) fn syntax_problem(source: &Arc<Source>, error: &SyntaxError) -> Problem {
    let label = if error.duplicate { "given again here" } else { &error.expected };
    let mut labels = vec![(error.span.clone(), label.to_string())];
    labels.extend(error.first.clone().map(|first| (first, "first given here".into())));
    let (message, help) = match error.duplicate {
        true => (error.message.clone(), "keep one of them"),
        false => (format!("invalid TOML: {}", error.message), "https://toml.io describes the syntax"),
    };
    Problem::error(Place::Text { source: source.clone(), labels }, message, help)
}

fn without_extras(tree: &Node) -> Node {
    let entries = tree.entries().iter().filter(|(key, _)| key != "extends" && key != "profile").cloned();
    Node { value: Value::Table(entries.collect()), ..tree.clone() }
}

fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// A path without `.` and `..` where they can be dropped.
fn shown(path: &Path) -> String {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out.display().to_string()
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".into(),
        std::io::ErrorKind::InvalidData => "is not UTF-8 text".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// A file in the same folder whose name is close to that of `path`.
fn sibling(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = path.file_name()?.to_str()?;
    let mut names: Vec<String> =
        std::fs::read_dir(folder).ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".toml") && name != wanted);
    names.sort();
    did_you_mean(wanted, names.iter().map(String::as_str)).map(String::from)
}
