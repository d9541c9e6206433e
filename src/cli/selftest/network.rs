//! Self-test of the network: checkpoint, outputs, losses, gradients, optimiser steps, self-critical training.
//!
//! Tolerances are those of the golden data, for f32.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use super::check::{Check, EXACT, Tolerance, share, within};
use super::golden::{self, Arrays, Fixture, GoldenError, World};
use crate::config::TrainSettings;
use crate::decode::encode_image;
use crate::model::layers::Pass;
use crate::model::{Vlp, host_floats, host_values};
use crate::train::bert_adam::{BertAdam, HostGradients, host_gradients, reference_norm};
use crate::train::objective::{
    MaskedOptions, SampledInputs, answer_loss, best_answer, masked_loss, reward_loss, text_log_probs, text_places,
};

const HIDDEN: Tolerance = within(2e-5);
const LOGITS: Tolerance = within(5e-5);
const LOSS: Tolerance = Tolerance { absolute: 1e-9, relative: 1e-5 };
const GRADIENT: Tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
const GRADIENT_NORM: Tolerance = Tolerance { absolute: 1e-9, relative: 1e-4 };
/// Softmax does not see the bias of the keys: its gradient is rounding noise, which Adam turns into steps.
const NOISE: &str = "attention.self.key.bias";

/// What a pass over a batch must give.
#[derive(Debug, Clone, Deserialize)]
pub struct Expected {
    flags: Flags,
    /// Of the whole loss.
    pub loss: f64,
    /// By parameter; null where it gets no gradient.
    grad_norms: BTreeMap<String, Option<f64>>,
    answers: Option<Vec<u32>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Flags {
    mask_regions: bool,
    drop_worst: f64,
    smoothing: f64,
    task: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Steps {
    lr: f64,
    warmup: f64,
    t_total: u64,
    b1: f64,
    b2: f64,
    e: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    loss_scale: f64,
    losses: Vec<f64>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    lr: f64,
    checksums: BTreeMap<String, Sums>,
}

/// Of a parameter's values.
#[derive(Debug, Deserialize)]
struct Sums {
    sum: f64,
    abs_sum: f64,
    norm: f64,
}

/// All checks of this file; `device` does not record gradients.
pub fn checks(world: &World, device: &Device) -> Result<Vec<Check>, GoldenError> {
    let device = device.clone().autodiff();
    let (model, left) = world.model(&device)?;
    let mut checks = vec![outputs(world, &model, &device)?];
    for (name, batch, expected) in golden::LOSSES {
        checks.extend(loss(name, world, &model, &batch.arrays()?, &expected.json()?, &device)?);
    }
    checks.extend(self_critical(world, &model, &device)?);
    let steps: Steps = golden::STEPS.json()?;
    let mut read = Check::new("checkpoint: parameters");
    read.number(|| "parameters without values".into(), left.missing.len() as f64, 0.0, EXACT);
    read.number(|| "tensors without a parameter".into(), left.unexpected.len() as f64, 0.0, EXACT);
    // The first step has a learning rate of 0: what comes after it is what was read.
    steps.steps.iter().take_while(|step| step.lr == 0.0).for_each(|step| sums(&mut read, "", &model, step));
    checks.insert(0, read);
    checks.extend(optimiser(world, model, &steps, &device)?);
    Ok(checks)
}

/// Hidden states, pooled vector and logits of a batch with both kinds of masks.
fn outputs(world: &World, model: &Vlp, device: &Device) -> Result<Check, GoldenError> {
    let [batch, golden] = golden::MIXED;
    let (inputs, golden) = (world.inputs(&batch.arrays()?, false, device)?, golden.arrays()?);
    let regions = model.regions(inputs.features.clone(), inputs.positions.clone(), Pass::Evaluate);
    let (ids, segments) = (inputs.ids.clone(), inputs.segments.clone());
    let hidden = model.encode(ids, segments, &regions, inputs.bias.clone(), Pass::Evaluate);
    let [size, _, width] = hidden.dims();
    let first: Tensor<2> = hidden.clone().slice([0..size, 0..1, 0..width]).reshape([size, width]);
    let logits = masked_loss(model, &inputs, MaskedOptions::default(), Pass::Evaluate).logits;
    let mut check = Check::new("mixed: hidden states and logits");
    let found = [
        ("sequence_output", 3, HIDDEN, host_values(hidden)),
        ("pooled_output", 2, HIDDEN, host_values(model.bert.pooler.forward(first))),
        ("masked_logits", 3, LOGITS, logits.map(host_values).unwrap_or_default()),
    ];
    for (name, axes, tolerance, values) in found {
        check.numbers(name, &values, &golden.get(name, axes)?.values, tolerance);
    }
    Ok(check)
}

/// Loss and gradient norms of one variant.
pub fn loss(
    name: &str,
    world: &World,
    model: &Vlp,
    batch: &Arrays,
    expected: &Expected,
    device: &Device,
) -> Result<Vec<Check>, GoldenError> {
    let Flags { mask_regions, drop_worst, smoothing: label_smoothing, task } = &expected.flags;
    let inputs = world.inputs(batch, *mask_regions, device)?;
    let mut checks = vec![Check::new(format!("{name}: loss"))];
    let total = match &model.ans_classifier {
        Some(classifier) if task.as_deref() == Some("vqa2") => {
            let scores = batch.get("answer_scores", 2)?.tensor(device);
            let answers = scores.dims()[1];
            let found = answer_loss(model, classifier, &inputs, scores, Pass::Evaluate);
            let best = host_values(found.logits).chunks(answers).map(|row| best_answer(row) as u32).collect::<Vec<_>>();
            if let Some(golden) = &expected.answers {
                let mut answers = Check::new(format!("{name}: answers"));
                answers.words("answers", &best, golden);
                checks.push(answers);
            }
            found.total
        }
        _ => {
            let options = MaskedOptions { label_smoothing: *label_smoothing, drop_worst: *drop_worst };
            masked_loss(model, &inputs, options, Pass::Evaluate).total
        }
    };
    checks[0].numbers("loss", &host_values(total.clone()), &[expected.loss], LOSS);
    if !expected.grad_norms.is_empty() {
        let gradients = host_gradients(model, &mut total.backward());
        let mut norms = Check::new(format!("{name}: gradient norms"));
        gradient_norms(&mut norms, &gradients, &expected.grad_norms);
        checks.push(norms);
    }
    Ok(checks)
}

/// Norm by norm; a gradient on one side only counts as infinitely far.
fn gradient_norms(check: &mut Check, gradients: &HostGradients, golden: &BTreeMap<String, Option<f64>>) {
    for (name, golden) in golden {
        let at = || format!("norm of {name}");
        match (gradients.get(name).map(|g| reference_norm(g)), golden) {
            (Some(ours), Some(golden)) if name.ends_with(NOISE) => check.number(at, ours, *golden, within(1e-5)),
            (Some(ours), Some(golden)) => check.number(at, ours, *golden, GRADIENT_NORM),
            (ours, golden) => {
                let there = |side: bool| f64::from(u8::from(side));
                check.number(|| format!("presence of {name}"), there(ours.is_some()), there(golden.is_some()), EXACT);
            }
        }
    }
}

/// Log-probabilities of given draws, the loss for given rewards, and its gradients, some of them whole.
fn self_critical(world: &World, model: &Vlp, device: &Device) -> Result<Vec<Check>, GoldenError> {
    #[derive(Deserialize)]
    struct Info {
        loss: f64,
        grad_norms: BTreeMap<String, Option<f64>>,
    }
    let [info, golden] = golden::SELF_CRITICAL;
    let (info, golden): (Info, _) = (info.json()?, golden.arrays()?);
    let (features, positions) = world.regions(&golden.integers("image"), device);
    let (draws, paired) = (golden.get("draws", 2)?, golden.get("gt_ids", 2)?.words());
    let (width, draws) = (draws.shape[1], draws.words());
    // The places of a text know the length of the paired caption.
    let length = |row: &[u32]| row.iter().position(|word| *word == world.prompt.pad).unwrap_or(width);
    let horizons: Vec<usize> = paired.chunks(width).map(length).collect();
    let (segments, visible) = text_places(horizons.len(), width, Some(&horizons));
    let inputs = SampledInputs { draws: &draws, segments: &segments, visible: &visible };
    let image = encode_image(model, world.prompt, features, positions, Pass::Evaluate);
    let log_probs = text_log_probs(model, world.prompt, &image, &inputs, Pass::Evaluate);
    let mut values = Check::new("scst: log-probabilities and loss");
    values.numbers("draws", &host_values(log_probs.clone()), &golden.get("draw_logprobs", 2)?.values, within(5e-5));
    let captions = golden.get("sampled_cut", 2)?.words();
    let loss = reward_loss(log_probs, &captions, &golden.get("reward", 1)?.values, world.prompt.pad);
    values.numbers("loss", &host_values(loss.clone()), &[info.loss], within(1e-5));
    let gradients = host_gradients(model, &mut loss.backward());
    let mut check = Check::new("scst: gradients");
    gradient_norms(&mut check, &gradients, &info.grad_norms);
    for (name, whole) in golden.under("grad.") {
        let ours = gradients.get(name).map(Vec::as_slice).unwrap_or_default();
        check.numbers(name, ours, &whole.values, if name.ends_with(NOISE) { within(1e-6) } else { GRADIENT });
    }
    Ok(vec![values, check])
}

/// BertAdam over the golden steps: losses before each, sums of all parameters after it.
fn optimiser(world: &World, mut model: Vlp, golden: &Steps, device: &Device) -> Result<Vec<Check>, GoldenError> {
    let settings = TrainSettings {
        learning_rate: golden.lr,
        warmup_proportion: golden.warmup,
        weight_decay: golden.weight_decay,
        beta1: golden.b1,
        beta2: golden.b2,
        epsilon: golden.e,
        max_grad_norm: golden.max_grad_norm,
        ..TrainSettings::default()
    };
    let mut adam = BertAdam::new(&settings, golden.t_total);
    let (mut losses, mut after) = (Check::new("optimiser: rates and losses"), Check::new("optimiser: parameters"));
    let batches = golden::STEP_BATCHES.iter().map(Fixture::arrays).collect::<Result<Vec<_>, _>>()?;
    for (i, (step, loss)) in golden.steps.iter().zip(&golden.losses).enumerate() {
        losses.number(|| format!("rate of step {i}"), adam.learning_rate(i as u64), step.lr, within(1e-12));
        let inputs = world.inputs(&batches[i % batches.len()], false, device)?;
        let total = masked_loss(&model, &inputs, MaskedOptions::default(), Pass::Evaluate).total;
        losses.numbers(&format!("loss of step {i}"), &host_values(total.clone()), &[*loss], share(1e-4));
        let gradients = host_gradients(&model, &mut total.mul_scalar(golden.loss_scale).backward());
        model = adam.step(model, gradients).0;
        sums(&mut after, &format!("step {i}: "), &model, step);
    }
    Ok(vec![losses, after])
}

/// Sum and norm of every parameter.
fn sums(check: &mut Check, when: &str, model: &Vlp, step: &Step) {
    for parameter in model.parameters().into_iter().filter(|p| !p.name.ends_with(NOISE)) {
        let Some(Sums { sum, abs_sum, norm }) = step.checksums.get(&parameter.name) else { continue };
        let (name, values) = (parameter.name, host_floats(parameter.data));
        let (ours, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), v| {
            let v = f64::from(*v);
            (sum + v, squares + v * v)
        });
        check.number(|| format!("{when}sum of {name}"), ours, *sum, within(2e-6 * abs_sum));
        check.number(|| format!("{when}norm of {name}"), f64::sqrt(squares), *norm, share(1e-6));
    }
}
