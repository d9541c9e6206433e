//! The shared Transformer: post-LayerNorm blocks of self-attention and feed-forward layers (BERT).
//!
//! Shape letters: B batch, Q queries, K keys, H hidden, A heads, D = H / A, L layers.
//! A block is offered whole (`forward`) and in parts (`keys_values`, `attend`, `complete`) for incremental decoding.

use std::borrow::Cow;

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use super::attention;
use super::layer_gradients::LayerGradients;
use super::layers::{LayerNorm, Linear, Pass, attention_over, attention_weights, self_attention};

/// Added to the attention score of a hidden key.
pub const HIDDEN: f32 = -10_000.0;

/// Query, key and value maps.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// H → H.
    pub query: Linear,
    /// H → H.
    pub key: Linear,
    /// H → H.
    pub value: Linear,
}

/// A linear map whose result is dropped out, added to the residual and normalised.
#[derive(Module, Debug)]
pub struct ResidualOutput {
    /// To H.
    pub dense: Linear,
    /// Over H.
    pub layer_norm: LayerNorm,
}

/// The attention half of a block.
#[derive(Module, Debug)]
pub struct Attention {
    /// Projections.
    pub self_attention: SelfAttention,
    /// Output projection.
    pub output: ResidualOutput,
}

/// H → I with erf-GELU.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// H → I.
    pub dense: Linear,
}

/// One block.
#[derive(Module, Debug)]
pub struct Layer {
    /// Self-attention.
    pub attention: Attention,
    /// Feed-forward, first half.
    pub intermediate: Intermediate,
    /// Feed-forward, second half.
    pub output: ResidualOutput,
    /// A.
    pub heads: usize,
    /// Dropout on sub-layer outputs.
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities.
    pub attention_dropout_prob: f64,
}

/// Keys and values of one layer, each `[B, A, K, D]`.
#[derive(Debug, Clone)]
pub struct KeysValues {
    /// Keys.
    pub keys: Tensor<4>,
    /// Values.
    pub values: Tensor<4>,
}

impl KeysValues {
    /// The same, each in one block of memory in the order of its axes, so that no product over them copies them first.
    pub fn packed(self) -> Self {
        let pack = |t: Tensor<4>| {
            let shape = t.dims();
            t.reshape([shape.iter().product::<usize>()]).reshape(shape)
        };
        Self { keys: pack(self.keys), values: pack(self.values) }
    }
}

impl ResidualOutput {
    fn forward<const N: usize>(&self, x: Tensor<N>, residual: Tensor<N>, prob: f64, pass: Pass) -> Tensor<N> {
        self.layer_norm.forward_sum(self.dense.forward(x), residual, prob, pass)
    }
}

impl Layer {
    /// The same block with each of its linear maps changed by `change`.
    pub fn map_linear(self, change: &impl Fn(Linear) -> Linear) -> Self {
        let SelfAttention { query, key, value } = self.attention.self_attention;
        let of_output = |output: ResidualOutput| ResidualOutput { dense: change(output.dense), ..output };
        Self {
            attention: Attention {
                self_attention: SelfAttention { query: change(query), key: change(key), value: change(value) },
                output: of_output(self.attention.output),
            },
            intermediate: Intermediate { dense: change(self.intermediate.dense) },
            output: of_output(self.output),
            ..self
        }
    }

