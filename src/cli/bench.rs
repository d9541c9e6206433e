//! `vlp bench`: how fast this machine does the work of a training and a decoding, at the sizes of the PyTorch reference's timings.
//!
//! It calls the functions that `vlp run` and `vlp eval` call, on random weights and made-up regions; what is computed is
//! not judged here (`vlp selftest` does that). Reads and writes nothing but a temporary folder.

mod clock;
mod ending;
mod flops;
mod index;
mod loading;
mod machine;
mod metrics;
mod network;
mod output;
mod reference;
mod world;

use std::path::PathBuf;

use burn::tensor::Device;
use serde::de::{IntoDeserializer, value};

use self::clock::Row;
use self::index::Index;
use self::machine::{Memory, Rates};
use self::network::Captions;
use self::reference::Reference;
use self::world::{Size, World};
use super::context::{Context, Failure, exit};
use super::heap;
use super::run::print;
use crate::config::Precision;
use crate::model::device;

/// Time this machine: training step, decoding, self-critical step, data loading, caption metrics.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to time: ce-step, greedy, beam, scst, loader, metrics, and index, which writes 5 GB; all but index when not given.
    #[arg(value_name = "PART", value_enum, hide_possible_values = true)]
    parts: Vec<Part>,
    /// Repetitions, after one that is not counted.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Device: auto, flex, tch-cpu.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Sizes: base (the paper's network and regions), tiny.
    #[arg(long, value_name = "SIZE", default_value = "base", value_enum, hide_possible_values = true)]
    size: Size,
    /// Numbers in which training steps compute: fp32, bf16, fp16.
    #[arg(long, value_name = "TYPE", default_value = "fp32", value_parser = precision)]
    precision: Precision,
    /// Training steps compute cheap values again in the backward pass.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Samples or images per batch, several after commas; those of the reference's timings when not given.
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// Beams per image, several after commas.
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    beams: Vec<u16>,
    /// Greedy search and beam search of captions that end, after 11 words; without it, of 20 words each.
    #[arg(long)]
    ending: bool,
    /// Loader threads, several after commas.
    #[arg(long, value_name = "T,…", value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// Captions for the metrics, a COCO annotations file; those of made-up scenes when not given.
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Timings of the reference (`bench_oracle.py --json FILE`, `scripts/metrics_reference.py … --json FILE`), to be compared with.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// JSON in place of tables.
    #[arg(long)]
    json: bool,
}

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A step of masked-word training.
    CeStep,
    /// Greedy decoding.
    Greedy,
    /// Beam search.
    Beam,
    /// A step of self-critical training, without the optimiser.
    Scst,
    /// Training batches from files.
    Loader,
    /// Scores of captions.
    Metrics,
    /// Finding images in their files, at the size of Conceptual Captions.
    Index,
}

impl Part {
    /// What is timed when nothing is named.
    const ALL: [Self; 6] = [Self::CeStep, Self::Greedy, Self::Beam, Self::Scst, Self::Loader, Self::Metrics];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CeStep => "ce-step",
            Self::Greedy => "greedy",
            Self::Beam => "beam",
            Self::Scst => "scst",
            Self::Loader => "loader",
            Self::Metrics => "metrics",
            Self::Index => "index",
        }
    }

    fn is_network(self) -> bool {
        matches!(self, Self::CeStep | Self::Greedy | Self::Beam | Self::Scst)
    }

    /// Samples or images per batch in the reference's timings.
    fn batch(self) -> Option<usize> {
        match self {
            Self::CeStep | Self::Loader => Some(16),
            Self::Greedy | Self::Beam => Some(20),
            Self::Scst => Some(8),
            Self::Metrics | Self::Index => None,
        }
    }
}

