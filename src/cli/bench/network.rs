//! Times of the network: a training step, decoding, a self-critical step.

use burn::module::Module;
use burn::tensor::Device;

use super::Part;
use super::clock::{Clock, Row};
use super::ending::ending;
use super::world::{MASKED, World};
use crate::config::ObjectiveKind;
use crate::decode::{self, BeamSettings, Stepper};
use crate::model::{device, host_values};
use crate::train::bert_adam::BertAdam;
use crate::train::device_adam::device_gradients;
use crate::train::optimizer::Optimizer;
use crate::train::precision;
use crate::train::step::Objective;

/// Words that are decoded.
const WORDS: usize = 20;

/// Steps that the learning rate is planned for.
const STEPS: u64 = 1000;

/// A step of masked-word training: loss, gradients, optimiser, as the training loop takes it.
pub fn ce_step(world: &World, device: &Device, size: usize, repetitions: usize) -> Vec<Row> {
    let batch = world.batch(size, MASKED);
    let objective = Objective::new(&world.settings, &world.data, &world.tokenizer);
    let mut adam = optimizer(world, device);
    let graph = precision::graph(device, world.settings.train.gradient_checkpointing);
    let mut model = precision::in_graph(world.model(device), &graph);
    let mut clock = Clock::new(Part::CeStep, size);
    for repetition in 0..=repetitions {
        let loss = clock.time("forward", || {
            let loss = objective.loss(&model, &batch, 1, &graph, repetition as u64).total;
            host_values(loss.clone());
            loss
        });
        clock.time("backward", || {
            adam.add(&model, &mut loss.backward());
            wait(device);
        });
        model = clock.time("optimiser", || {
            let (model, _) = adam.step(model, None);
            wait(device);
            model
        });
    }
    let (flops, samples) = (world.flops(), size as f64);
    let forward = flops.masked(batch.text_slots, MASKED);
    clock.rows(|work| {
        let key = |what: &str| vec![format!("CE step, batch {size}: {what}")];
        match work {
            "forward" => (Some(samples * forward), key("forward")),
            "backward" => (Some(samples * flops.backward(forward)), key("backward")),
            _ => (None, key("BertAdam")),
        }
    })
}

/// The optimiser of a training of one process.
fn optimizer(world: &World, device: &Device) -> Optimizer {
    let train = &world.settings.train;
    let on_device = train.optimizer_memory.on_device(device::is_gpu(device));
    Optimizer::new(BertAdam::new(train, STEPS), on_device, device)
}

/// Until a GPU has done what it was given.
fn wait(device: &Device) {
    device.sync().expect("the device is at work");
}

/// How long the captions are that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captions {
    /// [`WORDS`] words each. Those of random weights hardly end before.
    Full,
    /// They end as those of a training batch do.
    Ending,
}

/// Greedy decoding, of [`WORDS`] words at most.
pub fn greedy(world: &World, device: &Device, size: usize, captions: Captions, repetitions: usize) -> Vec<Row> {
    decoding(world, device, captions, Part::Greedy, [size, 1], repetitions, |stepper| {
        decode::greedy(stepper, WORDS, world.layout.sep).iter().map(Vec::len).collect()
    })
}

/// Beam search, of [`WORDS`] words at most.
pub fn beam(
    world: &World,
    device: &Device,
    [size, beams]: [usize; 2],
    captions: Captions,
    repetitions: usize,
) -> Vec<Row> {
    let settings = BeamSettings {
        beam_size: beams,
        max_length: WORDS,
        min_length: 0,
        length_penalty: 0.0,
        no_repeat_ngram: 0,
        ignored: Vec::new(),
        end: world.layout.sep,
    };
    decoding(world, device, captions, Part::Beam, [size, beams], repetitions, |stepper| {
        decode::beam_search(stepper, &settings).iter().map(|found| found.frames.len()).collect()
    })
}

/// `search` gives the steps that each image took.
fn decoding(
    world: &World,
    device: &Device,
    captions: Captions,
    part: Part,
    [size, beams]: [usize; 2],
    repetitions: usize,
    search: impl Fn(Stepper) -> Vec<usize>,
) -> Vec<Row> {
    let batch = world.batch(size, MASKED);
    let (work, model) = match captions {
        Captions::Full => ("decoding", world.model(device).valid()),
        Captions::Ending => ("captions that end", ending(world, device)),
    };
    let model = model.packed();
    let mut clock = Clock::new(part, size);
    let mut steps = Vec::new();
    for _ in 0..=repetitions {
        steps = clock.time(work, || {
            let [features, positions] = world.regions(&batch, device);
            search(Stepper::new(&model, world.prompt(), features, positions))
        });
    }
    let flops = world.flops();
    let flops = steps.iter().map(|steps| flops.image() + flops.steps(*steps, beams)).sum();
    let name = if part == Part::Greedy { "greedy".to_owned() } else { format!("beam {beams}") };
    // The reference takes all steps, whether captions have ended or not.
    clock.rows(|_| (Some(flops), vec![format!("{name}, batch {size}, {WORDS} steps: {size} images")]))
}

/// A self-critical step: the loss (greedy captions, sampled captions, rewards, the pass over the texts), then the gradients.
pub fn scst(world: &World, device: &Device, size: usize, repetitions: usize) -> Vec<Row> {
    let settings = world.with_objective(ObjectiveKind::Scst);
    let batch = world.batch(size, 0);
    let objective = Objective::new(&settings, &world.data, &world.tokenizer);
    let graph = precision::graph(device, settings.train.gradient_checkpointing);
    let model = precision::in_graph(world.model(device), &graph);
    let mut clock = Clock::new(Part::Scst, size);
    for repetition in 0..=repetitions {
        let loss = clock.time("loss", || {
            let loss = objective.loss(&model, &batch, 1, &graph, repetition as u64).total;
            host_values(loss.clone());
            loss
        });
        clock.time("backward", || {
            let gradients = device_gradients(&model, &mut loss.backward());
            wait(device);
            gradients.len()
        });
    }
    let (flops, words, samples) = (world.flops(), settings.data.max_text_length + 1, size as f64);
    let with_gradient = flops.image() + flops.text(words);
    let decoded = flops.image() + 2.0 * flops.steps(words, 1);
    clock.rows(|work| {
        let key = |what: &str| format!("SCST step, batch {size}, {words} steps: {what}");
        match work {
            "loss" => (Some(samples * (decoded + with_gradient)), ["greedy", "sample", "reward"].map(key).into()),
            _ => (Some(samples * flops.backward(with_gradient)), vec![key("backward")]),
        }
    })
}
