//! Visual question answering: binary cross entropy of every answer against its soft score, bidirectional mask.
//!
//! Shape letters: B batch, R regions, T sequence, H hidden, A answers. Loss: mean over B·A, times A (section 4.2 of the
//! paper; the masked-word loss of this task is not computed, the reference throws it away).

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::masked::{MaskedInputs, region_loss};
use crate::model::Vlp;
use crate::model::heads::AnswerClassifier;
use crate::model::layers::Pass;

/// The loss and what it was computed from.
#[derive(Debug, Clone)]
pub struct AnswerLoss {
    /// What is minimised, `[1]`.
    pub total: Tensor<1>,
    /// Masked regions, `[1]`, where asked for.
    pub regions: Option<Tensor<1>>,
    /// Logits `[B, A]`.
    pub logits: Tensor<2>,
}

/// Loss of a batch against `scores` `[B, A]` (0 to 1); the masked words of `inputs` are not read.
pub fn answer_loss(
    model: &Vlp,
    classifier: &AnswerClassifier,
    inputs: &MaskedInputs,
    scores: Tensor<2>,
    pass: Pass,
) -> AnswerLoss {
    let embedded = model.regions(inputs.features.clone(), inputs.positions.clone(), pass);
    let masked = !inputs.masked_regions.is_empty();
    let seen = if masked { embedded.hide(&inputs.masked_regions) } else { embedded.clone() };
    let (ids, segments) = (inputs.ids.clone(), inputs.segments.clone());
    let [first, separator] = model.image_ends(ids, segments, &seen, inputs.bias.clone(), pass);
    let logits = classifier.forward(first.clone(), separator);
    let answers = binary_cross_entropy(logits.clone(), scores);
    let regions = masked.then(|| region_loss(&embedded, model.bert.pooler.forward(first), &inputs.masked_regions));
    let total = match &regions {
        None => answers,
        Some(regions) => answers + regions.clone(),
    };
    AnswerLoss { total, regions, logits }
}

/// Mean over the batch of the sum over the answers, from logits: max(x, 0) − x·y + ln(1 + e^(−|x|)).
fn binary_cross_entropy(logits: Tensor<2>, scores: Tensor<2>) -> Tensor<1> {
    let answers = logits.dims()[1] as f64;
    let tail = logits.clone().abs().neg().exp().log1p();
    (relu(logits.clone()) - logits * scores + tail).mean().mul_scalar(answers)
}
