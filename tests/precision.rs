//! Low precision and gradient checkpointing on the golden model: how far losses and gradients are from those in fp32, what stays fp32,
//! and what an overflow does.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use burn::module::Module;
use burn::tensor::{DType, Device};
use support::{arrays, cases, golden_dir, json};
use vlp::config::{Precision, TrainSettings};
use vlp::model::host_values;
use vlp::train::bert_adam::{BertAdam, HostGradients, host_gradients};
use vlp::train::precision::{LossScale, dtype, graph, in_graph};

/// Loss and gradients of the first golden batch of training, the loss scaled by `scale`.
fn first_step(device: &Device, kind: DType, checkpointing: bool, scale: f64) -> (f32, HostGradients) {
    let root = golden_dir();
    let folder = root.join("train_curve");
    let images = world::images(&root);
    let case = cases(&folder, ".json").remove(0);
    let info = json(&folder.join(format!("{case}.json")));
    let first = &info["batches"][0];
    let name = first["file"].as_str().or(first.as_str()).unwrap().trim_end_matches(".safetensors");
    let batch = arrays(&folder.join(format!("{name}.safetensors")));
    let flags = if first["flags"].is_null() { &info["flags"] } else { &first["flags"] };

    let graph = graph(device, checkpointing);
    let model = in_graph(world::model(device).train(), &graph);
    let mut inputs = world::inputs_for(&batch, &images, flags, &graph);
    inputs.features = inputs.features.cast(kind);
    inputs.positions = inputs.positions.cast(kind);
    let (loss, _) = world::loss(&model, &batch, &inputs, flags);
    assert_eq!(loss.dtype(), DType::F32);
    let value = host_values(loss.clone())[0];
    let mut gradients = loss.mul_scalar(scale).backward();
    (value, host_gradients(&model, &mut gradients))
}

/// ‖a − b‖ / ‖b‖ over all parameters.
fn distance(a: &HostGradients, b: &HostGradients) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = || a.values().flatten().zip(b.values().flatten()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let difference: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    (difference / pairs().map(|(_, b)| b * b).sum::<f64>()).sqrt()
}

#[test]
fn low_precision_stays_near_fp32() {
    for (name, device) in world::devices() {
        let (exact, exact_gradients) = first_step(&device, DType::F32, false, 1.0);
        // Half a unit in the last place is 2⁻⁹ for bfloat16 and 2⁻¹² for fp16; a few layers multiply it.
        for (precision, loss_bound, gradient_bound) in [(Precision::Bf16, 1e-2, 5e-2), (Precision::Fp16, 1e-3, 1e-2)] {
            let mut scale = LossScale { factor: 1024.0, good_steps: 0 };
            let (loss, mut gradients) = first_step(&device, dtype(precision), false, scale.factor);
            scale.remove_from(&mut gradients);
            assert!(scale.update(&gradients), "{name} {precision:?}: gradients are not finite");
            let relative = f64::from((loss - exact).abs() / exact);
            let apart = distance(&gradients, &exact_gradients);
            eprintln!("{name} {precision:?}: loss {relative:.1e}, gradients {apart:.1e} from fp32");
            assert!(relative <= loss_bound, "{name} {precision:?}: loss {loss}, in fp32 {exact}");
            assert!(apart <= gradient_bound, "{name} {precision:?}: gradients are {apart} from fp32");
            assert!(apart > 0.0, "{name} {precision:?}: the low type was not used");
        }
    }
}

#[test]
fn parameters_stay_fp32_and_small_steps_are_kept() {
    for (name, device) in world::devices() {
        let settings = TrainSettings { learning_rate: 1e-6, warmup_proportion: 0.0, ..TrainSettings::default() };
        let (_, gradients) = first_step(&device, DType::BF16, false, 1.0);
        let model = world::model(&device);
        let before = model.parameters();
        let (model, _) = BertAdam::new(&settings, 1000).step(model, gradients);
        let mut moved = 0;
        for (old, new) in before.iter().zip(model.parameters()) {
            assert_eq!(new.data.dtype(), DType::F32, "{name} {}", new.name);
            moved += usize::from(old.data.as_bytes() != new.data.as_bytes());
        }
        // In bfloat16 a change of 10⁻⁶ would be lost beside weights of 10⁻².
        assert!(moved > before.len() / 2, "{name}: {moved} of {} parameters moved", before.len());
    }
}

#[test]
fn an_overflow_in_fp16_is_seen_and_halves_the_scale() {
    for (name, device) in world::devices() {
        let mut scale = LossScale { factor: 2f64.powi(32), good_steps: 7 };
        let (loss, mut gradients) = first_step(&device, DType::F16, false, scale.factor);
        assert!(loss.is_finite());
        scale.remove_from(&mut gradients);
        assert!(!scale.update(&gradients), "{name}: gradients scaled by 2³² fit into fp16");
        assert_eq!(scale, LossScale { factor: 2f64.powi(31), good_steps: 0 });
    }
}

#[test]
fn checkpointing_changes_neither_loss_nor_gradients() {
    for (name, device) in world::devices() {
        assert!(
            graph(&device, true).gradient_checkpointing_strategy()
                != graph(&device, false).gradient_checkpointing_strategy()
        );
        let (loss, gradients) = first_step(&device, DType::F32, false, 1.0);
        let (again, same) = first_step(&device, DType::F32, true, 1.0);
        // Steps that are fused on the CPU are composed where they are computed twice: the same up to rounding.
        assert!((loss - again).abs() <= 1e-6 * loss, "{name}: {loss} and {again}");
        let apart = distance(&same, &gradients);
        assert!(apart <= 1e-6, "{name}: gradients are {apart} apart");
    }
}
