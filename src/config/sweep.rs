//! Sweep files: what they may say, checked like experiment files, with file and line; their JSON Schema.
//!
//! The values of an option in `[space]` are checked against the option itself. Nothing is proposed here.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::diagnose::{Place, Problem, Problems, did_you_mean};
use super::layers::{option_keys, syntax_problem};
use super::options::{SweepFile, SweepSettings};
use super::schema::{Kind, Shape};
use super::tree::{Node, Source, Value, parse_document};
use super::validate::Checker;
use super::{Experiment, Overrides};

static SWEEP: LazyLock<Json> = LazyLock::new(generate);

/// Options that the sweep itself gives to each trial.
const OWN: [&str; 6] =
    ["experiment.name", "experiment.description", "paper", "output.runs", "output.results", "track.parent_run"];

/// JSON Schema (draft 7) of a sweep file.
pub fn sweep_schema() -> &'static Json {
    &SWEEP
}

fn generate() -> Json {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut root = settings.into_generator().into_root_schema_for::<SweepFile>().to_value();
    root["title"] = "vlp sweep".into();
    root["description"] = "A search over options of one experiment.".into();
    root["properties"]["space"]["propertyNames"] = serde_json::json!({ "enum": option_keys() });
    root["properties"]["space"]["minProperties"] = 1.into();
    root
}

/// The values of one option.
#[derive(Debug, Clone, PartialEq)]
pub enum Dimension {
    /// One of these.
    Choice(Vec<Json>),
    /// A number from the first to the second.
    Uniform(f64, f64),
    /// The same, by orders of magnitude.
    LogUniform(f64, f64),
    /// A whole number from the first to the second, both included.
    Int(i64, i64),
}

/// A sweep, resolved: its file, and the experiment that it starts from.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The file.
    pub file: PathBuf,
    /// `[sweep]`, with the metric filled in.
    pub settings: SweepSettings,
    /// `[space]`, in the order of the file.
    pub space: Vec<(String, Dimension)>,
    /// The experiment whose settings the trials change.
    pub base: Experiment,
}

/// Whether a file is a sweep: it has a `[sweep]` or a `[space]` table.
pub fn is_sweep(file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let (tree, _) = parse_document(&text);
    tree.child("sweep").is_some() || tree.child("space").is_some()
}

/// Resolves the sweep in `file`; `overrides` are the layers above its base experiment.
pub fn load_sweep(file: &Path, overrides: &Overrides) -> Result<Sweep, Problems> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let place = Place::Outside { origin: String::new(), note: String::new() };
        let message = format!("sweep file `{}` cannot be read: {error}", file.display());
        Problems(vec![Problem::error(place, message, "name a TOML file, e.g. `experiments/sweeps/NAME.toml`")])
    })?;
    let source = Arc::new(Source { name: file.display().to_string(), text });
    let (document, syntax) = parse_document(&source.text);
    if !syntax.is_empty() {
        return Err(Problems(syntax.iter().map(|error| syntax_problem(&source, error)).collect()).in_order());
    }
    let mut reader = Reader { source: source.clone(), problems: Vec::new() };
    let mut settings = reader.settings(&document);
    let space = reader.space(&document);
    let base = match settings.base.is_empty() {
        true => Err(Problems(Vec::new())),
        false => super::load(&file.parent().unwrap_or(Path::new("")).join(&settings.base), overrides),
    };
    let mut problems = reader.problems;
    match base {
        Ok(base) if problems.is_empty() => {
            if settings.metric.is_empty() {
                settings.metric = selection(&base, &source, &document)?;
            }
            Ok(Sweep { file: file.to_path_buf(), settings, space, base })
        }
        Ok(_) => Err(Problems(problems).in_order()),
        Err(of_base) => {
            problems.extend(of_base.0);
            Err(Problems(problems).in_order())
        }
    }
}

/// Journal name of the base's selection score.
fn selection(base: &Experiment, source: &Arc<Source>, document: &Node) -> Result<String, Problems> {
    let select = &base.settings.select;
    if !select.split.is_empty() {
        let metric = serde_json::to_value(select.metric).unwrap_or_default();
        return Ok(format!("{}/{}", select.split, metric.as_str().unwrap_or_default()));
    }
    let span = document.child("sweep").map_or(0..0, |node| node.key.clone());
    let labels = vec![(span, "no `metric` here".to_owned())];
    let message = "`sweep.metric` is not given, and the base experiment selects by no score";
    let help = "give the journal name of a metric, e.g. `metric = \"train/loss\"` with `direction = \"minimize\"`";
    Err(Problems(vec![Problem::error(Place::Text { source: source.clone(), labels }, message, help)]))
}

