//! How an experiment compares with the one of the paper that it is a variant of: what stays equal in the arithmetic of its
//! training, and what does not.
//!
//! Gradients are averaged over processes and accumulated batches, so the global batch is their product with the batch of one
//! process, and equal products take the same steps. Which experiment is the paper's is for the caller to say.

use std::collections::BTreeSet;

use crate::config::{DocumentFrequency, ObjectiveKind, Precision, Settings, flatten};

/// Keys that the comparison speaks of in its own words, or that change nothing that is computed.
const SPOKEN_OF: [&str; 18] = [
    "experiment",
    "output",
    "paper",
    "launch",
    "slurm",
    "data.workers",
    "data.prefetch",
    "init.from",
    "scst.document_frequency",
    "train.batch_size",
    "train.gradient_accumulation_steps",
    "train.learning_rate",
    "train.epochs",
    "train.precision",
    "train.optimizer_memory",
    "train.log_every",
    "train.keep_checkpoints",
    "evaluate.batch_size",
];

/// One thing that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What it is.
    pub what: &'static str,
    /// Here, and where it differs, in the paper.
    pub text: String,
    /// Whether both are the same.
    pub same: bool,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<21}{}", self.what, self.text)
    }
}

/// All points of comparison of `ours` with the paper's settings; none when nothing differs.
pub fn compare(ours: &Settings, paper: &Settings) -> Vec<Point> {
    let mut points = vec![
        point("batch per process", ours, paper, |s| s.train.batch_size.to_string()),
        global_batch(ours, paper),
        point("learning rate", ours, paper, |s| format!("{:e}", s.train.learning_rate)),
        schedule_length(ours, paper),
    ];
    if ours.objective.kind == ObjectiveKind::Scst {
        points.push(document_frequencies(ours, paper));
    }
    points.push(point("precision", ours, paper, |s| precision(s.train.precision).into()));
    let others = other_settings(ours, paper);
    if !others.is_empty() {
        let text = others.into_iter().collect::<Vec<_>>().join(", ");
        points.push(Point { what: "other settings", text: format!("differ: {text}"), same: false });
    }
    if points.iter().all(|point| point.same) { Vec::new() } else { points }
}

fn point(what: &'static str, ours: &Settings, paper: &Settings, of: impl Fn(&Settings) -> String) -> Point {
    let (here, there) = (of(ours), of(paper));
    let same = here == there;
    let text = if same { format!("{here}, as in the paper") } else { format!("{here}; {there} in the paper") };
    Point { what, text, same }
}

/// Samples per step of the optimiser.
fn batch(settings: &Settings) -> usize {
    settings.train.batch_size * settings.launch.world_size * settings.train.gradient_accumulation_steps
}

fn global_batch(ours: &Settings, paper: &Settings) -> Point {
    let factors = |s: &Settings| {
        let (train, processes) = (&s.train, s.launch.world_size);
        format!("{} = {} × {processes} × {}", batch(s), train.batch_size, train.gradient_accumulation_steps)
    };
    let (here, there) = (batch(ours), batch(paper));
    let same = here == there;
    let text = match (same, factors(ours) == factors(paper)) {
        (true, true) => format!("{}, as in the paper", factors(ours)),
        (true, false) => format!("{}, the product as in the paper ({})", factors(ours), factors(paper)),
        (false, _) => format!("{}; {} in the paper", factors(ours), factors(paper)),
    };
    Point { what: "global batch", text, same }
}

/// The number of steps follows from epochs and the global batch; the shape of the schedule is one of the other settings.
fn schedule_length(ours: &Settings, paper: &Settings) -> Point {
    let mut point = point("schedule length", ours, paper, |s| format!("{} epochs", s.train.epochs));
    // Steps are to each other as epochs per global batch.
    let (here, there) = (ours.train.epochs * batch(paper), paper.train.epochs * batch(ours));
    if here != there {
        point.text.push_str(&format!("; {:.3} times as many steps", here as f64 / there as f64));
    } else if !point.same {
        point.text.push_str("; as many steps");
    }
    point.same &= here == there;
    point
}

fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Fp32 => "32-bit floats",
        Precision::Bf16 => "bfloat16",
        Precision::Fp16 => "16-bit floats",
    }
}

fn document_frequencies(ours: &Settings, paper: &Settings) -> Point {
    point("document frequencies", ours, paper, |s| match s.scst.document_frequency {
        DocumentFrequency::Batch => format!("over the {} samples of a process", s.train.batch_size),
        DocumentFrequency::Corpus => "over all training captions".into(),
    })
}

/// Keys of all other settings that differ and that influence what is computed.
fn other_settings(ours: &Settings, paper: &Settings) -> BTreeSet<String> {
    let (here, there) = (flatten(ours), flatten(paper));
    let spoken_of = |key: &str| {
        SPOKEN_OF.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let keys = here.keys().chain(there.keys()).filter(|key| !spoken_of(key) && here.get(*key) != there.get(*key));
    keys.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> Settings {
        let mut settings = Settings::default();
        settings.launch.world_size = 8;
        settings
    }

    fn texts(ours: &Settings, paper: &Settings) -> Vec<String> {
        compare(ours, paper).iter().map(|p| format!("{} {p}", if p.same { "=" } else { "≠" })).collect()
    }

    #[test]
    fn nothing_is_said_where_nothing_differs() {
        let mut ours = paper();
        ours.launch.device = "flex".into();
        ours.output.runs = "elsewhere".into();
        assert_eq!(texts(&ours, &paper()), Vec::<String>::new());
    }

    #[test]
    fn accumulation_makes_up_for_processes() {
        let mut ours = paper();
        ours.launch.world_size = 1;
        ours.train.batch_size = 32;
        ours.train.gradient_accumulation_steps = 16;
        ours.model.hidden_dropout_prob = 0.0;
        assert_eq!(
            texts(&ours, &paper()),
            [
                "≠ batch per process    32; 64 in the paper",
                "= global batch         512 = 32 × 1 × 16, the product as in the paper (512 = 64 × 8 × 1)",
                "= learning rate        3e-5, as in the paper",
                "= schedule length      30 epochs, as in the paper",
                "= precision            32-bit floats, as in the paper",
                "≠ other settings       differ: model.hidden_dropout_prob",
            ]
        );
    }

    #[test]
    fn low_precision_is_not_the_papers() {
        let mut ours = paper();
        ours.train.precision = Precision::Bf16;
        ours.train.optimizer_memory = crate::config::OptimizerMemory::Device;
        assert_eq!(texts(&ours, &paper())[4..], ["≠ precision            bfloat16; 32-bit floats in the paper"]);
    }

    #[test]
    fn another_batch_per_process_is_another_self_critical_objective() {
        let mut paper = paper();
        paper.objective.kind = ObjectiveKind::Scst;
        paper.train.batch_size = 16;
        let mut ours = paper.clone();
        ours.train.batch_size = 8;
        ours.train.epochs = 15;
        ours.train.learning_rate = 2e-6;
        assert_eq!(
            texts(&ours, &paper),
            [
                "≠ batch per process    8; 16 in the paper",
                "≠ global batch         64 = 8 × 8 × 1; 128 = 16 × 8 × 1 in the paper",
                "≠ learning rate        2e-6; 3e-5 in the paper",
                "≠ schedule length      15 epochs; 30 epochs in the paper; as many steps",
                "≠ document frequencies over the 8 samples of a process; over the 16 samples of a process in the paper",
                "= precision            32-bit floats, as in the paper",
            ]
        );
    }
}
