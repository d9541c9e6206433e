//! What is read off the hidden states: masked words, answers, and the pooled vector of the region pretext loss.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};

use super::layers::{LayerNorm, Linear, exact};
use super::packed::{Packed, Then};

/// `Linear → GELU → LayerNorm` before the output matrix.
#[derive(Module, Debug)]
pub struct Transform {
    /// H → H.
    pub dense: Linear,
    /// Over H.
    pub layer_norm: LayerNorm,
}

/// The masked-word head; its output matrix is the word embedding (tied).
#[derive(Module, Debug)]
pub struct Predictions {
    /// `[V]`.
    pub bias: Param<Tensor<1>>,
    /// Before the output matrix.
    pub transform: Transform,
    /// Output matrix and bias once more, for passes without gradient.
    #[module(skip)]
    pub packed: Option<Packed>,
    /// The output matrix in a low type, for passes without gradient in that type.
    #[module(skip)]
    pub converted: Option<Tensor<2>>,
}

impl Predictions {
    /// The same head with its weights packed ([`Linear::packed`]).
    pub fn packed(self, word_embeddings: Tensor<2>) -> Self {
        let packed = Packed::of(word_embeddings, self.bias.val());
        let transform = Transform { dense: self.transform.dense.packed(), ..self.transform };
        Self { packed, transform, ..self }
    }

    /// The same head with its weights in `kind` already ([`Linear::converted`]).
    pub fn converted(self, word_embeddings: Tensor<2>, kind: DType) -> Self {
        let transform = Transform { dense: self.transform.dense.converted(kind), ..self.transform };
        Self { converted: Some(word_embeddings.cast(kind)), transform, ..self }
    }

    /// `hidden` `[…, H]`, `word_embeddings` `[V, H]` → logits `[…, V]`, in f32.
    pub fn forward<const D: usize>(&self, hidden: Tensor<D>, word_embeddings: Tensor<2>) -> Tensor<D> {
        let x = self.transform.layer_norm.forward(self.transform.dense.forward_gelu(hidden));
        if let Some(logits) = self.packed.as_ref().and_then(|packed| packed.forward(&x, Then::Nothing)) {
            return logits;
        }
        let kind = x.dtype();
        let bias = self.bias.val().cast(kind);
        let matrix = match &self.converted {
            Some(matrix) if matrix.dtype() == kind => matrix.clone(),
            _ => word_embeddings.cast(kind),
        };
        exact(burn::tensor::module::linear(x, matrix.transpose(), Some(bias)))
    }
}

/// `cls` of the published checkpoints.
#[derive(Module, Debug)]
pub struct Heads {
    /// Masked words.
    pub predictions: Predictions,
}

/// `tanh(Linear(h[CLS]))`.
#[derive(Module, Debug)]
pub struct Pooler {
    /// H → H.
    pub dense: Linear,
}

impl Pooler {
    /// `[B, H]` → `[B, H]`.
    pub fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        self.dense.forward(first).tanh()
    }
}

/// The answer head of VQA: `h[CLS] ⊙ h[SEP]` → Linear(H → 2H) → ReLU → Linear(→ answers).
#[derive(Module, Debug)]
pub struct AnswerClassifier {
    /// H → 2H.
    pub linear_0: Linear,
    /// 2H → answers.
    pub linear_2: Linear,
}

impl AnswerClassifier {
    /// `first` and `separator` `[B, H]`: hidden states at `[CLS]` and at the `[SEP]` behind the regions. → `[B, answers]`.
    pub fn forward(&self, first: Tensor<2>, separator: Tensor<2>) -> Tensor<2> {
        exact(self.linear_2.forward(relu(self.linear_0.forward(first * separator))))
    }
}

/// The answer of one question: the largest of `logits` `[A]`, the first of equal ones; answer 0 is `<unk>` and never
/// wins.
pub fn best_answer(logits: &[f32]) -> usize {
    let start = (1, f32::NEG_INFINITY);
    logits.iter().enumerate().skip(1).fold(start, |best, (i, v)| if *v > best.1 { (i, *v) } else { best }).0
}
