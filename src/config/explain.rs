//! Text of `vlp explain`: type, default, range, unit and meaning of an option, read from the schema.

use super::diagnose::did_you_mean;
use super::layers::option_keys;
use super::schema::{Kind, Shape};
use super::sweep::sweep_schema;
use super::validate::join;
use super::write::toml_text;

/// There is no option or section with this name.
#[derive(Debug, thiserror::Error)]
#[error("no option or section is called `{key}`{}\n  help: `vlp explain` lists the sections, `vlp explain SECTION` its keys", near(.meant))]
pub struct UnknownKey {
    key: String,
    meant: Vec<String>,
}

fn near(meant: &[String]) -> String {
    match meant {
        [] => String::new(),
        keys => {
            format!("; did you mean {}?", keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or "))
        }
    }
}

/// Describes an option (`train.batch_size`), the keys of a section (`train`), or all sections (no key).
pub fn explain(key: Option<&str>) -> Result<String, UnknownKey> {
    let Some(key) = key else { return Ok(overview()) };
    let key = key.trim();
    match find(key) {
        Some(shape) if has_keys(shape) => Ok(section(key, shape)),
        Some(shape) => Ok(option(key, shape)),
        None => Err(unknown(key)),
    }
}

/// The shape of a key; the elements of a list of tables have its name. `sweep` is a section of sweep files.
fn find(key: &str) -> Option<Shape> {
    let of_sweep = key.split('.').next() == Some("sweep");
    let root = if of_sweep { Shape::of(sweep_schema()) } else { Shape::root() };
    key.split('.').try_fold(root, |shape, part| rows(shape).unwrap_or(shape).child(part))
}

/// The rows of a list of tables.
fn rows(shape: Shape) -> Option<Shape> {
    shape.element().filter(|e| shape.kind() == Kind::List && e.kind() == Kind::Section)
}

fn has_keys(shape: Shape) -> bool {
    shape.kind() == Kind::Section || rows(shape).is_some()
}

fn unknown(key: &str) -> UnknownKey {
    let mut options = option_keys();
    if let Some(rows) = Shape::settings().child("paper").and_then(rows) {
        options.extend(rows.properties().map(|(name, _)| join("paper", name)));
    }
    let same_name = options.iter().filter(|o| o.rsplit('.').next() == Some(key)).cloned().collect::<Vec<_>>();
    let sections = Shape::root().properties().map(|(name, _)| name);
    let meant = if same_name.is_empty() {
        let all = options.iter().map(String::as_str).chain(sections);
        let tails = || options.iter().filter_map(|o| o.rsplit('.').next());
        let by_tail = || {
            let tail = did_you_mean(key, tails())?;
            options.iter().find(|o| o.rsplit('.').next() == Some(tail)).map(String::as_str)
        };
        did_you_mean(key, all).or_else(by_tail).map(String::from).into_iter().collect()
    } else {
        same_name
    };
    UnknownKey { key: key.to_string(), meant }
}

fn overview() -> String {
    let names: Vec<(String, String)> = Shape::root()
        .properties()
        .map(|(name, shape)| (if has_keys(shape) { format!("[{name}]") } else { name.to_string() }, shape.doc()))
        .collect();
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: String = names.iter().map(|(name, doc)| format!("{name:width$}  {doc}\n")).collect();
    format!("{lines}\n`vlp explain SECTION` lists the keys of a section, `vlp explain SECTION.KEY` describes one.\n")
}

fn section(key: &str, shape: Shape) -> String {
    let is_list = rows(shape).is_some();
    let keys = rows(shape).unwrap_or(shape);
    let brief = |option: Shape| if option.kind() == Kind::Choice { "choice".into() } else { type_of(option) };
    let table: Vec<[String; 4]> = keys
        .properties()
        .map(|(name, option)| [name.to_string(), brief(option), default_of(option), option.doc()])
        .collect();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, types, defaults) = (width(0), width(1), width(2));
    let header = if is_list { format!("[[{key}]]") } else { format!("[{key}]") };
    let mut out = format!("{header}  {}\n\n", shape.doc());
    for [name, kind, default, doc] in &table {
        out.push_str(&format!("{name:names$}  {kind:types$}  {default:defaults$}  {doc}\n"));
    }
    out
}

fn option(key: &str, shape: Shape) -> String {
    let mut facts = vec![("type", type_of(shape)), ("default", default_of(shape))];
    facts.extend(shape.range().map(|range| ("range", range)));
    facts.extend(shape.unit().map(|unit| ("unit", unit.to_string())));
    facts.extend(shape.pattern().map(|(_, words)| ("form", words.to_string())));
    if shape.is_path() {
        facts.push(("path", "may use ${VARIABLE}".into()));
    }
    let of_experiment = Shape::settings().find(key).is_some();
    if of_experiment {
        facts.push(("set by", format!("--set {key}=…, VLP_{}=…", key.to_uppercase().replace('.', "__"))));
    }
    let mut out = format!("{key}\n    {}\n\n", shape.doc());
    for (name, fact) in facts {
        out.push_str(&format!("    {name:7}  {fact}\n"));
    }
    let choice = if shape.kind() == Kind::List { shape.element().unwrap_or(shape) } else { shape };
    let choices = choice.choices();
    let width = choices.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    if !choices.is_empty() {
        out.push_str("\n    values\n");
    }
    for (name, doc) in choices {
        out.push_str(format!("      {name:width$}  {doc}").trim_end());
        out.push('\n');
    }
    out
}

/// The type in a word or two.
fn type_of(shape: Shape) -> String {
    match shape.kind() {
        Kind::Choice => shape.choices().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "),
        Kind::Map if shape.element().is_some_and(|e| e.kind() == Kind::Float) => "table of numbers".into(),
        Kind::List => match shape.element() {
            Some(element) if element.kind() == Kind::Choice => format!("array of {}", type_of(element)),
            _ => shape.type_name().trim_start_matches("an ").to_string(),
        },
        _ => shape.type_name().trim_start_matches("an ").trim_start_matches("a ").to_string(),
    }
}

/// The default as TOML.
fn default_of(shape: Shape) -> String {
    match shape.default() {
        Some(value) => toml_text(value),
        None => String::new(),
    }
}
