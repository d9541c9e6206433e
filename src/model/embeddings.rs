//! From regions and words to the first hidden states (section "Model" of the paper): word, position and segment
//! embeddings, where the regions bring their own word and position parts.
//!
//! Shape letters: B batch, R regions, T sequence (`[CLS]` regions `[SEP]` text), H hidden, V vocabulary.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor};

use super::layers::{LayerNorm, Linear, Pass, dropout};

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
        let [batch, count] = ids.dims();
        let [_, num_regions, hidden] = regions.words.dims();
        let length = count + num_regions;
        let rows = |table: &Param<Tensor<2>>, ids: Tensor<2, Int>| {
            let [b, n] = ids.dims();
            table.val().select(0, ids.reshape([b * n])).reshape([b, n, hidden])
        };
        let words = rows(&self.word_embeddings, ids);
        let words = Tensor::cat(
            vec![words.clone().slice([0..batch, 0..1]), regions.words.clone(), words.slice([0..batch, 1..count])],
            1,
        );
        let table = self.position_embeddings.val();
        let places = |from: usize, to: usize| {
            table.clone().slice([from..to]).unsqueeze_dim::<3>(0).expand([batch, to - from, hidden])
        };
        let places = Tensor::cat(vec![places(0, 1), regions.places.clone(), places(num_regions + 1, length)], 1);
        let segments = rows(&self.token_type_embeddings, segments);
        dropout(self.layer_norm.forward(words + places + segments), self.dropout_prob, pass)
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
