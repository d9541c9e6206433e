//! `vlp bench`: how fast this machine does the work of a training and a decoding, at the sizes of the PyTorch reference's timings.
//!
//! It calls the functions that `vlp run` and `vlp eval` call, on random weights and made-up regions; what is computed is
//! not judged here (`vlp selftest` does that). Reads and writes nothing but a temporary folder.

mod clock;
mod flops;
mod loading;
mod machine;
mod network;
mod output;
mod reference;
mod world;

use std::path::PathBuf;

use burn::tensor::Device;

use self::clock::Row;
use self::machine::{Memory, Rates};
use self::reference::Reference;
use self::world::{Size, World};
use super::context::{Context, Failure, exit};
use super::run::print;
use crate::model::device;

/// Time this machine: training step, decoding, self-critical step, data loading.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to time: ce-step, greedy, beam, scst, loader; all when not given.
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
    /// Samples or images per batch; those of the reference's timings when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Beams per image.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    beams: u16,
    /// Timings of the PyTorch reference (`bench_oracle.py --json FILE`), to be compared with.
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
    /// Training batches from files, by one thread.
    Loader,
}

impl Part {
    const ALL: [Self; 5] = [Self::CeStep, Self::Greedy, Self::Beam, Self::Scst, Self::Loader];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CeStep => "ce-step",
            Self::Greedy => "greedy",
            Self::Beam => "beam",
            Self::Scst => "scst",
            Self::Loader => "loader",
        }
    }

    /// Samples or images per batch in the reference's timings.
    fn batch(self) -> usize {
        match self {
            Self::CeStep | Self::Loader => 16,
            Self::Greedy | Self::Beam => 20,
            Self::Scst => 8,
        }
    }
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
    let device = device::open(&args.device).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let measurements = measure(args, &device, context)?;
    print(&match args.json {
        true => output::json(&measurements, reference.as_ref()),
        false => output::tables(&measurements, reference.as_ref()),
    })?;
    Ok(exit::OK)
}

fn measure(args: &Args, device: &Device, context: &Context) -> Result<Measurements, Failure> {
    let world = World::new(args.size)?;
    let mut measurements = Measurements {
        device: device::resolve(&args.device, 1),
        threads: rayon::current_num_threads(),
        size: args.size,
        rates: machine::rates(device),
        rows: Vec::new(),
        memory: Vec::new(),
    };
    for part in if args.parts.is_empty() { Part::ALL.as_slice() } else { &args.parts } {
        if !context.quiet {
            eprintln!("{}: {} repetitions", part.name(), args.reps);
        }
        machine::forget_peak();
        let batch = args.batch.map_or(part.batch(), usize::from);
        let (reps, beams) = (usize::from(args.reps), usize::from(args.beams));
        measurements.rows.extend(match part {
            Part::CeStep => network::ce_step(&world, device, batch, reps),
            Part::Greedy => network::greedy(&world, device, batch, reps),
            Part::Beam => network::beam(&world, device, batch, beams, reps),
            Part::Scst => network::scst(&world, device, batch, reps),
            Part::Loader => loading::loader(&world, batch, reps)?,
        });
        if let Some(mib) = machine::peak_mib() {
            let reference = (*part == Part::CeStep).then(|| format!("CE step, batch {batch}: peak MiB"));
            measurements.memory.push(Memory { part: *part, mib, reference });
        }
    }
    Ok(measurements)
}
