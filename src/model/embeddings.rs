//! From regions and words to the first hidden states (section "Model" of the paper): word, position and segment
//! embeddings, where the regions bring their own word and position parts.
//!
//! Shape letters: B batch, R regions, T sequence (`[CLS]` regions `[SEP]` text), H hidden, V vocabulary.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor};

use super::layers::{LayerNorm, Linear, Pass, dropout, exact};
use super::transfer::{floats, integers};

/// BERT's embedding tables.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[V, H]`, also the output matrix of the masked-word head.
    pub word_embeddings: Param<Tensor<2>>,
    /// `[positions, H]`.
    pub position_embeddings: Param<Tensor<2>>,
    /// `[segments, H]`.
    pub token_type_embeddings: Param<Tensor<2>>,
    /// Over H.
    pub layer_norm: LayerNorm,
    /// Dropout on the sum.
    pub dropout_prob: f64,
}

/// The embedded regions of a batch.
#[derive(Debug, Clone)]
pub struct RegionStates {
    /// In place of the word embedding, `[B, R, H]`.
    pub words: Tensor<3>,
    /// In place of the position embedding, `[B, R, H]`.
    pub places: Tensor<3>,
}

impl RegionStates {
    /// Zeroes the embeddings of some regions, which stay visible to attention as in the reference. `hidden` `[B·M]` are
    /// positions in the sequence, 1 to R.
    pub fn hide(&self, hidden: &[i64]) -> Self {
        let [batch, num_regions, _] = self.words.dims();
        let per_sample = hidden.len() / batch;
        let mut keep = vec![1f32; batch * num_regions];
        for (i, place) in hidden.iter().enumerate() {
            keep[i / per_sample * num_regions + *place as usize - 1] = 0.0;
        }
        let keep = floats(keep, [batch, num_regions, 1], &self.words.device()).cast(self.words.dtype());
        Self { words: self.words.clone() * keep.clone(), places: self.places.clone() * keep }
    }
}

impl Embeddings {
    /// Hidden states of whole sequences.
    ///
    /// `ids` `[B, 1 + T − R − 1]`: the tokens that are not regions, i.e. `[CLS]`, `[SEP]` and the text;
    /// `segments` `[B, T]`. → `[B, T, H]`.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        segments: Tensor<2, Int>,
        regions: &RegionStates,
        pass: Pass,
    ) -> Tensor<3> {
        let from = regions.words.dims()[1] as i64 + 1;
        let places: Vec<i64> = (from..from + ids.dims()[1] as i64 - 1).collect();
        self.forward_at(ids, segments, regions, &places, pass)
    }

    /// As [`Embeddings::forward`], with the positions of the tokens behind the regions given (`[SEP]` first, T − R − 1).
    pub fn forward_at(
        &self,
        ids: Tensor<2, Int>,
        segments: Tensor<2, Int>,
        regions: &RegionStates,
        places: &[i64],
        pass: Pass,
    ) -> Tensor<3> {
        let [batch, count] = ids.dims();
        let hidden = regions.words.dims()[2];
        let rows = |table: &Param<Tensor<2>>, ids: Tensor<2, Int>| {
            let [b, n] = ids.dims();
            table.val().select(0, ids.reshape([b * n])).reshape([b, n, hidden])
        };
        let words = rows(&self.word_embeddings, ids);
        let words = Tensor::cat(
            vec![
                words.clone().slice([0..batch, 0..1]),
                exact(regions.words.clone()),
                words.slice([0..batch, 1..count]),
            ],
            1,
        );
        let table = self.position_embeddings.val();
        let at = |places: &[i64]| {
            let index = integers(places, [places.len()], &table.device());
            table.clone().select(0, index).unsqueeze_dim::<3>(0).expand([batch, places.len(), hidden])
        };
        let places = Tensor::cat(vec![at(&[0]), exact(regions.places.clone()), at(places)], 1);
        let segments = rows(&self.token_type_embeddings, segments);
        let sum = dropout(self.layer_norm.forward(words + places + segments), self.dropout_prob, pass);
        sum.cast(regions.words.dtype())
    }

    /// Hidden states of single text tokens, one row each: `ids`, `places` and `segments` `[N]` → `[N, H]`. No dropout.
    pub fn tokens(&self, ids: Tensor<1, Int>, places: Tensor<1, Int>, segments: Tensor<1, Int>) -> Tensor<2> {
        let sum = self.word_embeddings.val().select(0, ids)
            + self.position_embeddings.val().select(0, places)
            + self.token_type_embeddings.val().select(0, segments);
        self.layer_norm.forward(sum)
    }
}

/// `Linear → ReLU → Linear → ReLU → Dropout` over region features; takes the place of word embeddings.
#[derive(Module, Debug)]
pub struct VisEmbed {
    /// features → features; the detector's fc7.
    pub linear_0: Linear,
    /// features → H.
    pub linear_2: Linear,
    /// Dropout on the result.
    pub dropout_prob: f64,
}

impl VisEmbed {
    /// `[B, R, features]` → `[B, R, H]`.
    pub fn forward(&self, features: Tensor<3>, pass: Pass) -> Tensor<3> {
        let x = relu(self.linear_0.forward(features));
        dropout(relu(self.linear_2.forward(x)), self.dropout_prob, pass)
    }
}

/// `Linear → ReLU → Dropout` over box geometry and class scores; takes the place of position embeddings.
#[derive(Module, Debug)]
pub struct VisPeEmbed {
    /// 6 + classes → H.
    pub linear_0: Linear,
    /// Dropout on the result.
    pub dropout_prob: f64,
}

impl VisPeEmbed {
    /// `[B, R, 6 + classes]` → `[B, R, H]`.
    pub fn forward(&self, positions: Tensor<3>, pass: Pass) -> Tensor<3> {
        dropout(relu(self.linear_0.forward(positions)), self.dropout_prob, pass)
    }
}