/// Reads a document whose syntax is right, and collects what is wrong with it.
struct Reader {
    source: Arc<Source>,
    problems: Vec<Problem>,
}

impl Reader {
    fn place(&self, span: &Range<usize>, label: &str) -> Place {
        Place::Text { source: self.source.clone(), labels: vec![(span.clone(), label.to_owned())] }
    }

    fn problem(&mut self, span: &Range<usize>, label: &str, message: String, help: &str) {
        let place = self.place(span, label);
        self.problems.push(Problem::error(place, message, help));
    }

    /// `node` against `shape`; what is wrong is collected.
    fn check(&mut self, node: &Node, shape: Shape, key: &str) -> bool {
        let source = self.source.clone();
        let place = |span: &Range<usize>, label: String| Place::Text {
            source: source.clone(),
            labels: vec![(span.clone(), label)],
        };
        let mut checker = Checker::new(&place);
        checker.check(node, shape, key);
        let fine = checker.problems.is_empty();
        self.problems.extend(checker.problems);
        fine
    }

    /// Everything but `[space]`.
    fn settings(&mut self, document: &Node) -> SweepSettings {
        let entries = document.entries().iter().filter(|(key, _)| key != "space").cloned().collect();
        let rest = Node { value: Value::Table(entries), ..document.clone() };
        if !self.check(&rest, Shape::of(sweep_schema()), "") {
            return SweepSettings::default();
        }
        let tables = self.source.text.parse::<toml::Table>().unwrap_or_default();
        let settings: SweepSettings =
            tables.get("sweep").and_then(|table| table.clone().try_into().ok()).unwrap_or_default();
        let span = document.child("sweep").map_or(0..0, |node| node.key.clone());
        for (key, value) in [("name", &settings.name), ("base", &settings.base)] {
            if value.is_empty() {
                let help = match key {
                    "name" => "a sweep needs a name: `name = \"…\"` below `[sweep]`",
                    _ => "name the experiment file, relative to this file: `base = \"../…/NAME.toml\"` below `[sweep]`",
                };
                self.problem(&span, "", format!("`sweep.{key}` is not given"), help);
            }
        }
        settings
    }

    fn space(&mut self, document: &Node) -> Vec<(String, Dimension)> {
        let help = "e.g. `\"train.learning_rate\" = { log_uniform = [1e-5, 1e-3] }` below `[space]`";
        let Some(space) = document.child("space").filter(|space| !space.entries().is_empty()) else {
            let span = document.child("space").map_or(0..0, |node| node.key.clone());
            self.problem(&span, "", "`[space]` names no option to search over".into(), help);
            return Vec::new();
        };
        let entries = space.entries().to_vec();
        entries.iter().filter_map(|(key, node)| Some((key.clone(), self.dimension(key, node)?))).collect()
    }

    /// The values of one option.
    fn dimension(&mut self, key: &str, node: &Node) -> Option<Dimension> {
        let shape = self.option(key, node)?;
        let forms = "one of `{ choice = […] }`, `{ uniform = [LOW, HIGH] }`, `{ log_uniform = [LOW, HIGH] }`, `{ int = [LOW, HIGH] }`";
        let [(form, value)] = node.entries() else {
            let label = format!("this is {}", node.value.type_name());
            let label = if matches!(node.value, Value::Table(_)) { "not exactly one form" } else { &label };
            self.problem(&node.span, label, format!("`space.\"{key}\"` must have one form of values"), forms);
            return None;
        };
        match form.as_str() {
            "choice" => self.choice(key, value, shape),
            "uniform" | "log_uniform" | "int" => self.range(key, form, value, shape),
            other => {
                let near = did_you_mean(other, ["choice", "uniform", "log_uniform", "int"]);
                let label = near.map_or("no such form".to_owned(), |near| format!("did you mean `{near}`?"));
                self.problem(&value.key, &label, format!("`space.\"{key}\"` has the unknown form `{other}`"), forms);
                None
            }
        }
    }

