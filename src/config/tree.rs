//! A TOML text as a tree whose keys and values know their place in the text.
//!
//! Parsing goes on after a syntax error, so that one pass finds as much as possible. What the keys mean is not known
//! here: that is `schema.rs` and `validate.rs`.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A text and the name it is shown under.
#[derive(Debug, PartialEq)]
pub(crate) struct Source {
    /// Path as the user would write it.
    pub name: String,
    /// Whole contents.
    pub text: String,
}

impl Source {
    /// Line of a byte offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        self.text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count() + 1
    }
}

/// A value and where it stands; spans are byte ranges of the text.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The key (for an array element: the element).
    pub key: Range<usize>,
    /// The value; the header for a `[table]`.
    pub span: Range<usize>,
    /// The value itself.
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A string.
    Text(String),
    /// An integer; `None` if it does not fit 64 bits.
    Integer(Option<i64>),
    /// A float, possibly infinite or NaN.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or time, which no option takes.
    Datetime,
    /// An array.
    Array(Vec<Node>),
    /// A table, in file order.
    Table(Vec<(String, Node)>),
}

impl Value {
    /// Name of the type with its article, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

impl std::fmt::Display for Value {
    /// The value as TOML; arrays and tables shortened to their kind.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(s) => write!(f, "{s:?}"),
            Value::Integer(Some(n)) => write!(f, "{n}"),
            Value::Float(x) if *x != 0.0 && x.abs() < 1e-4 => write!(f, "{x:e}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Boolean(b) => write!(f, "{b}"),
            other => f.write_str(other.type_name()),
        }
    }
}

impl Node {
    /// The child under `key` of a table, or the element with that index of an array.
    pub fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The node under a dotted key.
    pub fn find(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(self, |node, part| node.child(part))
    }

    /// Entries of a table; none for other values.
    pub fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// Every key of the tree with its span, depth first.
    fn keys<'a>(&'a self, out: &mut Vec<(&'a str, &'a Range<usize>)>) {
        match &self.value {
            Value::Table(entries) => {
                for (name, node) in entries {
                    out.push((name, &node.key));
                    node.keys(out);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| item.keys(out)),
            _ => {}
        }
    }
}

/// A place where the text is not TOML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: String,
    /// Where.
    pub span: Range<usize>,
    /// A key or section is given again; the rest of the text is sound.
    pub duplicate: bool,
    /// For a duplicate: where it stands first, if that is known.
    pub first: Option<Range<usize>>,
    /// What follows this place cannot be trusted (an array, table header or string that is not closed).
    pub derails: bool,
}

/// The tree of a document and its syntax errors, of which there is at most one per line.
pub(crate) fn parse_document(text: &str) -> (Node, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let root = Node { key: 0..0, span: 0..0, value: convert_table(table.get_ref()) };
    let mut keys = Vec::new();
    root.keys(&mut keys);
    let mut found: Vec<SyntaxError> = errors.iter().map(|error| describe(text, error, &keys)).collect();
    found.sort_by_key(|e| e.span.start);
    if let Some(at) = found.iter().position(|e| e.derails) {
        found.truncate(at + 1);
    }
    let line = |e: &SyntaxError| text.get(..e.span.start).unwrap_or_default().matches('\n').count();
    found.dedup_by(|later, earlier| line(later) == line(earlier));
    (root, found)
}

/// Puts an error of the parser into words; `keys` are all keys that it found.
fn describe(text: &str, error: &toml::de::Error, keys: &[(&str, &Range<usize>)]) -> SyntaxError {
    let span = error.span().unwrap_or(0..0);
    let said = error.message();
    let at = text.get(span.clone()).unwrap_or_default();
    // At the end of the text, point behind the last line instead of below it.
    let end = text.trim_end_matches(['\n', '\r']).len();
    let span = if span.start >= text.len() { end..end } else { span };
    let derails = ["unclosed", "array", "inline table", "multi-line"].iter().any(|word| said.contains(word));
    let duplicate = said == "duplicate key";
    let mut first = None;
    let (message, expected) = match said.split_once(", expected ") {
        _ if duplicate => {
            let header = header_at(text, span.start);
            first = match header {
                Some(header) => same_header_before(text, header, span.start),
                None => {
                    let earlier = keys.iter().filter(|(key, place)| *key == at && place.end <= span.start);
                    earlier.map(|(_, place)| (*place).clone()).max_by_key(|place| place.start)
                }
            };
            (format!("duplicate {} `{at}`", if header.is_some() { "section" } else { "key" }), String::new())
        }
        Some(("missing comma between array elements", _)) => {
            ("an array is not closed, or a comma is missing".into(), "expected `]` or `,` before this".into())
        }
        Some(("string values must be quoted", _)) if at.trim().is_empty() => {
            ("a value is missing".into(), "expected a value".into())
        }
        Some(("string values must be quoted" | "invalid boolean", _)) => {
            (format!("`{at}` is no TOML value"), format!("text needs quotes: {at:?}"))
        }
        Some((message, expected)) => (message.to_string(), format!("expected {expected}")),
        None => (said.to_string(), String::new()),
    };
    SyntaxError { message, expected, span, duplicate, first, derails }
}

/// The `[table]` header on the line of `offset`, if that line is one.
fn header_at(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |i| i + 1);
    header(text[start..].lines().next()?)
}

fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    line.starts_with('[').then(|| line.split_once(']').map_or(line, |(header, _)| header))
}

/// Place of the first line before `offset` that has this header.
fn same_header_before(text: &str, wanted: &str, offset: usize) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.get(..offset)?.split_inclusive('\n') {
        if line.ends_with('\n') && header(line) == Some(wanted) {
            return Some(start..start + line.trim_end().len());
        }
        start += line.len();
    }
    None
}

/// The value that stands alone in `text` (as after `--set key=`), or nothing if it is not TOML.
pub(crate) fn parse_value(text: &str) -> Option<Value> {
    DeValue::parse(text).ok().map(|value| convert(value.get_ref()))
}

fn convert_table(table: &DeTable<'_>) -> Value {
    let entries = table.iter().map(|(key, value)| {
        let node = Node { key: key.span(), span: value.span(), value: convert(value.get_ref()) };
        (key.get_ref().to_string(), node)
    });
    Value::Table(entries.collect())
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(s) => Value::Text(s.to_string()),
        DeValue::Integer(i) => Value::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok()),
        DeValue::Float(f) => Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => {
            let node = |item: &toml::Spanned<DeValue<'_>>| Node {
                key: item.span(),
                span: item.span(),
                value: convert(item.get_ref()),
            };
            Value::Array(items.iter().map(node).collect())
        }
        DeValue::Table(table) => convert_table(table),
    }
}
