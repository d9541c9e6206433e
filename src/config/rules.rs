//! What has to hold between options: errors for settings that cannot work, warnings for those that are probably not meant.
//!
//! A rule is skipped when one of its options was rejected before, so that one mistake gives one problem. Rules read
//! settings only: whether a file exists or a split is in the annotations is for the data modules to say.

mod data;
mod objective;
mod paper;

use std::collections::BTreeSet;

use super::diagnose::{Problem, Severity};
use super::options::{CheckpointChoice, Launcher, Metric, ObjectiveKind, Settings};
use super::resolve::Merge;

/// All rules that `settings` break.
pub(crate) fn check(settings: &Settings, merge: &Merge<'_>, rejected: &BTreeSet<String>) -> Vec<Problem> {
    let mut rules = Rules { settings, merge, rejected, problems: Vec::new() };
    rules.experiment();
    rules.init();
    rules.data();
    rules.model();
    rules.objective();
    rules.kind();
    rules.train();
    rules.splits();
    rules.decoding();
    rules.metrics();
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
    /// Whether the key, a table around it, or something inside it was rejected before.
    fn spoilt(&self, key: &str) -> bool {
        let mut ends = key.match_indices('.').map(|(i, _)| i).chain([key.len()]);
        let inside = format!("{key}.");
        ends.any(|end| self.rejected.contains(&key[..end])) || self.rejected.iter().any(|r| r.starts_with(&inside))
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
            self.error(
                &[("init.from", "cannot start from itself"), ("experiment.name", "")],
                message,
                "name an upstream experiment or a checkpoint, or leave it empty",
            );
        }
    }

    fn init(&mut self) {
        let init = &self.settings.init;
        if init.fc7_weight.is_empty() != init.fc7_bias.is_empty() {
            let keys = [("init.fc7_weight", "both are needed"), ("init.fc7_bias", "")];
            let message = "only one of `init.fc7_weight` and `init.fc7_bias` is given".into();
            self.error(&keys, message, "give both files, or neither");
        }
    }

    fn model(&mut self) {
        let (model, data, evaluate) = (&self.settings.model, &self.settings.data, &self.settings.evaluate);
        let (width, heads) = (model.hidden_size, model.num_attention_heads);
        if heads > 0 && width % heads != 0 {
            let keys = [("model.hidden_size", "not a multiple of the heads"), ("model.num_attention_heads", "")];
            let message =
                format!("`model.hidden_size` is {width}, not a multiple of `model.num_attention_heads` = {heads}");
            let help = format!("for example hidden_size = {}", width.div_ceil(heads).saturating_mul(heads));
            self.error(&keys, message, &help);
        }
        let (text, decoded) = (data.max_text_length.saturating_add(3), evaluate.max_length.saturating_add(2));
        let need = data.num_regions.saturating_add(text.max(decoded));
        if model.max_position_embeddings < need {
            let cause = if text >= decoded {
                ("data.max_text_length", "word pieces", format!("{} + 3 places of text", data.max_text_length))
            } else {
                (
                    "evaluate.max_length",
                    "decoded word pieces",
                    format!("{} + 2 places of decoding", evaluate.max_length),
                )
            };
            let keys =
                [("model.max_position_embeddings", "too few"), (cause.0, cause.1), ("data.num_regions", "regions")];
            let message = format!(
                "`model.max_position_embeddings` is {}, but {} regions and {} need {need}",
                model.max_position_embeddings, data.num_regions, cause.2
            );
            self.error(
                &keys,
                message,
                &format!(
                    "raise `model.max_position_embeddings` to {need} or more, or lower `data.num_regions` or `{}`",
                    cause.0
                ),
            );
        }
    }

    fn train(&mut self) {
        let (train, init) = (&self.settings.train, &self.settings.init);
        let scst = self.settings.objective.kind == ObjectiveKind::Scst;
        if train.learning_rate > 1e-3 && !init.from.is_empty() && !scst {
            let keys = [("train.learning_rate", "high for fine-tuning"), ("init.from", "")];
            let message = format!(
                "`train.learning_rate` is {}, while the weights come from {:?}",
                train.learning_rate, init.from
            );
            self.warn(&keys, message, "such a rate usually destroys pre-trained weights; the paper uses 3e-5");
        }
        if train.learning_rate == 0.0 {
            self.warn(
                &[("train.learning_rate", "")],
                "`train.learning_rate` is 0: nothing is learned".into(),
                "the paper uses 3e-5",
            );
        }
        if train.warmup_proportion >= 1.0 {
            self.warn(
                &[("train.warmup_proportion", "all steps")],
                "`train.warmup_proportion` is 1: the learning rate rises to the end".into(),
                "the paper uses 0.1",
            );
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
                self.error(
                    &[(&format!("{key}.{index}"), "named before")],
                    format!("`{key}` names {name:?} twice"),
                    "keep one of them",
                );
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
            self.warn(
                &[("evaluate.no_repeat_ngram", "bans every repetition")],
                message,
                "3 is usual; 0 switches it off",
            );
        } else if evaluate.no_repeat_ngram > longest {
            let keys = [("evaluate.no_repeat_ngram", "never reached"), ("evaluate.max_length", "")];
            let message = format!(
                "`evaluate.no_repeat_ngram` is {}, more than `evaluate.max_length` = {longest}",
                evaluate.no_repeat_ngram
            );
            self.warn(&keys, message, "it has no effect; 0 switches it off");
        }
    }

    fn metrics(&mut self) {
        self.distinct("metrics.captions", self.settings.metrics.captions.iter().map(|metric| metric.name()));
        if let Some(at) = self.settings.metrics.captions.iter().position(|metric| metric.is_of_answers()) {
            let message = "`metrics.captions` names \"overall\", which scores answers to questions".to_string();
            let help = "leave it out; accuracy is always computed where there are answers";
            self.error(&[(&format!("metrics.captions.{at}"), "not a score of captions")], message, help);
        }
        if self.settings.select.metric == Metric::Spice {
            let message = "`select.metric` is \"spice\", which takes too long after each epoch".to_string();
            let help = "select by \"cider\" or another score; SPICE is computed on `evaluate.splits`";
            self.error(&[("select.metric", "not for selection")], message, help);
        }
    }

    fn launch(&mut self) {
        let launch = &self.settings.launch;
        let here = ["127.0.0.1", "localhost", "::1"].contains(&launch.master_addr.as_str());
        if launch.device == "flex" && launch.world_size > 1 && !here {
            let keys = [("launch.master_addr", "another machine"), ("launch.device", "")];
            let message = format!(
                "`launch.master_addr` is {:?}, but processes of the embedded engine meet on one machine",
                launch.master_addr
            );
            self.error(&keys, message, "use 127.0.0.1, or `launch.device = \"tch-cpu\"` in a build with LibTorch");
        }
        let nodes = self.settings.slurm.nodes;
        if launch.launcher == Launcher::Slurm {
            if !launch.world_size.is_multiple_of(nodes.max(1)) {
                let keys = [("launch.world_size", "not a multiple of the machines"), ("slurm.nodes", "")];
                let message =
                    format!("`launch.world_size` is {}, not a multiple of `slurm.nodes` = {nodes}", launch.world_size);
                self.error(&keys, message, "every machine runs the same number of processes");
            }
            if nodes > 1 && launch.device == "flex" {
                let keys = [("slurm.nodes", "several machines"), ("launch.device", "")];
                let message =
                    format!("`slurm.nodes` is {nodes}, but processes of the embedded engine meet on one machine");
                self.error(
                    &keys,
                    message,
                    "use `launch.device = \"tch-cpu\"` in a build with LibTorch, or one machine",
                );
            }
        }
        if launch.hang_timeout_s > 0 && launch.hang_timeout_s < 60 {
            let message = format!("`launch.hang_timeout_s` is {}: less than a minute", launch.hang_timeout_s);
            let help = "reading data and scoring a split may take longer than that without a sign of progress";
            self.warn(&[("launch.hang_timeout_s", "short")], message, help);
        }
    }
}

fn checkpoint_name(choice: CheckpointChoice) -> &'static str {
    match choice {
        CheckpointChoice::Best => "best",
        CheckpointChoice::Last => "last",
        CheckpointChoice::First => "first",
    }
}