    /// The option that `key` names.
    fn option(&mut self, key: &str, node: &Node) -> Option<Shape> {
        let shape = Shape::settings().find(key).filter(|shape| !matches!(shape.kind(), Kind::Section | Kind::Map));
        if OWN.contains(&key) {
            let help = "a trial is named, and its folder found, by the sweep; leave this option out";
            self.problem(&node.key, "given by the sweep", format!("`[space]` cannot change `{key}`"), help);
            return None;
        }
        if shape.is_none() {
            let keys = option_keys();
            let nested = matches!(&node.value, Value::Table(inner) if inner.iter().any(|(_, n)| matches!(n.value, Value::Table(_))));
            let label = match did_you_mean(key, keys.iter().map(String::as_str)) {
                _ if nested => format!("write dotted keys in quotes: `\"{key}.…\"`"),
                Some(near) => format!("did you mean `{near}`?"),
                None => "no such option".into(),
            };
            self.problem(
                &node.key,
                &label,
                format!("`[space]` names the unknown option `{key}`"),
                "`vlp explain` lists the options",
            );
        }
        shape
    }

    fn choice(&mut self, key: &str, value: &Node, shape: Shape) -> Option<Dimension> {
        let Value::Array(items) = &value.value else {
            let label = format!("this is {}", value.value.type_name());
            self.problem(
                &value.span,
                &label,
                format!("`choice` of `{key}` must be an array of values"),
                "e.g. `{ choice = [16, 32] }`",
            );
            return None;
        };
        if items.is_empty() {
            self.problem(&value.span, "empty", format!("`choice` of `{key}` has no values"), "name at least one value");
            return None;
        }
        let mut fine = true;
        for item in items {
            fine &= self.check(item, shape, key);
        }
        fine.then(|| Dimension::Choice(items.iter().map(json).collect()))
    }

    fn range(&mut self, key: &str, form: &str, value: &Node, shape: Shape) -> Option<Dimension> {
        let fits = match shape.kind() {
            Kind::Float => form != "int",
            Kind::Integer => form == "int",
            _ => false,
        };
        if !fits {
            let help = match shape.kind() {
                Kind::Integer => "use `int = [LOW, HIGH]`, or `choice`",
                Kind::Float => "use `uniform` or `log_uniform`",
                _ => "use `choice = […]`",
            };
            let message = format!("`{form}` does not fit `{key}`, which is {}", shape.type_name());
            self.problem(&value.key, "another form is needed", message, help);
            return None;
        }
        let ends = match &value.value {
            Value::Array(items) if items.len() == 2 => items.clone(),
            _ => {
                let help = format!("write `{form} = [LOW, HIGH]`");
                self.problem(&value.span, "not two numbers", format!("`{form}` of `{key}` must be two numbers"), &help);
                return None;
            }
        };
        // Both ends are reported.
        if !(self.check(&ends[0], shape, key) & self.check(&ends[1], shape, key)) {
            return None;
        }
        let number = |node: &Node| match node.value {
            Value::Integer(Some(n)) => (n as f64, n),
            Value::Float(x) => (x, x as i64),
            _ => (f64::NAN, 0),
        };
        let ((low, low_int), (high, high_int)) = (number(&ends[0]), number(&ends[1]));
        if low >= high {
            let message = format!("`{form}` of `{key}` goes from {} to {}", ends[0].value, ends[1].value);
            self.problem(&value.span, "the first must be the smaller", message, "swap them, or leave the option out");
            return None;
        }
        if form == "log_uniform" && low <= 0.0 {
            let message = format!("`log_uniform` of `{key}` begins at {}, must be above 0", ends[0].value);
            self.problem(&ends[0].span, "no order of magnitude", message, "begin above 0, or use `uniform`");
            return None;
        }
        Some(match form {
            "uniform" => Dimension::Uniform(low, high),
            "log_uniform" => Dimension::LogUniform(low, high),
            _ => Dimension::Int(low_int, high_int),
        })
    }
}

/// A checked value as JSON.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::Float(x) => (*x).into(),
        Value::Boolean(b) => (*b).into(),
        Value::Datetime => Json::Null,
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(entries) => entries.iter().map(|(key, node)| (key.clone(), json(node))).collect(),
    }
}
