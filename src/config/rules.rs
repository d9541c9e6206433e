//! What has to hold between options: errors for settings that cannot work, warnings for those that are probably not meant.
//!
//! A rule is skipped when one of its options was rejected before, so that one mistake gives one problem. Rules read
//! settings only: whether a file exists or a split is in the annotations is for the data modules to say.

use std::collections::BTreeSet;

use super::diagnose::{Problem, Severity, did_you_mean};
use super::options::{CheckpointChoice, PaperRow, Settings};
use super::resolve::Merge;

/// Scores that published tables report.
const REPORTED: [&str; 8] = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice"];

/// Ratio of the CIDEr of a checkpoint to that of the first epoch's, for `at_least`.
const CIDER_OVER_FIRST: &str = "cider_over_first";

/// All rules that `settings` break.
pub(crate) fn check(settings: &Settings, merge: &Merge<'_>, rejected: &BTreeSet<String>) -> Vec<Problem> {
    let mut rules = Rules { settings, merge, rejected, problems: Vec::new() };
    rules.experiment();
    rules.data();
    rules.model();
    rules.objective();
    rules.train();
    rules.splits();
    rules.decoding();
    rules.launch();
    for (index, row) in settings.paper.iter().enumerate() {
        rules.paper_row(index, row);
    }
    rules.problems
}

