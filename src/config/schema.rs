//! The JSON Schema of an experiment file, generated from `options.rs`, and a typed view of it that the checks, the
//! layers and `vlp explain` walk.
//!
//! No option is named here: types, ranges, units, defaults and doc lines come from the Rust types alone.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::options::Settings;

static EXPERIMENT: LazyLock<Value> = LazyLock::new(generate);

/// JSON Schema (draft 7, which the TOML editors understand) of an experiment file: the settings, `extends`, `profile`.
pub fn experiment_schema() -> &'static Value {
    &EXPERIMENT
}

fn generate() -> Value {
    let root = SchemaSettings::draft07().into_generator().into_root_schema_for::<Settings>().to_value();
    let table = |key: &str| root.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let settings = table("properties");
    let mut properties = Map::new();
    properties.insert(
        "extends".into(),
        json!({
            "description": "Files whose settings lie below those of this file, later ones above earlier ones; relative to this file.",
            "type": "array",
            "items": { "type": "string" },
            "default": [],
        }),
    );
    properties.extend(settings.clone());
    properties.insert(
        "profile".into(),
        json!({
            "description": "Settings that apply with `--profile NAME` only, by name.",
            "type": "object",
            "additionalProperties": { "$ref": "#/definitions/Profile" },
            "default": {},
        }),
    );
    let mut definitions = Map::new();
    definitions.insert(
        "Profile".into(),
        json!({
            "description": "Settings that apply with `--profile` only.",
            "type": "object",
            "additionalProperties": false,
            "properties": settings,
        }),
    );
    definitions.extend(table("definitions"));
    json!({
        "$schema": root["$schema"],
        "title": "vlp experiment",
        "description": "One experiment, or a fragment that experiments extend.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "definitions": definitions,
    })
}

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A table with known keys.
    Section,
    /// A table with free keys.
    Map,
    /// An array.
    List,
    /// A string.
    Text,
    /// One of a few strings.
    Choice,
    /// A whole number.
    Integer,
    /// A number with or without fraction.
    Float,
    /// `true` or `false`.
    Boolean,
}

/// One place of the schema: an option, a section, an element of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// As written at the place of use: doc line, default.
    outer: &'static Value,
    /// With `$ref` followed: type, properties, range.
    inner: &'static Value,
}

impl Shape {
    /// The whole experiment file.
    pub fn root() -> Self {
        Self::of(experiment_schema())
    }

    /// The settings alone: what an environment variable or `--set` can name.
    pub fn settings() -> Self {
        Self::of(&experiment_schema()["definitions"]["Profile"])
    }

    /// A place of a schema; `$ref` is followed in that of experiment files.
    pub fn of(outer: &'static Value) -> Self {
        let target = outer.get("$ref").or_else(|| outer.get("allOf")?.get(0)?.get("$ref")).and_then(Value::as_str);
        let inner = target.and_then(|path| experiment_schema().pointer(path.strip_prefix('#')?));
        Self { outer, inner: inner.unwrap_or(outer) }
    }

    fn get(&self, key: &str) -> Option<&'static Value> {
        self.outer.get(key).or_else(|| self.inner.get(key))
    }

    fn text(&self, key: &str) -> Option<&'static str> {
        self.get(key).and_then(Value::as_str)
    }

    /// What a value has to be.
    pub fn kind(&self) -> Kind {
        match self.text("type") {
            _ if self.get("oneOf").is_some() || self.get("enum").is_some() => Kind::Choice,
            Some("object") if self.get("properties").is_some() => Kind::Section,
            Some("object") => Kind::Map,
            Some("array") => Kind::List,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Float,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Text,
        }
    }

    /// Keys of a section, in the order of the Rust type.
    pub fn properties(&self) -> impl Iterator<Item = (&'static str, Shape)> + use<> {
        let map = self.get("properties").and_then(Value::as_object);
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), Self::of(value)))
    }

    /// The element of a list, or the value of a map.
    pub fn element(&self) -> Option<Shape> {
        let value = if self.kind() == Kind::List { self.get("items") } else { self.get("additionalProperties") };
        value.filter(|v| v.is_object()).map(Self::of)
    }

    /// The shape under one key: a property, any key of a map, or an index of a list.
    pub fn child(&self, key: &str) -> Option<Shape> {
        match self.kind() {
            Kind::Section => self.properties().find(|(name, _)| *name == key).map(|(_, shape)| shape),
            Kind::Map => self.element(),
            Kind::List => key.parse::<usize>().ok().and_then(|_| self.element()),
            _ => None,
        }
    }

    /// The shape under a dotted key.
    pub fn find(&self, key: &str) -> Option<Shape> {
        key.split('.').try_fold(*self, |shape, part| shape.child(part))
    }

    /// The allowed strings of a choice, each with its doc line.
    pub fn choices(&self) -> Vec<(&'static str, &'static str)> {
        let plain = self.get("enum").and_then(Value::as_array).into_iter().flatten();
        let documented = self.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let plain = plain.filter_map(|v| Some((v.as_str()?, "")));
        let documented = documented.flat_map(|v| {
            let doc = v.get("description").and_then(Value::as_str).unwrap_or_default();
            let alone = v.get("const").and_then(Value::as_str).into_iter();
            let several = v.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            alone.chain(several).map(move |name| (name, doc))
        });
        plain.chain(documented).collect()
    }

    /// Doc comment, line breaks removed.
    pub fn doc(&self) -> String {
        self.text("description").unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Unit of a number.
    pub fn unit(&self) -> Option<&'static str> {
        self.text("x-unit")
    }

    /// Value without any layer.
    pub fn default(&self) -> Option<&'static Value> {
        self.outer.get("default")
    }

    /// Whether `${VARIABLE}` is replaced in this string.
    pub fn is_path(&self) -> bool {
        self.get("x-path").is_some()
    }

    /// Smallest allowed number.
    pub fn minimum(&self) -> Option<f64> {
        self.get("minimum").and_then(Value::as_f64)
    }

    /// Largest allowed number.
    pub fn maximum(&self) -> Option<f64> {
        self.get("maximum").and_then(Value::as_f64)
    }

    /// Fewest elements of a list.
    pub fn min_items(&self) -> usize {
        self.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize
    }

    /// Regular expression of a string, and the same in words.
    pub fn pattern(&self) -> Option<(&'static str, &'static str)> {
        let pattern = self.text("pattern")?;
        Some((pattern, self.text("x-form").unwrap_or(pattern)))
    }

    /// The range in words: `at least 1`, `from 0 to 0.99`, or nothing.
    pub fn range(&self) -> Option<String> {
        match (self.minimum(), self.maximum()) {
            (Some(low), Some(high)) => Some(format!("from {low} to {high}")),
            (Some(low), None) => Some(format!("at least {low}")),
            (None, Some(high)) => Some(format!("at most {high}")),
            (None, None) => None,
        }
    }

    /// The type in words, with its article.
    pub fn type_name(&self) -> String {
        match self.kind() {
            Kind::Section | Kind::Map => "a table".into(),
            Kind::List => match self.element().map(|e| e.kind()) {
                Some(Kind::Text) => "an array of strings".into(),
                Some(Kind::Section | Kind::Map) => "an array of tables".into(),
                Some(Kind::Choice) => "an array of names".into(),
                _ => "an array".into(),
            },
            Kind::Text | Kind::Choice => "a string".into(),
            Kind::Integer => "an integer".into(),
            Kind::Float => "a number".into(),
            Kind::Boolean => "a boolean".into(),
        }
    }
}
