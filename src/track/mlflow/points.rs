//! The journal in pieces that a server takes at once: parameters, tags and points in MLflow's form, and the newest state.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Value, json};

use super::super::{Entry, State, TrackError, What};
use super::client::Known;
use super::describe;

/// Points that a server takes in one call.
const POINTS: usize = 1000;

/// Bytes of the journal that are read at once.
const BYTES: u64 = 1 << 20;

/// Characters of a metric's or parameter's name at most.
const NAME: usize = 250;

/// Key and value of a parameter or a tag.
pub(super) type Pair = (String, String);

/// A piece of the journal.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Piece {
    /// Its points, in order.
    pub(super) points: Vec<Point>,
    /// Its parameters.
    pub(super) params: Vec<Pair>,
    /// Its tags.
    pub(super) tags: Vec<Pair>,
    /// The last change of state in it, and its time in milliseconds.
    pub(super) state: Option<(State, i64)>,
    /// Lines that are no journal entries.
    pub(super) strange: usize,
    /// Byte of the journal after it.
    pub(super) end: u64,
}

/// A point in MLflow's terms.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// Key, step and time in milliseconds.
    pub(super) id: Known,
    /// The value; may be NaN or infinite.
    pub(super) value: f64,
}

impl Point {
    /// The point as a call has it. JSON has no number for NaN and the infinities; MLflow reads these texts.
    pub(super) fn json(&self) -> Value {
        let value = match self.value {
            value if value.is_finite() => json!(value),
            value if value.is_nan() => json!("NaN"),
            value if value > 0.0 => json!("Infinity"),
            _ => json!("-Infinity"),
        };
        let (key, step, time) = &self.id;
        json!({ "key": key, "value": value, "timestamp": time, "step": step })
    }
}

/// Length of the journal.
pub(super) fn length(journal: &Path) -> Result<u64, TrackError> {
    std::fs::metadata(journal).map(|m| m.len()).map_err(TrackError::io("read", journal))
}

/// The next complete lines of the journal from byte `start` on, with 1,000 points at most. Reading the same journal again,
/// grown or not, gives a piece that begins with the same points.
pub(super) fn next(journal: &Path, start: u64) -> Result<Piece, TrackError> {
    let bytes = lines(journal, start).map_err(TrackError::io("read", journal))?;
    let mut piece = Piece { end: start, ..Piece::default() };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if piece.points.len() == POINTS {
            break;
        }
        piece.end += line.len() as u64;
        match serde_json::from_slice::<Entry>(line) {
            Ok(Entry { time, what: What::State { state, .. } }) => piece.state = Some((state, time.as_millisecond())),
            Ok(Entry { time, what: What::Metric { name, value, step, .. } }) => {
                let step = i64::try_from(step).unwrap_or(i64::MAX);
                piece.points.push(Point { id: (name_for(&name), step, time.as_millisecond()), value });
            }
            Ok(Entry { what: What::Param { name, value }, .. }) => piece.params.push(describe::param(&name, &value)),
            Ok(Entry { what: What::Tag { name, value }, .. }) => piece.tags.push(describe::tag(&name, &value)),
            Ok(_) => {}
            Err(_) => piece.strange += 1,
        }
    }
    Ok(piece)
}

/// Complete lines from `start` on; about [`BYTES`] of them, or one that is longer.
fn lines(journal: &Path, start: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(journal)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    loop {
        let read = (&mut file).take(BYTES).read_to_end(&mut bytes)?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if complete > 0 || read == 0 {
            bytes.truncate(complete);
            return Ok(bytes);
        }
    }
}

/// A name that MLflow accepts: letters, digits, `_`, `-`, `.`, ` `, `/` and `:`; others become `_`.
pub(super) fn name_for(name: &str) -> String {
    let accepted = |c: char| c.is_alphanumeric() || "_-. /:".contains(c);
    name.chars().take(NAME).map(|c| if accepted(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(step: u64, value: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-23T17:15:00.042Z\",\"kind\":\"metric\",\"name\":\"train/loss\",\"value\":{value},\"step\":{step},\"epoch\":1}}\n"
        )
    }

    #[test]
    fn a_piece_ends_after_a_thousand_points_or_before_an_unfinished_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let state =
            "{\"time\":\"2026-11-23T17:15:01.000Z\",\"kind\":\"state\",\"state\":\"running\",\"detail\":\"\"}\n";
        let whole: String = (0..1001).map(|step| metric(step, "1.5")).collect::<String>() + state;
        std::fs::write(&path, format!("{whole}not json\n{}", &state[..20])).unwrap();
        let first = next(&path, 0).unwrap();
        let of_thousand: usize = (0..1000).map(|step| metric(step, "1.5").len()).sum();
        assert_eq!((first.points.len(), first.state, first.end), (1000, None, of_thousand as u64));
        let second = next(&path, first.end).unwrap();
        assert_eq!(second.points[0].id, ("train/loss".into(), 1000, 1_795_454_100_042));
        assert_eq!((second.points.len(), second.state), (1, Some((State::Running, 1_795_454_101_000))));
        assert_eq!((second.strange, second.end), (1, whole.len() as u64 + 9));
        let nothing = Piece { end: second.end, ..Piece::default() };
        assert_eq!(next(&path, second.end).unwrap(), nothing);
    }

    #[test]
    fn values_without_a_json_number_become_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let values = ["\"NaN\"", "\"inf\"", "\"-inf\"", "0.1"];
        std::fs::write(&path, values.iter().map(|value| metric(3, value)).collect::<String>()).unwrap();
        let sent: Vec<Value> = next(&path, 0).unwrap().points.iter().map(|p| p.json()["value"].clone()).collect();
        assert_eq!(sent, [json!("NaN"), json!("Infinity"), json!("-Infinity"), json!(0.1)]);
    }

    #[test]
    fn names_are_made_acceptable() {
        assert_eq!(name_for("val/cider (5%)"), "val/cider _5__");
        assert_eq!(name_for(&"x".repeat(300)).len(), 250);
    }
}