struct Rules<'a> {
    settings: &'a Settings,
    merge: &'a Merge<'a>,
    rejected: &'a BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    /// Whether any of the keys, or a table around it, was rejected before.
    fn spoilt(&self, key: &str) -> bool {
        let ends = key.match_indices('.').map(|(i, _)| i).chain([key.len()]);
        ends.into_iter().any(|end| self.rejected.contains(&key[..end]))
    }

    /// Reports a broken rule between `keys`, each with its label.
    fn broken(&mut self, severity: Severity, keys: &[(&str, &str)], message: String, help: &str) {
        if !keys.iter().any(|(key, _)| self.spoilt(key)) {
            let place = self.merge.place(keys);
            self.problems.push(Problem { severity, message, help: help.into(), place });
        }
    }

    fn error(&mut self, keys: &[(&str, &str)], message: String, help: &str) {
        self.broken(Severity::Error, keys, message, help);
    }

    fn warn(&mut self, keys: &[(&str, &str)], message: String, help: &str) {
        self.broken(Severity::Warning, keys, message, help);
    }

    fn experiment(&mut self) {
        let (experiment, init) = (&self.settings.experiment, &self.settings.init);
        if experiment.name.is_empty() && !self.spoilt("experiment.name") {
            let place = self.merge.place_missing("experiment", "`name` is missing");
            let help = "add `name = \"…\"` under `[experiment]`";
            self.problems.push(Problem::error(place, "`experiment.name` is not given", help));
        }
        if !init.from.is_empty() && init.from == experiment.name {
            let message = format!("`init.from` is {:?}, the name of this experiment itself", init.from);
            self.error(&[("init.from", "cannot start from itself"), ("experiment.name", "")], message, "name an upstream experiment or a checkpoint, or leave it empty");
        }
    }

    fn data(&mut self) {
        let data = &self.settings.data;
        let paths = [
            ("data.annotations", &data.annotations),
            ("data.valid_images", &data.valid_images),
            ("data.region_prefix", &data.region_prefix),
            ("data.boxes", &data.boxes),
            ("data.vocabulary", &data.vocabulary),
        ];
        let empty = paths.iter().filter(|(key, path)| path.is_empty() && !self.spoilt(key)).map(|(key, _)| *key);
        let (stated, missing): (Vec<_>, Vec<_>) = empty.partition(|key| self.merge.winner(key).is_some());
        let help = "`vlp explain data` describes the paths";
        for key in stated {
            self.error(&[(key, "empty")], format!("`{key}` is empty"), help);
        }
        if let Some(first) = missing.first() {
            let names = missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let verb = if missing.len() == 1 { "is" } else { "are" };
            let label = format!("`{}` {}", first.trim_start_matches("data."), if missing.len() == 1 { "is missing" } else { "and others are missing" });
            let place = self.merge.place_missing("data", &label);
            self.problems.push(Problem::error(place, format!("{names} {verb} not given"), help));
        }
    }

    fn model(&mut self) {
        let (model, data, evaluate) = (&self.settings.model, &self.settings.data, &self.settings.evaluate);
        let (width, heads) = (model.hidden_size, model.num_attention_heads);
        if heads > 0 && width % heads != 0 {
            let keys = [("model.hidden_size", "not a multiple of the heads"), ("model.num_attention_heads", "")];
            let message = format!("`model.hidden_size` is {width}, not a multiple of `model.num_attention_heads` = {heads}");
            let help = format!("for example hidden_size = {}", width.div_ceil(heads).saturating_mul(heads));
            self.error(&keys, message, &help);
        }
        let (text, decoded) = (data.max_text_length.saturating_add(3), evaluate.max_length.saturating_add(2));
        let need = data.num_regions.saturating_add(text.max(decoded));
        if model.max_position_embeddings < need {
            let cause = if text >= decoded {
                ("data.max_text_length", "word pieces", format!("{} + 3 places of text", data.max_text_length))
            } else {
                ("evaluate.max_length", "decoded word pieces", format!("{} + 2 places of decoding", evaluate.max_length))
            };
            let keys = [("model.max_position_embeddings", "too few"), (cause.0, cause.1), ("data.num_regions", "regions")];
            let message = format!(
                "`model.max_position_embeddings` is {}, but {} regions and {} need {need}",
                model.max_position_embeddings, data.num_regions, cause.2
            );
            self.error(&keys, message, &format!("raise `model.max_position_embeddings` to {need} or more, or lower `data.num_regions` or `{}`", cause.0));
        }
    }

    fn objective(&mut self) {
        let (objective, data) = (&self.settings.objective, &self.settings.data);
        let (s2s, bi) = (objective.s2s_prob, objective.bi_prob);
        if s2s + bi != 1.0 {
            let keys = [("objective.s2s_prob", "and this"), ("objective.bi_prob", "must add up to 1")];
            let message = format!("`objective.s2s_prob` + `objective.bi_prob` is {s2s} + {bi} = {}, must be exactly 1", s2s + bi);
            self.error(&keys, message, "each sample is either sequence-to-sequence or bidirectional: set both");
        }
        let batch = self.settings.train.batch_size;
        if objective.drop_worst_ratio > 0.0 && (batch as f64 * (1.0 - objective.drop_worst_ratio)) < 1.0 {
            let keys = [("objective.drop_worst_ratio", "drops the whole batch"), ("train.batch_size", "")];
            let message = format!("`objective.drop_worst_ratio` = {} keeps none of the {batch} samples of a batch", objective.drop_worst_ratio);
            self.error(&keys, message, "lower `objective.drop_worst_ratio` or raise `train.batch_size`");
        }
        if objective.label_smoothing > 0.0 && objective.drop_worst_ratio > 0.0 {
            let keys = [("objective.drop_worst_ratio", "drops samples of high loss"), ("objective.label_smoothing", "changes the loss")];
            self.warn(&keys, "`objective.label_smoothing` and `objective.drop_worst_ratio` are both on".into(), "the paper uses neither together: set one of them to 0");
        }
        if objective.max_pred > data.max_text_length {
            let keys = [("objective.max_pred", "more than the words of a caption"), ("data.max_text_length", "")];
            let message = format!("`objective.max_pred` is {}, but a caption has at most `data.max_text_length` = {} word pieces", objective.max_pred, data.max_text_length);
            self.warn(&keys, message, "the rest is never used: the paper masks at most 3");
        }
        if objective.vis_mask_prob > 0.0 && (data.num_regions as f64 * objective.vis_mask_prob) < 1.0 {
            let keys = [("objective.vis_mask_prob", "masks no region"), ("data.num_regions", "")];
            let message = format!("`objective.vis_mask_prob` = {} masks none of the {} regions", objective.vis_mask_prob, data.num_regions);
            self.warn(&keys, message, "raise it, or set it to 0 to switch the region loss off");
        }
    }

    fn train(&mut self) {
        let (train, init) = (&self.settings.train, &self.settings.init);
        if train.learning_rate > 1e-3 && !init.from.is_empty() {
            let keys = [("train.learning_rate", "high for fine-tuning"), ("init.from", "")];
            let message = format!("`train.learning_rate` is {}, while the weights come from {:?}", train.learning_rate, init.from);
            self.warn(&keys, message, "such a rate usually destroys pre-trained weights; the paper uses 3e-5");
        }
        if train.learning_rate == 0.0 {
            self.warn(&[("train.learning_rate", "")], "`train.learning_rate` is 0: nothing is learned".into(), "the paper uses 3e-5");
        }
        if train.warmup_proportion >= 1.0 {
            self.warn(&[("train.warmup_proportion", "all steps")], "`train.warmup_proportion` is 1: the learning rate rises to the end".into(), "the paper uses 0.1");
        }
    }

    fn splits(&mut self) {
        let (data, select, evaluate) = (&self.settings.data, &self.settings.select, &self.settings.evaluate);
        self.distinct("data.train_splits", data.train_splits.iter().map(String::as_str));
        self.distinct("evaluate.splits", evaluate.splits.iter().map(String::as_str));
        self.distinct("evaluate.checkpoints", evaluate.checkpoints.iter().map(|c| checkpoint_name(*c)));
        let help = "scores on training images say nothing about unseen ones";
        if data.train_splits.contains(&select.split) {
            let message = format!("`select.split` is {:?}, which is also trained on", select.split);
            self.warn(&[("select.split", "in `data.train_splits`"), ("data.train_splits", "")], message, help);
        }
        if let Some(split) = evaluate.splits.iter().find(|s| data.train_splits.contains(s)) {
            let message = format!("`evaluate.splits` names {split:?}, which is also trained on");
            self.warn(&[("evaluate.splits", "in `data.train_splits`"), ("data.train_splits", "")], message, help);
        }
    }

    /// An error for each name of a list that was there before.
    fn distinct<'s>(&mut self, key: &str, names: impl Iterator<Item = &'s str>) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            if !seen.insert(name) {
                self.error(&[(&format!("{key}.{index}"), "named before")], format!("`{key}` names {name:?} twice"), "keep one of them");
            }
        }
    }

    fn decoding(&mut self) {
        let (evaluate, data) = (&self.settings.evaluate, &self.settings.data);
        let (shortest, longest) = (evaluate.min_length, evaluate.max_length);
        if shortest > longest {
            let keys = [("evaluate.min_length", "longer than the longest caption"), ("evaluate.max_length", "")];
            let message = format!("`evaluate.min_length` is {shortest}, more than `evaluate.max_length` = {longest}");
            self.error(&keys, message, "lower `evaluate.min_length`; the paper uses 0");
        }
        if longest > data.max_text_length.saturating_add(1) {
            let keys = [("evaluate.max_length", "longer than in training"), ("data.max_text_length", "")];
            let message = format!(
                "`evaluate.max_length` is {longest}, but training sees at most `data.max_text_length` + 1 = {} word pieces",
                data.max_text_length + 1
            );
            self.warn(&keys, message, "positions beyond that are untrained: lower it");
        }
        if evaluate.no_repeat_ngram == 1 {
            let message = "`evaluate.no_repeat_ngram` is 1: no word piece may occur twice in a caption".to_string();
            self.warn(&[("evaluate.no_repeat_ngram", "bans every repetition")], message, "3 is usual; 0 switches it off");
        } else if evaluate.no_repeat_ngram > longest {
            let keys = [("evaluate.no_repeat_ngram", "never reached"), ("evaluate.max_length", "")];
            let message = format!("`evaluate.no_repeat_ngram` is {}, more than `evaluate.max_length` = {longest}", evaluate.no_repeat_ngram);
            self.warn(&keys, message, "it has no effect; 0 switches it off");
        }
    }

    fn launch(&mut self) {
        let world_size = self.settings.launch.world_size;
        if world_size > 1 {
            let message = format!("`launch.world_size` = {world_size}: this build runs one process per experiment");
            let help = format!("set it to 1 and `train.gradient_accumulation_steps` to {world_size} for the same effective batch");
            self.error(&[("launch.world_size", "must be 1")], message, &help);
        }
    }

    fn paper_row(&mut self, index: usize, row: &PaperRow) {
        let path = format!("paper.{index}");
        let key = |name: &str| format!("{path}.{name}");
        let called = if row.row.is_empty() { String::new() } else { format!(" ({:?})", row.row) };
        for (name, text) in [("table", &row.table), ("row", &row.row)] {
            if text.is_empty() && !self.spoilt(&key(name)) {
                self.error(&[(&path, "this row")], format!("a `[[paper]]` row{called} has no `{name}`"), "give `table`, `row`, and `expect` or `at_least`");
            }
        }
        let nothing = row.expect.is_empty() && row.at_least.is_empty();
        if nothing && !self.spoilt(&key("expect")) && !self.spoilt(&key("at_least")) {
            self.error(&[(&path, "this row")], format!("a `[[paper]]` row{called} has neither `expect` nor `at_least`"), "give the reported scores, e.g. `expect = { cider = 116.9 }` with `tolerance = { cider = 1.5 }`");
        }
        let earlier = self.settings.paper[..index].iter().any(|other| other.table == row.table && other.row == row.row);
        if earlier && !row.table.is_empty() && !row.row.is_empty() {
            self.error(&[(&key("row"), "used before")], format!("two `[[paper]]` rows are called {:?} in table {:?}", row.row, row.table), "rename one of them");
        }
        for metric in row.expect.keys() {
            self.metric(&key("expect"), metric, &REPORTED);
            if !row.tolerance.contains_key(metric) && !self.spoilt(&key(&format!("tolerance.{metric}"))) {
                let label = "has no tolerance";
                self.error(&[(&key(&format!("expect.{metric}")), label)], format!("`paper.tolerance` has no `{metric}`, but `paper.expect` does{called}"), "say how far a reproduction may be off, in points");
            }
        }
        for (metric, tolerance) in &row.tolerance {
            let place = key(&format!("tolerance.{metric}"));
            if !row.expect.contains_key(metric) && !self.spoilt(&key(&format!("expect.{metric}"))) {
                self.error(&[(&place, "nothing is expected")], format!("`paper.tolerance` has `{metric}`, but `paper.expect` does not{called}"), "add the reported score to `expect`, or remove it here");
            } else if *tolerance < 0.0 {
                self.error(&[(&place, "at least 0")], format!("`paper.tolerance.{metric}` is {tolerance}, must be at least 0"), "it is a distance in points");
            }
        }
        let with_ratio: Vec<&str> = REPORTED.into_iter().chain([CIDER_OVER_FIRST]).collect();
        for metric in row.at_least.keys() {
            self.metric(&key("at_least"), metric, &with_ratio);
        }
        let (splits, checkpoints) = (&self.settings.evaluate.splits, &self.settings.evaluate.checkpoints);
        if !splits.contains(&row.split) {
            let split = key("split");
            let keys = [(split.as_str(), "is not decoded"), ("evaluate.splits", "decoded splits")];
            self.error(&keys, format!("`paper.split` is {:?}, which is not in `evaluate.splits`{called}", row.split), "add it to `evaluate.splits`");
        }
        let named = checkpoint_name(row.checkpoint);
        if !checkpoints.contains(&row.checkpoint) {
            let checkpoint = key("checkpoint");
            let keys = [(checkpoint.as_str(), "is not scored"), ("evaluate.checkpoints", "scored checkpoints")];
            self.error(&keys, format!("`paper.checkpoint` is {named:?}, which is not in `evaluate.checkpoints`{called}"), "add it to `evaluate.checkpoints`");
        }
        if row.at_least.contains_key(CIDER_OVER_FIRST) && !checkpoints.contains(&CheckpointChoice::First) {
            let ratio = key(&format!("at_least.{CIDER_OVER_FIRST}"));
            let keys = [(ratio.as_str(), "needs the first checkpoint"), ("evaluate.checkpoints", "scored checkpoints")];
            self.error(&keys, format!("`{CIDER_OVER_FIRST}` needs \"first\" in `evaluate.checkpoints`{called}"), "add \"first\" to `evaluate.checkpoints`");
        }
    }

    fn metric(&mut self, table: &str, metric: &str, known: &[&str]) {
        if known.contains(&metric) {
            return;
        }
        let label = did_you_mean(metric, known.iter().copied()).map_or("no such score".into(), |near| format!("did you mean `{near}`?"));
        let message = format!("unknown score `{metric}` in `{}`", super::validate::displayed(table));
        self.error(&[(&format!("{table}.{metric}"), &label)], message, &format!("known: {}", known.join(", ")));
    }
}

fn checkpoint_name(choice: CheckpointChoice) -> &'static str {
    match choice {
        CheckpointChoice::Best => "best",
        CheckpointChoice::Last => "last",
        CheckpointChoice::First => "first",
    }
}