/// A value of `train.precision`.
fn precision(text: &str) -> Result<Precision, value::Error> {
    serde::Deserialize::deserialize(text.into_deserializer())
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    /// Name of the device.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Sizes.
    pub size: Size,
    /// Numbers of training steps.
    pub precision: Precision,
    /// Whether training steps compute cheap values again.
    pub gradient_checkpointing: bool,
    /// What the machine can do at most.
    pub rates: Rates,
    /// Times.
    pub rows: Vec<Row>,
    /// Peaks of memory.
    pub memory: Vec<Memory>,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let reference = match &args.reference {
        Some(_) if args.size != Size::Base => {
            let help = "leave out `--size`, or `--reference`";
            return Err(Failure::new(exit::CONFIG, format!("a reference has sizes of its own: base\n  help: {help}")));
        }
        Some(path) => Some(Reference::read(path)?),
        None => None,
    };
    let parts = if args.parts.is_empty() { Part::ALL.as_slice() } else { &args.parts };
    if parts.iter().any(|part| part.is_network()) {
        // As in the processes of a run.
        heap::keep_freed_memory();
    }
    let device = device::open(&args.device).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let measurements = measure(args, parts, &device, context)?;
    print(&match args.json {
        true => output::json(&measurements, reference.as_ref()),
        false => output::tables(&measurements, reference.as_ref()),
    })?;
    Ok(exit::OK)
}

fn measure(args: &Args, parts: &[Part], device: &Device, context: &Context) -> Result<Measurements, Failure> {
    let mut world = World::new(args.size)?;
    (world.settings.train.precision, world.settings.train.gradient_checkpointing) =
        (args.precision, args.gradient_checkpointing);
    let mut measurements = Measurements {
        device: device::resolve(&args.device, 1),
        threads: rayon::current_num_threads(),
        size: args.size,
        precision: args.precision,
        gradient_checkpointing: args.gradient_checkpointing,
        rates: machine::rates(device),
        rows: Vec::new(),
        memory: Vec::new(),
    };
    let reps = usize::from(args.reps);
    let captions = if args.ending { Captions::Ending } else { Captions::Full };
    for part in parts {
        if !context.quiet {
            eprintln!("{}: {} repetitions", part.name(), args.reps);
        }
        for (batch, beams) in sizes(args, *part) {
            let (size, width) = (batch.unwrap_or(1), beams.unwrap_or(1));
            let mut take = |work: &str, measure: &dyn Fn() -> Result<Vec<Row>, Failure>| {
                measurements.take(Memory::start(*part, work, batch, beams), measure)
            };
            match part {
                Part::CeStep => take("", &|| Ok(network::ce_step(&world, device, size, reps)))?,
                Part::Greedy => take("", &|| Ok(network::greedy(&world, device, size, captions, reps)))?,
                Part::Beam => take("", &|| Ok(network::beam(&world, device, [size, width], captions, reps)))?,
                Part::Scst => take("", &|| Ok(network::scst(&world, device, size, reps)))?,
                Part::Loader => take("", &|| loading::loader(&world, size, &args.threads, reps))?,
                Part::Metrics => take("", &|| metrics::metrics(args.size, args.captions.as_deref(), reps))?,
                Part::Index => {
                    let index = Index::new(&world)?;
                    take("boxes", &|| index.boxes(reps))?;
                    take("features and class scores", &|| index.regions(reps))?;
                    take("annotations", &|| index.captions(reps))?;
                }
            }
        }
    }
    Ok(measurements)
}

/// Batches and beams with which a part is timed, in turn.
fn sizes(args: &Args, part: Part) -> Vec<(Option<usize>, Option<usize>)> {
    let numbers = |given: &[u16]| given.iter().map(|n| Some(usize::from(*n))).collect::<Vec<_>>();
    let batches = match part.batch() {
        Some(_) if !args.batch.is_empty() => numbers(&args.batch),
        usual => vec![usual],
    };
    let beams = if part == Part::Beam { numbers(&args.beams) } else { vec![None] };
    batches.iter().flat_map(|batch| beams.iter().map(move |beams| (*batch, *beams))).collect()
}

impl Measurements {
    /// Adds what is measured, and the peak of memory meanwhile.
    fn take(&mut self, memory: Memory, measure: &dyn Fn() -> Result<Vec<Row>, Failure>) -> Result<(), Failure> {
        let Memory { part, batch, beams, .. } = memory;
        let rows = measure()?;
        self.rows.extend(rows.into_iter().map(|row| Row { batch, beams, ..row }));
        if let Some(mib) = machine::peak_mib() {
            let reference = (part == Part::CeStep).then(|| format!("CE step, batch {}: peak MiB", batch.unwrap_or(0)));
            self.memory.push(Memory { mib, reference, ..memory });
        }
        Ok(())
    }
}
