//! Rules for `[[paper]]` rows: complete, with scores that exist and that this experiment measures.

use super::super::diagnose::{Problem, did_you_mean};
use super::super::options::{CheckpointChoice, Metric, PaperRow};
use super::super::validate::displayed;
use super::{Rules, checkpoint_name};

/// Scores that published tables report.
const REPORTED: [&str; 8] = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice"];

/// Ratio of the CIDEr of a checkpoint to that of the first epoch's, for `at_least`.
const CIDER_OVER_FIRST: &str = "cider_over_first";

impl Rules<'_> {
    pub(super) fn paper_row(&mut self, index: usize, row: &PaperRow) {
        let path = format!("paper.{index}");
        let key = |name: &str| format!("{path}.{name}");
        let called = if row.row.is_empty() { String::new() } else { format!(" ({:?})", row.row) };
        for (name, text) in [("table", &row.table), ("row", &row.row)] {
            if text.is_empty() && !self.spoilt(&key(name)) {
                self.error(
                    &[(&path, "this row")],
                    format!("a `[[paper]]` row{called} has no `{name}`"),
                    "give `table`, `row`, and `expect` or `at_least`",
                );
            }
        }
        let nothing = row.expect.is_empty() && row.at_least.is_empty();
        if nothing && !self.spoilt(&key("expect")) && !self.spoilt(&key("at_least")) {
            self.error(
                &[(&path, "this row")],
                format!("a `[[paper]]` row{called} has neither `expect` nor `at_least`"),
                "give the reported scores, e.g. `expect = { cider = 116.9 }` with `tolerance = { cider = 1.5 }`",
            );
        }
        let earlier = self.settings.paper[..index].iter().any(|other| other.table == row.table && other.row == row.row);
        if earlier && !row.table.is_empty() && !row.row.is_empty() {
            self.error(
                &[(&key("row"), "used before")],
                format!("two `[[paper]]` rows are called {:?} in table {:?}", row.row, row.table),
                "rename one of them",
            );
        }
        let with_ratio: Vec<&str> = REPORTED.into_iter().chain([CIDER_OVER_FIRST]).collect();
        let expected = self.known_scores(&key("expect"), row.expect.keys(), &REPORTED);
        let tolerated = self.known_scores(&key("tolerance"), row.tolerance.keys(), &REPORTED);
        self.known_scores(&key("at_least"), row.at_least.keys(), &with_ratio);
        if expected && tolerated {
            self.tolerances(&path, row, &called);
        }
        self.computed(&path, row, &called);
        let (splits, checkpoints) = (&self.settings.evaluate.splits, &self.settings.evaluate.checkpoints);
        if !splits.contains(&row.split) {
            let split = key("split");
            let keys = [(split.as_str(), "is not decoded"), ("evaluate.splits", "decoded splits")];
            self.error(
                &keys,
                format!("`paper.split` is {:?}, which is not in `evaluate.splits`{called}", row.split),
                "add it to `evaluate.splits`",
            );
        }
        let named = checkpoint_name(row.checkpoint);
        if !checkpoints.contains(&row.checkpoint) {
            let checkpoint = key("checkpoint");
            let keys = [(checkpoint.as_str(), "is not scored"), ("evaluate.checkpoints", "scored checkpoints")];
            self.error(
                &keys,
                format!("`paper.checkpoint` is {named:?}, which is not in `evaluate.checkpoints`{called}"),
                "add it to `evaluate.checkpoints`",
            );
        }
        if row.at_least.contains_key(CIDER_OVER_FIRST) && !checkpoints.contains(&CheckpointChoice::First) {
            let ratio = key(&format!("at_least.{CIDER_OVER_FIRST}"));
            let keys = [(ratio.as_str(), "needs the first checkpoint"), ("evaluate.checkpoints", "scored checkpoints")];
            self.error(
                &keys,
                format!("`{CIDER_OVER_FIRST}` needs \"first\" in `evaluate.checkpoints`{called}"),
                "add \"first\" to `evaluate.checkpoints`",
            );
        }
    }

    /// Every reported score must be one that is computed.
    fn computed(&mut self, path: &str, row: &PaperRow, called: &str) {
        let captions = &self.settings.metrics.captions;
        let absent = |name: &str| Metric::ALL.iter().any(|metric| metric.name() == name && !captions.contains(metric));
        let expected = row.expect.keys().map(|name| ("expect", name));
        let reported = expected.chain(row.at_least.keys().map(|name| ("at_least", name)));
        let missing: Vec<_> = reported.filter(|(_, name)| absent(name)).collect();
        for (table, name) in missing {
            let key = format!("{path}.{table}.{name}");
            let keys = [(key.as_str(), "is not computed"), ("metrics.captions", "computed scores")];
            let message = format!("`paper.{table}` has `{name}`, which is not in `metrics.captions`{called}");
            self.error(&keys, message, "add it to `metrics.captions`");
        }
    }

    /// Every expected score needs a tolerance, and the other way round.
    fn tolerances(&mut self, path: &str, row: &PaperRow, called: &str) {
        for metric in row.expect.keys().filter(|metric| !row.tolerance.contains_key(*metric)) {
            let keys = [(&*format!("{path}.expect.{metric}"), "has no tolerance")];
            let message = format!("`paper.tolerance` has no `{metric}`, but `paper.expect` does{called}");
            if !self.spoilt(&format!("{path}.tolerance")) {
                self.error(&keys, message, "say how far a reproduction may be off, in points");
            }
        }
        for (metric, tolerance) in &row.tolerance {
            let key = format!("{path}.tolerance.{metric}");
            if *tolerance < 0.0 {
                let message = format!("`paper.tolerance.{metric}` is {tolerance}, must be at least 0");
                self.error(&[(&key, "at least 0")], message, "it is a distance in points");
            }
            if !row.expect.contains_key(metric) && !self.spoilt(&format!("{path}.expect")) {
                let message = format!("`paper.tolerance` has `{metric}`, but `paper.expect` does not{called}");
                self.error(
                    &[(&key, "nothing is expected")],
                    message,
                    "add the reported score to `expect`, or remove it here",
                );
            }
        }
    }

    /// Reports the names of a map of scores that are none; whether all are.
    fn known_scores<'s>(&mut self, table: &str, names: impl Iterator<Item = &'s String>, known: &[&str]) -> bool {
        let mut all = true;
        for name in names.filter(|name| !known.contains(&name.as_str())) {
            all = false;
            let near = did_you_mean(name, known.iter().copied());
            let label = near.map_or("no such score".into(), |near| format!("did you mean `{near}`?"));
            let place = self.merge.place_of_key(&format!("{table}.{name}"), &label);
            let message = format!("unknown score `{name}` in `{}`", displayed(table));
            self.problems.push(Problem::error(place, message, format!("known: {}", known.join(", "))));
        }
        all
    }
}
