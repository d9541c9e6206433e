//! The values that a `[[paper]]` row can name: scores, what is derived from scores, and what the overview of the experiments
//! lists. How each is measured is for `results` to say.

use super::options::Settings;

/// Scores of captions, in the order in which papers print them.
pub(crate) const CAPTION_SCORES: [&str; 8] =
    ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice"];

/// Accuracies of answers: over all questions, and by type of the answer.
const ANSWER_TYPES: [&str; 4] = ["overall", "yes_no", "number", "other"];

/// Whose accuracy, where it is not the evaluator that `metrics.vqa` names.
const EVALUATORS: [&str; 2] = ["official", "legacy"];

/// A value that a `[[paper]]` row can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaperScore<'a> {
    /// A score as it is recorded: `cider`, `yes_no`, `yes_no_legacy`, `majority_yes_no`.
    Plain(&'a str),
    /// `cider_over_first`: the ratio of a checkpoint's CIDEr to that of the first epoch's.
    CiderOverFirst,
    /// `<accuracy>_minus_majority`: by how much an accuracy is above that of always giving the commonest training answer.
    MinusMajority(&'a str),
    /// `<score>_minus_<experiment>`: by how much a score is above that of the newest finished run of another experiment.
    MinusExperiment(&'a str, &'a str),
    /// A setting of the experiment, as the overview lists it.
    Setting(Setting),
    /// `minutes_per_epoch`: the median time from one checkpoint to the next.
    MinutesPerEpoch,
}

/// A setting that the overview of the experiments lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `train.batch_size`.
    BatchSize,
    /// `launch.world_size`.
    WorldSize,
    /// `train.learning_rate`.
    LearningRate,
    /// `train.epochs`.
    Epochs,
}

impl Setting {
    const NAMES: [(&'static str, Setting); 4] = [
        ("batch_size", Setting::BatchSize),
        ("world_size", Setting::WorldSize),
        ("learning_rate", Setting::LearningRate),
        ("epochs", Setting::Epochs),
    ];

    /// Its value.
    pub fn of(self, settings: &Settings) -> f64 {
        match self {
            Setting::BatchSize => settings.train.batch_size as f64,
            Setting::WorldSize => settings.launch.world_size as f64,
            Setting::LearningRate => settings.train.learning_rate,
            Setting::Epochs => settings.train.epochs as f64,
        }
    }
}

impl<'a> PaperScore<'a> {
    /// What a name means; none for a name that means nothing.
    pub fn parse(name: &'a str) -> Option<Self> {
        if name == "cider_over_first" {
            return Some(Self::CiderOverFirst);
        }
        if name == "minutes_per_epoch" {
            return Some(Self::MinutesPerEpoch);
        }
        if let Some((_, setting)) = Setting::NAMES.into_iter().find(|(known, _)| *known == name) {
            return Some(Self::Setting(setting));
        }
        match name.split_once("_minus_") {
            None => is_recorded(name).then_some(Self::Plain(name)),
            Some((score, "majority")) => ANSWER_TYPES.contains(&score).then_some(Self::MinusMajority(score)),
            Some((score, experiment)) => {
                (is_recorded(score) && !experiment.is_empty()).then_some(Self::MinusExperiment(score, experiment))
            }
        }
    }

    /// The recorded score that it is, or is derived from; none for what is no score.
    pub fn score(&self) -> Option<&'a str> {
        match self {
            Self::Plain(score) | Self::MinusMajority(score) | Self::MinusExperiment(score, _) => Some(score),
            Self::CiderOverFirst => Some("cider"),
            Self::Setting(_) | Self::MinutesPerEpoch => None,
        }
    }

    /// Whether it is measured on answers (`true`) or on captions; none for what is no score.
    pub fn is_of_answers(&self) -> Option<bool> {
        self.score().map(|score| !CAPTION_SCORES.contains(&score))
    }
}

fn is_recorded(name: &str) -> bool {
    let by_evaluator = || name.rsplit_once('_').filter(|(_, whose)| EVALUATORS.contains(whose)).map(|(kind, _)| kind);
    let kind = name.strip_prefix("majority_").or_else(by_evaluator).unwrap_or(name);
    CAPTION_SCORES.contains(&name) || ANSWER_TYPES.contains(&kind)
}

/// All names that a row of an experiment on answers, or on captions, can have; patterns in words.
pub(crate) fn known(answers: bool, derived: bool) -> Vec<String> {
    let mut names: Vec<String> = if answers {
        let whose = |kind: &str| EVALUATORS.map(|whose| format!("{kind}_{whose}"));
        ANSWER_TYPES.map(String::from).into_iter().chain(ANSWER_TYPES.iter().flat_map(|kind| whose(kind))).collect()
    } else {
        CAPTION_SCORES.map(String::from).into()
    };
    if derived && !answers {
        names.push("cider_over_first".into());
    }
    if derived && answers {
        names.push("<accuracy>_minus_majority".into());
    }
    if derived {
        names.push("<score>_minus_<experiment>".into());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_mean() {
        let cases = [
            ("cider", Some(PaperScore::Plain("cider"))),
            ("yes_no", Some(PaperScore::Plain("yes_no"))),
            ("yes_no_legacy", Some(PaperScore::Plain("yes_no_legacy"))),
            ("majority_other", Some(PaperScore::Plain("majority_other"))),
            ("cider_over_first", Some(PaperScore::CiderOverFirst)),
            ("yes_no_minus_majority", Some(PaperScore::MinusMajority("yes_no"))),
            ("cider_minus_coco_ce", Some(PaperScore::MinusExperiment("cider", "coco_ce"))),
            ("learning_rate", Some(PaperScore::Setting(Setting::LearningRate))),
            ("minutes_per_epoch", Some(PaperScore::MinutesPerEpoch)),
            ("cider_minus_majority", None),
            ("cider_minus_", None),
            ("cyder_minus_coco_ce", None),
            ("cider_legacy", None),
            ("yes_no_server", None),
            ("majority_cider", None),
            ("cyder", None),
        ];
        for (name, expected) in cases {
            assert_eq!(PaperScore::parse(name), expected, "{name}");
        }
    }
}