    /// `[B, T, H]` → `[B, A, T, D]`.
    fn split_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, hidden] = x.dims();
        x.reshape([batch, length, self.heads, hidden / self.heads]).swap_dims(1, 2)
    }

    /// Keys and values of `x` `[B, K, H]`.
    pub fn keys_values(&self, x: Tensor<3>) -> KeysValues {
        let projections = &self.attention.self_attention;
        KeysValues {
            keys: self.split_heads(projections.key.forward(x.clone())),
            values: self.split_heads(projections.value.forward(x)),
        }
    }

    /// Queries of `x` `[B, Q, H]`, divided by √D: `[B, A, Q, D]`.
    pub fn queries(&self, x: Tensor<3>) -> Tensor<4> {
        scaled(self.split_heads(self.attention.self_attention.query.forward(x)))
    }

    /// Softmax attention of `x` `[B, Q, H]` over `keys`; `bias` `[B, 1, Q, K]` is added to the scores, none hides nothing.
    /// → `[B, Q, H]`.
    pub fn attend(&self, x: Tensor<3>, keys: &KeysValues, bias: Option<Tensor<4>>, pass: Pass) -> Tensor<3> {
        let [batch, count, hidden] = x.dims();
        let KeysValues { keys, values } = keys;
        let prob = self.attention_dropout_prob;
        let queries = self.attention.self_attention.query.forward(x);
        let as_rows = || attention_over(&queries, [keys, values], bias.as_ref(), prob, pass);
        if let Some(context) = (!attention::applies(&queries, prob, pass)).then(as_rows).flatten() {
            return context;
        }
        let queries = self.split_heads(queries); // [B, A, Q, D]
        let context = match attention::in_one_call(&queries, keys, values, bias.as_ref(), prob, pass) {
            Some(context) => context,
            None => {
                let scores = scaled(queries).matmul(keys.clone().transpose()); // [B, A, Q, K]
                attention_weights(scores, bias, prob, pass).cast(values.dtype()).matmul(values.clone())
            }
        };
        context.swap_dims(1, 2).reshape([batch, count, hidden])
    }

    /// Everything after the attention: `context` and the block's input `x`, both `[…, H]` → `[…, H]`.
    pub fn complete<const N: usize>(&self, context: Tensor<N>, x: Tensor<N>, pass: Pass) -> Tensor<N> {
        let prob = self.hidden_dropout_prob;
        let x = self.attention.output.forward(context, x, prob, pass);
        let y = self.intermediate.dense.forward_gelu(x.clone());
        self.output.forward(y, x, prob, pass)
    }

    /// The block over `x` `[B, T, H]` with `bias` `[B, 1, T, T]` (row = query).
    pub fn forward(&self, x: Tensor<3>, bias: Tensor<4>, pass: Pass) -> Tensor<3> {
        let SelfAttention { query, key, value } = &self.attention.self_attention;
        let (maps, prob) = ([query, key, value], self.attention_dropout_prob);
        let at_once = || self_attention(maps, &x, &bias, self.heads, prob, pass);
        let context = match (!attention::applies(&x, prob, pass)).then(at_once).flatten() {
            Some(context) => context,
            None => {
                let keys = self.keys_values(x.clone());
                self.attend(x.clone(), &keys, Some(bias), pass)
            }
        };
        self.complete(context, x, pass)
    }

    /// The block's output at some rows only: `rows` `[B·Q]` index the flattened `[B·T]` positions. → `[B, Q, H]`.
    fn forward_rows(&self, x: Tensor<3>, bias: Tensor<4>, rows: Tensor<1, Int>, pass: Pass) -> Tensor<3> {
        let [batch, length, hidden] = x.dims();
        let count = rows.dims()[0] / batch;
        let keys = self.keys_values(x.clone());
        let x = x.reshape([batch * length, hidden]).select(0, rows.clone()).reshape([batch, count, hidden]);
        let bias = bias.reshape([batch * length, length]).select(0, rows).reshape([batch, 1, count, length]);
        let context = self.attend(x.clone(), &keys, Some(bias), pass);
        self.complete(context, x, pass)
    }
}

/// Queries `[B, A, Q, D]` divided by √D.
fn scaled(queries: Tensor<4>) -> Tensor<4> {
    let size = queries.dims()[3] as f64;
    queries.div_scalar(size.sqrt())
}

/// The stack of blocks.
#[derive(Module, Debug)]
pub struct Encoder {
    /// L blocks.
    pub layer: Vec<Layer>,
    /// Hands out the gradients of the blocks early, for several processes that train together.
    #[module(skip)]
    pub gradients: Option<LayerGradients>,
}

impl Encoder {
    /// Block `index` and its input `x` `[B, T, H]` as they are to be computed, so that its gradients come out early where somebody waits for them.
    pub fn block(&self, index: usize, x: Tensor<3>) -> (Cow<'_, Layer>, Tensor<3>) {
        let layer = &self.layer[index];
        match self.gradients.as_ref().and_then(|gradients| gradients.enter(index, layer, &x)) {
            Some((layer, x)) => (Cow::Owned(layer), x),
            None => (Cow::Borrowed(layer), x),
        }
    }

    /// The first `count` blocks.
    fn blocks(&self, count: usize, x: Tensor<3>, bias: &Tensor<4>, pass: Pass) -> Tensor<3> {
        (0..count).fold(x, |x, index| {
            let (layer, x) = self.block(index, x);
            layer.forward(x, bias.clone(), pass)
        })
    }

    /// `x` `[B, T, H]`, `bias` `[B, 1, T, T]` → `[B, T, H]`.
    pub fn forward(&self, x: Tensor<3>, bias: Tensor<4>, pass: Pass) -> Tensor<3> {
        self.blocks(self.layer.len(), x, &bias, pass)
    }

    /// As [`Encoder::forward`], but the last block computes the rows that are read, and only those: `rows` `[B, Q]`
    /// are positions in each sequence. → `[B, Q, H]`.
    pub fn forward_rows(&self, x: Tensor<3>, bias: Tensor<4>, rows: Tensor<2, Int>, pass: Pass) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let [_, count] = rows.dims();
        let Some(last) = self.layer.len().checked_sub(1) else { return x };
        let (last, x) = self.block(last, self.blocks(last, x, &bias, pass));
        let starts = Tensor::<1, Int>::arange(0..batch as i64, &rows.device()).mul_scalar(length as i64);
        let rows = (rows + starts.unsqueeze_dim::<2>(1)).reshape([batch * count]);
        last.forward_rows(x, bias, rows, pass)
    }
}

/// Additive attention bias from a 0/1 mask `[B, T, T]` (row = query): 0 where visible, −10,000 where hidden; `[B, 1, T, T]`.
pub fn attention_bias(mask: Tensor<3>) -> Tensor<4> {
    mask.neg().add_scalar(1.0).mul_scalar(HIDDEN).unsqueeze_dim(1)
}
