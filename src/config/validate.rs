//! Checks a tree of TOML values against the schema: unknown keys, wrong types, values out of range.
//!
//! Each value is looked at alone; what has to hold between values is in `rules.rs`. A value that fails is reported and
//! left out of the result, so that the layer below shows through and the remaining checks can go on.

use std::collections::BTreeSet;
use std::ops::Range;

use super::diagnose::{Place, Problem, did_you_mean};
use super::schema::{Kind, Shape};
use super::tree::{Node, Value};

/// What checking one tree found.
pub(crate) struct Checker<'a> {
    /// How a span of this tree is shown.
    pub place: &'a dyn Fn(&Range<usize>, String) -> Place,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Keys whose value was left out, or that a misspelt key was probably meant to give.
    pub rejected: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    /// A checker of a tree whose spans are shown by `place`.
    pub fn new(place: &'a dyn Fn(&Range<usize>, String) -> Place) -> Self {
        Self { place, problems: Vec::new(), rejected: BTreeSet::new() }
    }

    /// `node` without the values that `shape` does not allow; `key` is its dotted key, empty for a whole document.
    pub fn check(&mut self, node: &Node, shape: Shape, key: &str) -> Option<Node> {
        let value = match (&node.value, shape.kind()) {
            (Value::Table(entries), Kind::Section) => {
                Value::Table(entries.iter().filter_map(|(name, child)| self.entry(name, child, shape, key)).collect())
            }
            (Value::Table(entries), Kind::Map) => {
                let element = shape.element()?;
                let keep = entries
                    .iter()
                    .filter_map(|(name, child)| Some((name.clone(), self.check(child, element, &join(key, name))?)));
                Value::Table(keep.collect())
            }
            (Value::Array(items), Kind::List) => {
                if items.len() < shape.min_items() {
                    let need = format!("at least {}", count(shape.min_items(), "element"));
                    return self.reject(
                        node,
                        key,
                        format!("has {}, needs {need}", count(items.len(), "element")),
                        need,
                    );
                }
                let element = shape.element()?;
                let keep =
                    items.iter().enumerate().map(|(i, item)| self.check(item, element, &join(key, &i.to_string())));
                Value::Array(keep.collect::<Vec<_>>().into_iter().flatten().collect())
            }
            (Value::Text(text), Kind::Choice) => {
                let choices = shape.choices();
                if choices.iter().all(|(name, _)| name != text) {
                    return self.reject_choice(node, key, text, &choices);
                }
                node.value.clone()
            }
            (Value::Text(text), Kind::Text) => {
                if let Some((pattern, words)) = shape.pattern()
                    && !matches(pattern, text)
                {
                    return self.reject(
                        node,
                        key,
                        format!("is {}, expected {words}", node.value),
                        "not allowed".into(),
                    );
                }
                node.value.clone()
            }
            (Value::Integer(None), Kind::Integer | Kind::Float) => {
                return self.reject(node, key, "is too large for a 64-bit integer".into(), "too large".into());
            }
            (Value::Integer(Some(n)), Kind::Integer | Kind::Float) => self.in_range(node, shape, key, *n as f64)?,
            (Value::Float(x), Kind::Float) => self.in_range(node, shape, key, *x)?,
            (Value::Boolean(_), Kind::Boolean) => node.value.clone(),
            (found, kind) => {
                let label = match (found, kind) {
                    (Value::Table(_), Kind::List) => "two brackets make a row: `[[…]]`".into(),
                    _ => format!("this is {}", found.type_name()),
                };
                return self.reject(
                    node,
                    key,
                    format!("must be {}, not {}", shape.type_name(), found.type_name()),
                    label,
                );
            }
        };
        Some(Node { value, ..node.clone() })
    }

    fn entry(&mut self, name: &str, child: &Node, section: Shape, key: &str) -> Option<(String, Node)> {
        let full = join(key, name);
        if let Some(shape) = section.child(name) {
            return Some((name.to_string(), self.check(child, shape, &full)?));
        }
        let near = did_you_mean(name, section.properties().map(|(name, _)| name));
        let owners: Vec<String> = Shape::settings()
            .properties()
            .filter(|(_, shape)| shape.kind() == Kind::Section && shape.child(name).is_some())
            .map(|(owner, _)| format!("[{owner}]"))
            .collect();
        let owners = owners.join(" and ");
        let label = match near {
            None if owners.is_empty() => "no such key".into(),
            Some(near) if owners.is_empty() => format!("did you mean `{near}`?"),
            Some(near) => format!("did you mean `{near}`? (this is a key of {owners})"),
            None => format!("this is a key of {owners}"),
        };
        if let Some(near) = near {
            self.rejected.insert(bare(&join(key, near)));
        }
        let what = if matches!(child.value, Value::Table(_)) && bare(&full) == name { "section" } else { "key" };
        let help = match displayed(&bare(key)).as_str() {
            "" => "`vlp explain` lists the sections".to_string(),
            section => format!("`vlp explain {section}` lists the keys of this section"),
        };
        let place = (self.place)(&child.key, label);
        self.problems.push(Problem::error(place, format!("unknown {what} `{}`", displayed(&full)), help));
        None
    }

    fn in_range(&mut self, node: &Node, shape: Shape, key: &str, number: f64) -> Option<Value> {
        let low = shape.minimum().is_none_or(|low| number >= low);
        let high = shape.maximum().is_none_or(|high| number <= high);
        if !number.is_finite() {
            return self
                .reject(node, key, format!("is {}, must be a finite number", node.value), "not finite".into())
                .map(|n| n.value);
        }
        if low && high {
            return Some(node.value.clone());
        }
        let range = shape.range().unwrap_or_default();
        self.reject(node, key, format!("is {}, must be {range}", node.value), range).map(|n| n.value)
    }

    fn reject_choice(&mut self, node: &Node, key: &str, text: &str, choices: &[(&str, &str)]) -> Option<Node> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let label = match did_you_mean(text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "not one of the allowed names".into(),
        };
        self.rejected.insert(bare(key));
        let place = (self.place)(&node.span, label);
        let message = format!("`{}` has the unknown value {:?}", displayed(key), text);
        self.problems.push(Problem::error(place, message, format!("allowed: {}", names.join(", "))));
        None
    }

    fn reject(&mut self, node: &Node, key: &str, what: String, label: String) -> Option<Node> {
        self.rejected.insert(bare(key));
        let place = (self.place)(&node.span, label);
        let help = format!("`vlp explain {}` describes it", explained(key));
        self.problems.push(Problem::error(place, format!("`{}` {what}", displayed(key)), help));
        None
    }
}

