//! What a run would do, computed from its settings and a few facts before anything starts: processes and their
//! environment, steps, memory, disk.
//!
//! Everything is a pure function of its arguments. Memory and disk are estimates; the formula of the first is in [`super::memory`].

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use super::memory::{Memory, memory};
use crate::config::{Dataset, Launcher, Settings, device_of_rank};
use crate::track::grouped;

/// Numbers that only the data and the model know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Images of the training splits.
    pub train_images: usize,
    /// Captions, or questions, of the training splits.
    pub train_samples: usize,
    /// Images by split, for every split in use.
    pub split_images: BTreeMap<String, usize>,
    /// Word pieces in the vocabulary.
    pub vocabulary: usize,
    /// Parameters of the model.
    pub parameters: u64,
    /// Identity of the data.
    pub data_fingerprint: String,
    /// What `launch.device` stands for here; the embedded engine where it is empty.
    pub device: String,
}

/// The machine that runs the processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The worker program: this program itself.
    pub program: PathBuf,
    /// Arguments after `worker --run DIR`.
    pub extra_args: Vec<String>,
    /// Processors that the processes share.
    pub processors: usize,
    /// Port at which the processes meet; `None` takes that of the settings.
    pub master_port: Option<u16>,
}

/// One process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Number of the process, from 0.
    pub rank: usize,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set in its environment, besides the inherited ones.
    pub env: BTreeMap<String, String>,
    /// Device it computes on.
    pub device: String,
}

/// All of one stage, before it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The run folder; for a new run its id is not known yet.
    pub run: PathBuf,
    /// Numbers that only the data and the model know.
    pub facts: Facts,
    /// What a sample is made of, in the plural: see [`texts`].
    pub texts: &'static str,
    /// Batches per epoch and process.
    pub batches_per_epoch: usize,
    /// Steps of the optimiser in the whole training.
    pub total_steps: usize,
    /// Epochs.
    pub epochs: usize,
    /// Samples per step: batch × processes × accumulation.
    pub effective_batch: usize,
    /// How `effective_batch` comes about: batch, processes, accumulation.
    pub batch_factors: [usize; 3],
    /// Estimated memory of one process.
    pub memory: Memory,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Most checkpoints on disk at a time.
    pub checkpoints_kept: usize,
    /// The processes, by rank.
    pub processes: Vec<Process>,
}

/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;

/// The plan of one stage.
pub fn plan(settings: &Settings, facts: &Facts, machine: &Machine, run: &Path) -> Plan {
    let train = &settings.train;
    let world_size = settings.launch.world_size;
    let (batches_per_epoch, total_steps) = steps(settings, facts);
    Plan {
        run: run.to_path_buf(),
        facts: facts.clone(),
        texts: texts(settings),
        batches_per_epoch,
        total_steps,
        epochs: train.epochs,
        effective_batch: train.batch_size * world_size * train.gradient_accumulation_steps,
        batch_factors: [train.batch_size, world_size, train.gradient_accumulation_steps],
        memory: memory(settings, facts),
        // Weights and two moments per parameter, 32-bit floats.
        checkpoint_bytes: facts.parameters * FLOAT * 3,
        // The newest ones, the best and the first.
        checkpoints_kept: train.epochs.min(train.keep_checkpoints + 2),
        processes: (0..world_size).map(|rank| process(settings, machine, run, rank)).collect(),
    }
}

fn process(settings: &Settings, machine: &Machine, run: &Path, rank: usize) -> Process {
    let launch = &settings.launch;
    let local_rank = rank
        % launch
            .processes_per_machine(if launch.launcher == Launcher::Slurm { settings.slurm.nodes } else { 1 })
            .max(1);
    let threads = match launch.threads {
        0 => (machine.processors / launch.world_size).max(1),
        given => given,
    };
    let env = [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", local_rank.to_string()),
        ("WORLD_SIZE", launch.world_size.to_string()),
        ("MASTER_ADDR", launch.master_addr.clone()),
        ("MASTER_PORT", machine.master_port.unwrap_or(launch.master_port).to_string()),
        ("OMP_NUM_THREADS", threads.to_string()),
        ("RAYON_NUM_THREADS", threads.to_string()),
    ];
    let mut args = vec!["worker".to_string(), "--run".to_string(), run.display().to_string()];
    args.extend(machine.extra_args.iter().cloned());
    Process {
        rank,
        program: machine.program.clone(),
        args,
        env: env.into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
        device: device_of_rank(&launch.device, local_rank),
    }
}

/// What is said about the images: `captions` or `questions`.
pub fn texts(settings: &Settings) -> &'static str {
    match settings.data.dataset {
        Dataset::Vqa2 => "questions",
        _ => "captions",
    }
}

