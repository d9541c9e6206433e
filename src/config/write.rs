//! Writes settings and single values as TOML: on one line each, small numbers as `3e-5`.
//!
//! The `toml` crate would write `0.00003`, and a table header for every `expect = { … }`.

use serde_json::Value;

use super::options::Settings;

/// The settings as an experiment file that resolves to the same settings.
pub fn to_toml(settings: &Settings) -> String {
    let mut out = String::new();
    let Ok(Value::Object(sections)) = serde_json::to_value(settings) else { return out };
    for (name, value) in &sections {
        match value {
            Value::Object(_) => table(&format!("[{name}]"), value, &mut out),
            Value::Array(rows) => rows.iter().for_each(|row| table(&format!("[[{name}]]"), row, &mut out)),
            _ => {}
        }
    }
    out
}

/// A value on one line.
pub fn toml_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(b) => b.to_string(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(x) if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e15) => format!("{x:e}"),
            Some(x) => format!("{x:?}"),
            None => number.to_string(),
        },
        Value::String(text) => toml::Value::from(text.as_str()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".into(),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(name, value)| format!("{} = {}", key(name), toml_text(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

fn table(header: &str, value: &Value, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("{header}\n"));
    let empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    for (name, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !empty(value)) {
        out.push_str(&format!("{} = {}\n", key(name), toml_text(value)));
    }
}

/// A key, in quotes where it needs them.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_string() } else { toml::Value::from(name).to_string() }
}
