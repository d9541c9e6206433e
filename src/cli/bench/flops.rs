//! How many floating-point operations the matrix products of each piece of work need, as this program does it: the last block
//! where it is read only, keys and values kept while decoding. Multiplication and addition count as two.
//!
//! Shape letters: H hidden, I intermediate, R regions, S = R + 2, F feature size, C classes, V vocabulary.

use crate::config::ModelSettings;
use crate::model::DataSizes;

/// Counts for one network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flops {
    hidden: f64,
    inner: f64,
    layers: f64,
    regions: f64,
    features: f64,
    positions: f64,
    vocabulary: f64,
}

impl Flops {
    /// For `regions` regions per image.
    pub fn new(model: &ModelSettings, sizes: DataSizes, regions: usize) -> Self {
        Self {
            hidden: model.hidden_size as f64,
            inner: model.intermediate_size as f64,
            layers: model.num_hidden_layers as f64,
            regions: regions as f64,
            features: sizes.region_feature_size as f64,
            positions: (6 + sizes.num_region_classes) as f64,
            vocabulary: sizes.vocabulary as f64,
        }
    }

    /// A block at `rows` positions, of which `fresh` get keys and values, and which see `columns`.
    fn block(&self, rows: f64, fresh: f64, columns: f64) -> f64 {
        let Self { hidden: h, inner: i, .. } = *self;
        4.0 * h * h * (rows + fresh) + 4.0 * h * i * rows + 4.0 * h * rows * columns
    }

    /// All blocks, the last one at `read` of the `rows` positions.
    fn blocks(&self, rows: f64, read: f64, columns: f64) -> f64 {
        (self.layers - 1.0) * self.block(rows, rows, columns) + self.block(read, rows, columns)
    }

    /// Logits of `words` words.
    fn head(&self, words: f64) -> f64 {
        2.0 * words * self.hidden * (self.hidden + self.vocabulary)
    }

    /// The first layers over regions, whose inputs need no gradient.
    fn first(&self) -> f64 {
        2.0 * self.regions * (self.features * self.features + self.positions * self.hidden)
    }

    fn embedding(&self) -> f64 {
        self.first() + 2.0 * self.regions * self.features * self.hidden
    }

    /// Loss of a sequence of R + 2 + `text` positions with `masked` masked words.
    pub fn masked(&self, text: usize, masked: usize) -> f64 {
        let (length, masked) = (self.regions + 2.0 + text as f64, masked as f64);
        self.embedding() + self.blocks(length, masked, length) + self.head(masked)
    }

    /// Gradients of what needs `forward` operations: two products for each.
    pub fn backward(&self, forward: f64) -> f64 {
        2.0 * forward - self.first()
    }

    /// Keys and values of an image.
    pub fn image(&self) -> f64 {
        let s = self.regions + 2.0;
        self.embedding() + (self.layers - 1.0) * self.block(s, s, s) + self.block(0.0, s, 0.0)
    }

    /// `steps` steps behind an image, the first in one row, the others in `rows`.
    pub fn steps(&self, steps: usize, rows: usize) -> f64 {
        let step = |step: usize| {
            let (tokens, rows) = if step == 0 { (1.0, 1.0) } else { (2.0, rows as f64) };
            let columns = self.regions + 2.0 + step as f64 + 1.0;
            rows * (self.blocks(tokens, 1.0, columns) + self.head(1.0))
        };
        (0..steps).map(step).sum()
    }

    /// The pass over a finished text of `words` words and as many queries.
    pub fn text(&self, words: usize) -> f64 {
        let words = words as f64;
        self.blocks(2.0 * words, words, self.regions + 2.0 + 2.0 * words) + self.head(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_small_network_by_hand() {
        let model =
            ModelSettings { hidden_size: 2, num_hidden_layers: 2, intermediate_size: 3, ..ModelSettings::default() };
        let sizes = DataSizes { vocabulary: 7, region_feature_size: 5, num_region_classes: 4, answers: 0 };
        let flops = Flops::new(&model, sizes, 1);
        // 5×5, 10×2, 5×2 numbers per region; blocks of 4 and of 1 of 4 positions that see 4; 2×2 and 2×7 for the word.
        let first = 2.0 * (25.0 + 20.0);
        let block = |rows: f64| 16.0 * (rows + 4.0) + 24.0 * rows + 8.0 * rows * 4.0;
        let forward = first + 20.0 + block(4.0) + block(1.0) + 2.0 * 18.0;
        assert_eq!(flops.masked(1, 1), forward);
        assert_eq!(flops.backward(forward), 2.0 * forward - first);
        // Two steps: one token, then two in three rows.
        let blocks = |tokens: f64, columns: f64| {
            16.0 * 2.0 * tokens + 24.0 * tokens + 8.0 * tokens * columns + 16.0 * (1.0 + tokens) + 24.0 + 8.0 * columns
        };
        assert_eq!(flops.steps(2, 3), blocks(1.0, 4.0) + 36.0 + 3.0 * (blocks(2.0, 5.0) + 36.0));
    }
}
