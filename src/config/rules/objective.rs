//! Rules for the objective: what holds within `[objective]`, and what each kind needs of data, weights and selection.

use super::super::options::{Dataset, DocumentFrequency, ObjectiveKind, Settings};
use super::Rules;

/// Samples per process in the paper's self-critical training.
const PAPER_SCST_BATCH: usize = 16;

impl Rules<'_> {
    pub(super) fn objective(&mut self) {
        let (objective, data) = (&self.settings.objective, &self.settings.data);
        let (s2s, bi) = (objective.s2s_prob, objective.bi_prob);
        if s2s + bi != 1.0 {
            let keys = [
                ("objective.s2s_prob", "must be 1 with `bi_prob`"),
                ("objective.bi_prob", "must be 1 with `s2s_prob`"),
            ];
            let message =
                format!("`objective.s2s_prob` + `objective.bi_prob` is {s2s} + {bi} = {}, must be exactly 1", s2s + bi);
            self.error(&keys, message, "each sample is either sequence-to-sequence or bidirectional: set both");
        }
        let batch = self.settings.train.batch_size;
        if objective.drop_worst_ratio > 0.0 && (batch as f64 * (1.0 - objective.drop_worst_ratio)) < 1.0 {
            let keys = [("objective.drop_worst_ratio", "drops the whole batch"), ("train.batch_size", "")];
            let message = format!(
                "`objective.drop_worst_ratio` = {} keeps none of the {batch} samples of a batch",
                objective.drop_worst_ratio
            );
            self.error(&keys, message, "lower `objective.drop_worst_ratio` or raise `train.batch_size`");
        }
        if objective.label_smoothing > 0.0 && objective.drop_worst_ratio > 0.0 {
            let keys = [
                ("objective.drop_worst_ratio", "drops samples of high loss"),
                ("objective.label_smoothing", "changes the loss"),
            ];
            self.warn(
                &keys,
                "`objective.label_smoothing` and `objective.drop_worst_ratio` are both on".into(),
                "the paper uses neither together: set one of them to 0",
            );
        }
        if objective.max_pred > data.max_text_length {
            let keys = [("objective.max_pred", "more than the words of a caption"), ("data.max_text_length", "")];
            let message = format!(
                "`objective.max_pred` is {}, but a caption has at most `data.max_text_length` = {} word pieces",
                objective.max_pred, data.max_text_length
            );
            self.warn(&keys, message, "the rest is never used: the paper masks at most 3");
        }
        if objective.vis_mask_prob > 0.0 && (data.num_regions as f64 * objective.vis_mask_prob) < 1.0 {
            let keys = [("objective.vis_mask_prob", "masks no region"), ("data.num_regions", "")];
            let message = format!(
                "`objective.vis_mask_prob` = {} masks none of the {} regions",
                objective.vis_mask_prob, data.num_regions
            );
            self.warn(&keys, message, "raise it, or set it to 0 to switch the region loss off");
        }
    }

    /// What each kind of objective needs of the other sections.
    pub(super) fn kind(&mut self) {
        self.kind_of_data();
        self.selection();
        let objective = &self.settings.objective;
        let kind = objective.kind;
        if kind == ObjectiveKind::Masked && objective.max_pred == 0 {
            let keys = [("objective.max_pred", "masks no word"), ("objective.kind", "")];
            let message =
                "`objective.max_pred` is 0, but `objective.kind` = \"masked\" learns from masked words".into();
            self.error(&keys, message, "the paper masks at most 3; 0 is for `kind = \"scst\"`");
        }
        // Probabilities that do not add up have a problem of their own.
        let (s2s, bi) = (objective.s2s_prob, objective.bi_prob);
        let wanted = match kind {
            ObjectiveKind::Masked => None,
            ObjectiveKind::Vqa => Some((0.0, "bidirectional", "set `s2s_prob = 0.0` and `bi_prob = 1.0`")),
            ObjectiveKind::Scst => Some((1.0, "sequence-to-sequence", "set `s2s_prob = 1.0` and `bi_prob = 0.0`")),
        };
        if let Some((share, form, help)) = wanted
            && s2s + bi == 1.0
            && s2s != share
        {
            let keys =
                [("objective.s2s_prob", ""), ("objective.bi_prob", ""), ("objective.kind", "the only form of it")];
            let name = kind_name(kind);
            let message = format!("`objective.kind` = {name:?} is {form}, but `objective.s2s_prob` is {s2s}");
            self.error(&keys, message, help);
        }
        if kind == ObjectiveKind::Scst {
            self.scst();
        }
        if kind != ObjectiveKind::Masked {
            self.unread_options(kind);
        }
    }

    /// Questions go with answers, captions with the other kinds.
    fn kind_of_data(&mut self) {
        let (kind, dataset) = (self.settings.objective.kind, self.settings.data.dataset);
        let keys = [("objective.kind", ""), ("data.dataset", "")];
        if kind == ObjectiveKind::Vqa && dataset != Dataset::Vqa2 {
            let message = format!("`objective.kind` is \"vqa\", but `data.dataset` is {:?}", dataset_name(dataset));
            self.error(&keys, message, "questions and answers come from `data.dataset = \"vqa2\"`");
        }
        if kind != ObjectiveKind::Vqa && dataset == Dataset::Vqa2 {
            let message = format!("`data.dataset` is \"vqa2\", but `objective.kind` is {:?}", kind_name(kind));
            self.error(&keys, message, "set `objective.kind = \"vqa\"`, or name a data set of captions");
        }
    }

    fn selection(&mut self) {
        let (select, kind) = (&self.settings.select, self.settings.objective.kind);
        if select.split.is_empty() || select.metric.is_of_answers() == (kind == ObjectiveKind::Vqa) {
            return;
        }
        let (of, help) = if select.metric.is_of_answers() {
            ("answers", "captions are scored by `cider` and others: `vlp explain select.metric`")
        } else {
            ("captions", "answers are scored by `overall`")
        };
        let name = serde_json::to_value(select.metric).unwrap_or_default();
        let keys = [("select.metric", "cannot be measured"), ("objective.kind", "")];
        let message =
            format!("`select.metric` = {name} is a score of {of}, but `objective.kind` is {:?}", kind_name(kind));
        self.error(&keys, message, help);
    }

    fn scst(&mut self) {
        let Settings { init, objective, train, scst, .. } = self.settings;
        if init.from.is_empty() {
            let keys = [("init.from", "empty"), ("objective.kind", "needs a trained captioner")];
            let message = "`objective.kind` is \"scst\", but `init.from` names nothing to start from".into();
            self.error(
                &keys,
                message,
                "name the experiment that trained the captioner, e.g. `init.from = \"coco_ce\"`",
            );
        }
        if objective.max_pred != 0 || objective.mask_prob != 0.0 {
            let keys = [("objective.max_pred", ""), ("objective.mask_prob", ""), ("objective.kind", "masks no words")];
            let message = format!(
                "`objective.kind` = \"scst\" masks no words, but `objective.max_pred` is {} and `objective.mask_prob` is {}",
                objective.max_pred, objective.mask_prob
            );
            self.error(&keys, message, "set `max_pred = 0` and `mask_prob = 0.0`");
        }
        // Of networks of BERT's size; a toy's weights are larger steps apart.
        if train.learning_rate > 1e-5 && self.settings.model.hidden_size >= 512 {
            let keys = [("train.learning_rate", "high for SCST"), ("objective.kind", "")];
            let message =
                format!("`train.learning_rate` is {:e}, while `objective.kind` is \"scst\"", train.learning_rate);
            self.warn(&keys, message, "at such rates it usually destroys the captioner; the paper uses 1e-6");
        }
        if scst.document_frequency == DocumentFrequency::Batch && train.batch_size != PAPER_SCST_BATCH {
            let keys = [
                ("train.batch_size", "another objective than the paper's"),
                ("scst.document_frequency", ""),
                ("objective.kind", ""),
            ];
            let message = format!(
                "`train.batch_size` is {}, and SCST counts document frequencies over the batch of one process: \
                 {PAPER_SCST_BATCH} in the paper",
                train.batch_size
            );
            let help = "set it to 16 with more processes or accumulation, or `scst.document_frequency = \"corpus\"`";
            self.warn(&keys, message, help);
        }
    }

    /// Options of the masked objective that are set and that the other kinds do not read.
    fn unread_options(&mut self, kind: ObjectiveKind) {
        let objective = &self.settings.objective;
        let set = [
            ("objective.label_smoothing", objective.label_smoothing),
            ("objective.drop_worst_ratio", objective.drop_worst_ratio),
        ];
        for (key, value) in set.into_iter().filter(|(_, value)| *value > 0.0) {
            let message = format!("`{key}` is {value}, which `objective.kind` = {:?} does not read", kind_name(kind));
            self.warn(&[(key, "has no effect"), ("objective.kind", "")], message, "set it to 0");
        }
    }
}

fn kind_name(kind: ObjectiveKind) -> &'static str {
    match kind {
        ObjectiveKind::Masked => "masked",
        ObjectiveKind::Vqa => "vqa",
        ObjectiveKind::Scst => "scst",
    }
}

fn dataset_name(dataset: Dataset) -> &'static str {
    match dataset {
        Dataset::Coco => "coco",
        Dataset::Cc => "cc",
        Dataset::Flickr30k => "flickr30k",
        Dataset::Vqa2 => "vqa2",
    }
}