/// `parent.name`, or `name` at the top.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_string() } else { format!("{parent}.{name}") }
}

/// The key that is meant by a key inside a profile: `profile.NAME.train.epochs` → `train.epochs`.
pub(crate) fn bare(key: &str) -> String {
    match key.strip_prefix("profile.").map(|rest| rest.split_once('.')) {
        Some(Some((_, rest))) => rest.to_string(),
        Some(None) => String::new(),
        None => key.to_string(),
    }
}

/// A key as people write it: without the index of an array element.
pub(crate) fn displayed(key: &str) -> String {
    key.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// What `vlp explain` can be asked about a key: an entry of a map has no description of its own.
fn explained(key: &str) -> String {
    let option = bare(key);
    if option.is_empty() {
        return "profile".into();
    }
    let ends = option.match_indices('.').map(|(i, _)| i).chain([option.len()]);
    let map = ends.map(|end| &option[..end]).find(|k| Shape::root().find(k).is_some_and(|s| s.kind() == Kind::Map));
    displayed(map.unwrap_or(&option))
}

fn count(n: usize, noun: &str) -> String {
    match n {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let schema = serde_json::json!({ "type": "string", "pattern": pattern });
    jsonschema::validator_for(&schema).is_ok_and(|validator| validator.is_valid(&text.into()))
}
