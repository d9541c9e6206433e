//! Rules for `[[paper]]` rows: complete, with scores that exist and that this experiment measures.

use super::super::diagnose::{Problem, did_you_mean};
use super::super::options::{CheckpointChoice, Dataset, Metric, ObjectiveKind, PaperRow};
use super::super::paper_score::{PaperScore, known};
use super::super::validate::displayed;
use super::{Rules, checkpoint_name};

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
        let nothing = row.expect.is_empty() && row.at_least.is_empty() && row.also.is_empty();
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
        let expected = self.known_scores(&key("expect"), row.expect.keys(), Named::Plain);
        let tolerated = self.known_scores(&key("tolerance"), row.tolerance.keys(), Named::Plain);
        self.known_scores(&key("at_least"), row.at_least.keys(), Named::Derived);
        self.also(&key("also"), row, &called);
        if expected && tolerated {
            self.tolerances(&path, row, &called);
        }
        self.computed(&path, row, &called);
        if row.server {
            self.server(&path, row, &called);
        }
        let names = row.expect.keys().chain(row.at_least.keys()).chain(&row.also);
        if names.filter_map(|name| PaperScore::parse(name)).all(|score| score.score().is_none()) && !nothing {
            return; // The overview of the experiments: nothing is decoded for it.
        }
        self.is_measured(&path, row, &called);
    }

    /// The split and the checkpoint of a row are among those that the experiment scores.
    fn is_measured(&mut self, path: &str, row: &PaperRow, called: &str) {
        let key = |name: &str| format!("{path}.{name}");
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
        let over_first = "cider_over_first";
        if row.at_least.contains_key(over_first) && !checkpoints.contains(&CheckpointChoice::First) {
            let ratio = key(&format!("at_least.{over_first}"));
            let keys = [(ratio.as_str(), "needs the first checkpoint"), ("evaluate.checkpoints", "scored checkpoints")];
            self.error(
                &keys,
                format!("`{over_first}` needs \"first\" in `evaluate.checkpoints`{called}"),
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
        // The server's scores are not measured here, and settings are equal or not.
        let needs = |metric: &String| !row.server && PaperScore::parse(metric).is_some_and(|s| s.score().is_some());
        for metric in row.expect.keys().filter(|metric| needs(metric) && !row.tolerance.contains_key(*metric)) {
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

    /// Names of `also` are scores, and nothing is reported for them.
    fn also(&mut self, path: &str, row: &PaperRow, called: &str) {
        let problems: Vec<(String, String, String)> = row
            .also
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let key = format!("{path}.{index}");
                if let Some(problem) = self.unknown(name, Named::Derived) {
                    return Some((key, format!("unknown score `{name}` in `paper.also`"), problem.1));
                }
                let twice = row.expect.contains_key(name) || row.at_least.contains_key(name);
                twice.then(|| {
                    let message = format!("`paper.also` names `{name}`, for which a score is given{called}");
                    (key, message, "`also` is for scores that are measured and not reported: remove it there".into())
                })
            })
            .collect();
        for (key, message, help) in problems {
            self.error(&[(&key, "")], message, &help);
        }
    }

    /// A row that only the evaluation server scores.
    fn server(&mut self, path: &str, row: &PaperRow, called: &str) {
        let key = format!("{path}.server");
        if self.settings.data.dataset != Dataset::Vqa2 {
            let keys = [(key.as_str(), "no submission"), ("data.dataset", "")];
            let message = format!(
                "`paper.server` is true, but only runs over `data.dataset` = \"vqa2\" write submissions{called}"
            );
            self.error(&keys, message, "remove it, or give the scores a `tolerance`");
        }
        if !row.at_least.is_empty() {
            let message = format!("`paper.server` is true, so nothing is measured to hold against `at_least`{called}");
            self.error(&[(&key, "")], message, "give the reported scores in `expect`");
        }
    }

    /// Reports the names of a map of scores that are none; whether all are.
    fn known_scores<'s>(&mut self, table: &str, names: impl Iterator<Item = &'s String>, named: Named) -> bool {
        let mut all = true;
        for name in names {
            let Some((label, help)) = self.unknown(name, named) else { continue };
            all = false;
            let place = self.merge.place_of_key(&format!("{table}.{name}"), &label);
            let message = format!("unknown score `{name}` in `{}`", displayed(table));
            self.problems.push(Problem::error(place, message, help));
        }
        all
    }

    /// Label and help for a name that is no score of this experiment.
    fn unknown(&self, name: &str, named: Named) -> Option<(String, String)> {
        let answers = self.settings.objective.kind == ObjectiveKind::Vqa;
        let allowed = |score: PaperScore<'_>| match score {
            PaperScore::Plain(_) => true,
            PaperScore::Setting(_) | PaperScore::MinutesPerEpoch => named == Named::Plain,
            PaperScore::CiderOverFirst | PaperScore::MinusMajority(_) | PaperScore::MinusExperiment(..) => {
                named == Named::Derived
            }
        };
        let fits = |score: PaperScore<'_>| score.is_of_answers().is_none_or(|of| of == answers);
        if PaperScore::parse(name).is_some_and(|score| allowed(score) && fits(score)) {
            return None;
        }
        let known = known(answers, named == Named::Derived);
        let near = did_you_mean(name, known.iter().map(String::as_str));
        let label = near.map_or("no such score".into(), |near| format!("did you mean `{near}`?"));
        Some((label, format!("known: {}", known.join(", "))))
    }
}

/// Which names a table of a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// Scores as they are recorded, and the overview's values.
    Plain,
    /// Scores, and what is derived from them.
    Derived,
}
