//! The log of one rank: JSON lines written by the worker, shown to people as plain lines.
//!
//! Lines that are not JSON (what a crashing process said last) are shown as they are.

use std::path::Path;

use serde_json::Value;

/// One line of a rank log for people: `17:15:00 INFO  message  key=value`.
pub fn render_line(line: &str) -> String {
    let Ok(Value::Object(record)) = serde_json::from_str::<Value>(line) else { return line.to_string() };
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let clock = text("timestamp").split('T').nth(1).map_or("", |time| time.get(..8).unwrap_or(time));
    let fields = record.get("fields").and_then(Value::as_object);
    let message = fields.and_then(|f| f.get("message")).and_then(Value::as_str).unwrap_or_default();
    let mut out = format!("{clock} {:<5} {message}", text("level"));
    for (key, value) in fields.into_iter().flatten().filter(|(key, _)| *key != "message") {
        match value {
            Value::String(value) => out.push_str(&format!("  {key}={value}")),
            value => out.push_str(&format!("  {key}={value}")),
        }
    }
    out
}

/// The last `count` lines of a rank log, for people; none when the rank never wrote one.
pub fn tail(path: &Path, count: usize) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| render_line(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracing_line_becomes_plain() {
        let line = r#"{"timestamp":"2026-11-23T17:15:00.123456Z","level":"INFO","fields":{"message":"epoch done","epoch":3,"split":"val"},"target":"vlp::train"}"#;
        assert_eq!(render_line(line), "17:15:00 INFO  epoch done  epoch=3  split=val");
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        assert_eq!(render_line("thread 'main' panicked"), "thread 'main' panicked");
        assert_eq!(render_line("[1, 2]"), "[1, 2]");
    }

    #[test]
    fn the_tail_skips_blank_lines_and_missing_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        assert_eq!(tail(&path, 3), Vec::<String>::new());
        std::fs::write(&path, "one\n\ntwo\nthree\nfour").unwrap();
        assert_eq!(tail(&path, 3), ["two", "three", "four"]);
        assert_eq!(tail(&path, 9).len(), 4);
    }
}