/// The needs of a stage in one line.
pub fn needs(settings: &Settings, facts: &Facts) -> String {
    let (batches, total_steps) = steps(settings, facts);
    format!(
        "{} {}, {} epochs of {} batches, {} steps, {} parameters, about {} memory per process",
        grouped(facts.train_samples),
        texts(settings),
        settings.train.epochs,
        grouped(batches),
        grouped(total_steps),
        grouped(facts.parameters),
        bytes_text(memory(settings, facts).total_bytes()),
    )
}

/// Batches per epoch and process, and steps of the optimiser in the whole training. Each process gets an equal share of
/// the samples, rounded up; the last batch may be smaller, and so may the last step of an epoch, which takes what is left.
fn steps(settings: &Settings, facts: &Facts) -> (usize, usize) {
    let train = &settings.train;
    let batches = facts.train_samples.div_ceil(settings.launch.world_size).div_ceil(train.batch_size);
    (batches, batches.div_ceil(train.gradient_accumulation_steps) * train.epochs)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        let splits: Vec<String> =
            facts.split_images.iter().map(|(name, n)| format!("{name} {}", grouped(*n))).collect();
        let [batch, processes, accumulation] = self.batch_factors;
        let mut line = |name: &str, text: String| writeln!(f, "{name:<12}{text}");
        line("images", splits.join(", "))?;
        line(
            "samples",
            format!(
                "{} {} of {} training images",
                grouped(facts.train_samples),
                self.texts,
                grouped(facts.train_images)
            ),
        )?;
        line(
            "batch",
            format!(
                "{batch} samples × {processes} process{} × {accumulation} accumulated = {}",
                if processes == 1 { "" } else { "es" },
                self.effective_batch
            ),
        )?;
        line(
            "steps",
            format!(
                "{} ({} batches per epoch and process, {} epochs)",
                grouped(self.total_steps),
                grouped(self.batches_per_epoch),
                self.epochs
            ),
        )?;
        line("parameters", format!("{}, vocabulary {}", grouped(facts.parameters), grouped(facts.vocabulary)))?;
        let Memory { state_bytes, activation_bytes, process_bytes } = self.memory;
        line(
            "memory",
            format!(
                "about {} per process ({} weights, gradients, moments; {} activations; {} program and batches)",
                bytes_text(self.memory.total_bytes()),
                bytes_text(state_bytes),
                bytes_text(activation_bytes),
                bytes_text(process_bytes)
            ),
        )?;
        line(
            "disk",
            format!(
                "about {} per checkpoint, at most {} kept: {}",
                bytes_text(self.checkpoint_bytes),
                self.checkpoints_kept,
                bytes_text(self.checkpoint_bytes * self.checkpoints_kept as u64)
            ),
        )?;
        for process in &self.processes {
            line("process", format!("rank {} on {}", process.rank, process.device))?;
            let program = process.program.file_name().unwrap_or_default().to_string_lossy();
            line("", format!("{program} {}", process.args.join(" ")))?;
            let env: Vec<String> = process.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
            line("", env.join(" "))?;
        }
        Ok(())
    }
}

/// `812 B`, `14.8 MB`, `9.3 GB`: powers of 1000.
pub fn bytes_text(bytes: u64) -> String {
    let mut out = String::new();
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    for (index, unit) in units.iter().enumerate() {
        value /= 1000.0;
        // 999.95 would be shown as 1000.0.
        if value < 999.95 || index + 1 == units.len() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{value:.1} {unit}");
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_vqa_is_a_question() {
        let facts = Facts { train_samples: 1200, train_images: 100, parameters: 1, ..Facts::default() };
        let mut settings = Settings::default();
        settings.data.dataset = Dataset::Vqa2;
        let start = "1,200 questions, 30 epochs of 19 batches, 570 steps, 1 parameters, about ";
        assert!(needs(&settings, &facts).starts_with(start), "{}", needs(&settings, &facts));
        let machine = Machine { program: "vlp".into(), extra_args: Vec::new(), processors: 1, master_port: None };
        let shown = plan(&settings, &facts, &machine, Path::new("runs/a")).to_string();
        assert!(shown.contains("samples     1,200 questions of 100 training images\n"), "{shown}");
        settings.data.dataset = Dataset::Coco;
        assert!(needs(&settings, &facts).starts_with("1,200 captions, "));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let bytes = [0, 999, 1000, 14_814_804, 999_949_999, 999_950_000, 9_300_000_000].map(bytes_text);
        assert_eq!(bytes, ["0 B", "999 B", "1.0 kB", "14.8 MB", "999.9 MB", "1.0 GB", "9.3 GB"]);
    }
}
