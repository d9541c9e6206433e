//! CIDEr (Vedantam et al., CVPR 2015) as the COCO caption tools compute it: the clipped, length-penalised form that the paper calls CIDEr-D.
//!
//! Works on words that are already numbers, with document frequencies taken from the references of the scored batch, so it serves both the
//! evaluation of a split and the reward of self-critical training. It does not tokenise, and it has no stemming.

use rayon::prelude::*;

use super::ngram::{Counts, Key, MAX_ORDER, NgramCounts, for_each_common};
use super::numbers::Numbers;

/// Width of the Gaussian length penalty, in bigrams.
const SIGMA: f64 = 6.0;
/// Scale of the published scores.
const SCALE: f64 = 10.0;

/// Weights of n-grams from the number of documents (images, each with all its references) that hold them.
#[derive(Debug, Clone, Default)]
pub struct DocumentFrequencies<K = u128> {
    documents: usize,
    orders: [Weights<K>; MAX_ORDER],
}

/// The n-grams of one order that occur in a document: a number for each, and weights by number.
#[derive(Debug, Clone, Default)]
struct Weights<K> {
    numbers: Numbers<K>,
    weights: Vec<f64>,
}

/// The weights of the documents' own n-grams, so that they need not be looked up again.
#[derive(Debug, Default)]
pub(crate) struct OwnWeights {
    /// By order: document after document, each n-gram of each reference in turn.
    by_order: [Vec<f64>; MAX_ORDER],
    /// Where each document begins.
    starts: Vec<[usize; MAX_ORDER]>,
}

impl<K: Key> DocumentFrequencies<K> {
    /// Counts each n-gram once per document. An item of `documents` holds the references of one image.
    pub fn new<D: AsRef<[Counts<K>]> + Sync>(documents: &[D]) -> Self {
        Self::with_own(documents).0
    }

    /// [`Self::new`], and what [`Self::score_document`] needs.
    pub(crate) fn with_own<D: AsRef<[Counts<K>]> + Sync>(documents: &[D]) -> (Self, OwnWeights) {
        let mut weighed: [(Weights<K>, Vec<f64>); MAX_ORDER] = Default::default();
        weighed.par_iter_mut().enumerate().for_each(|(index, weighed)| *weighed = weigh_order(documents, index + 1));
        let mut next = [0; MAX_ORDER];
        let starts = documents.iter().map(|document| {
            let start = next;
            for (index, next) in next.iter_mut().enumerate() {
                *next += document.as_ref().iter().map(|r| r.of_order(index + 1).len()).sum::<usize>();
            }
            start
        });
        let mut own = OwnWeights { starts: starts.collect(), ..OwnWeights::default() };
        let orders = std::array::from_fn(|index| {
            let (weights, of_documents) = std::mem::take(&mut weighed[index]);
            own.by_order[index] = of_documents;
            weights
        });
        (Self { documents: documents.len(), orders }, own)
    }

    /// Number of documents; an n-gram that occurs in all of them has weight 0.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// `ln(documents) - ln(max(1, df))` of all n-grams of a sentence, appended to `out`.
    fn look_up(&self, sentence: &Counts<K>, out: &mut Vec<f64>) {
        let unseen = (self.documents as f64).ln();
        for (index, Weights { numbers, weights }) in self.orders.iter().enumerate() {
            let weight = |key| numbers.get(key).map_or(unseen, |number| weights[number as usize]);
            out.extend(sentence.of_order(index + 1).iter().map(|(key, _)| weight(*key)));
        }
    }

    /// CIDEr of one candidate, 0 to 10: the mean over `references`, times 10.
    ///
    /// For each order n from 1 to 4, with `g` the vector of (count × weight) of the n-grams of a sentence:
    /// `s_n = Σ min(g_candidate, g_reference)·g_reference / (|g_candidate|·|g_reference|) · exp(-Δ²/(2·6²))`,
    /// where Δ is the difference of the numbers of BIGRAMS (so sentences of no word and of one word count as equally long), and the
    /// division is left out where a norm is 0. The score is the mean of the four. 0 without references, and with one document only.
    pub fn score(&self, candidate: &Counts<K>, references: &[Counts<K>]) -> f64 {
        self.score_by(candidate, references, |reference, out| self.look_up(reference, out))
    }

    /// [`Self::score`] against the document at this place, whose n-grams are `references`.
    pub(crate) fn score_document(
        &self,
        own: &OwnWeights,
        document: usize,
        candidate: &Counts<K>,
        references: &[Counts<K>],
    ) -> f64 {
        let mut at = own.starts[document];
        self.score_by(candidate, references, |reference, out| {
            for (index, at) in at.iter_mut().enumerate() {
                let count = reference.of_order(index + 1).len();
                out.extend_from_slice(&own.by_order[index][*at..*at + count]);
                *at += count;
            }
        })
    }

    /// `weights` appends the weights of a reference; it is called once for each, in order.
    fn score_by(
        &self,
        candidate: &Counts<K>,
        references: &[Counts<K>],
        mut weights: impl FnMut(&Counts<K>, &mut Vec<f64>),
    ) -> f64 {
        if references.is_empty() {
            return 0.0;
        }
        let (mut own, mut theirs) = (Vec::with_capacity(candidate.all().len()), Vec::new());
        self.look_up(candidate, &mut own);
        let norms = weigh(candidate, &mut own);
        let mut sums = [0.0; MAX_ORDER];
        for reference in references {
            theirs.clear();
            weights(reference, &mut theirs);
            let reference_norms = weigh(reference, &mut theirs);
            let delta = candidate.total(2) as f64 - reference.total(2) as f64;
            let penalty = (-(delta * delta) / (2.0 * SIGMA * SIGMA)).exp();
            for (index, sum) in sums.iter_mut().enumerate() {
                let order = index + 1;
                let (own, theirs) = (&own[candidate.place(order)], &theirs[reference.place(order)]);
                let mut product = 0.0;
                for_each_common(candidate.of_order(order), reference.of_order(order), |i, j| {
                    product += own[i].min(theirs[j]) * theirs[j];
                });
                let norms = norms[index] * reference_norms[index];
                *sum += if norms == 0.0 { product } else { product / norms } * penalty;
            }
        }
        sums.iter().sum::<f64>() / MAX_ORDER as f64 / references.len() as f64 * SCALE
    }
}

/// The weights of one order, and those of the documents' n-grams in turn.
fn weigh_order<K: Key, D: AsRef<[Counts<K>]>>(documents: &[D], order: usize) -> (Weights<K>, Vec<f64>) {
    let mut numbers = Numbers::default();
    // By number: in how many documents, and the last of them, counted from 1.
    let mut frequencies: Vec<(f64, u32)> = Vec::new();
    let mut places: Vec<u32> = Vec::new();
    for (document, references) in documents.iter().enumerate() {
        let document = document as u32 + 1;
        for (key, _) in references.as_ref().iter().flat_map(|r| r.of_order(order)) {
            let number = numbers.number(*key, frequencies.len() as u32);
            if number as usize == frequencies.len() {
                frequencies.push((0.0, 0));
            }
            let (frequency, last) = &mut frequencies[number as usize];
            if *last != document {
                (*frequency, *last) = (*frequency + 1.0, document);
            }
            places.push(number);
        }
    }
    let total = (documents.len() as f64).ln();
    let weights: Vec<f64> = frequencies.iter().map(|(frequency, _)| total - frequency.ln()).collect();
    let own = places.iter().map(|number| weights[*number as usize]).collect();
    (Weights { numbers, weights }, own)
}

/// Makes weighted counts of a sentence's weights; the norm of each order is returned.
fn weigh<K: Key>(sentence: &Counts<K>, weights: &mut [f64]) -> [f64; MAX_ORDER] {
    weights.iter_mut().zip(sentence.all()).for_each(|(weight, (_, count))| *weight *= f64::from(*count));
    std::array::from_fn(|index| weights[sentence.place(index + 1)].iter().map(|w| w * w).sum::<f64>().sqrt())
}

/// CIDEr of sentences given as word ids; document frequencies come from `references` itself, one document per candidate.
///
/// * `candidates`: N sentences of ids (any ids; equal ids are equal words).
/// * `references`: N lists of reference sentences, that of the i-th candidate at i. References that occur twice count twice.
///
/// Returns N scores, 0 to 10. The common length is the shorter of the two.
///
/// # Example
/// ```
/// use vlp::metrics::cider::cider;
/// let scores = cider(&[vec![7, 5, 4], vec![2, 2, 6]], &[vec![vec![7, 5, 4]], vec![vec![3, 1]]]);
/// assert_eq!(scores[1], 0.0);
/// assert!((scores[0] - 7.5).abs() < 1e-12); // orders 1 to 3 agree fully; three words have no 4-gram
/// ```
pub fn cider<S, R>(candidates: &[S], references: &[R]) -> Vec<f64>
where
    S: AsRef<[u32]> + Sync,
    R: AsRef<[S]> + Sync,
{
    let count = |sentence: &S| NgramCounts::new(sentence.as_ref());
    let references: Vec<Vec<NgramCounts>> =
        references.par_iter().map(|r| r.as_ref().iter().map(count).collect()).collect();
    let frequencies = DocumentFrequencies::new(&references);
    candidates.par_iter().zip(&references).map(|(c, r)| frequencies.score(&count(c), r)).collect()
}

/// CIDEr of the sampled and the greedy captions of one self-critical training step (Rennie et al., CVPR 2017); see [`self_critical`].
#[derive(Debug, Clone, PartialEq)]
pub struct SelfCritical {
    /// CIDEr of the sampled captions, one per image.
    pub sampled: Vec<f64>,
    /// CIDEr of the greedy captions (the baseline), one per image.
    pub greedy: Vec<f64>,
    /// `sampled - greedy`, -10 to 10.
    pub reward: Vec<f64>,
}

/// Rewards of self-critical training for one batch of B images with one paired caption each.
///
/// All rows are word ids, padded with `padding` or full. What CIDEr sees of a row is [`until_padding`]: the end token and the first
/// padding count as words. Scored are 2·B entries (B sampled, then B greedy captions), each against its one reference, so every reference counts twice
/// in the document frequencies and the number of documents is 2·B: the reward depends on the batch. One image alone has reward 0.
///
/// The common length of the three lists is the shortest of them.
pub fn self_critical<S: AsRef<[u32]>>(sampled: &[S], greedy: &[S], references: &[S], padding: u32) -> SelfCritical {
    let batch = sampled.len().min(greedy.len()).min(references.len());
    let mut twice: Vec<[NgramCounts; 1]> = counts(&references[..batch], padding).into_iter().map(|r| [r]).collect();
    twice.extend_from_within(..);
    self_critical_over(&DocumentFrequencies::new(&twice), sampled, greedy, references, padding)
}

/// As [`self_critical`], with document frequencies from elsewhere (a corpus, for one): the rewards do not depend on the batch.
pub fn self_critical_over<S: AsRef<[u32]>>(
    frequencies: &DocumentFrequencies,
    sampled: &[S],
    greedy: &[S],
    references: &[S],
    padding: u32,
) -> SelfCritical {
    let batch = sampled.len().min(greedy.len()).min(references.len());
    let documents: Vec<[NgramCounts; 1]> = counts(&references[..batch], padding).into_iter().map(|r| [r]).collect();
    let score = |rows: &[S]| {
        let rows = counts(&rows[..batch], padding);
        rows.iter().zip(&documents).map(|(row, r)| frequencies.score(row, r)).collect::<Vec<_>>()
    };
    let (sampled, greedy) = (score(sampled), score(greedy));
    let reward = sampled.iter().zip(&greedy).map(|(s, g)| s - g).collect();
    SelfCritical { sampled, greedy, reward }
}

fn counts<S: AsRef<[u32]>>(rows: &[S], padding: u32) -> Vec<NgramCounts> {
    rows.iter().map(|row| NgramCounts::new(until_padding(row.as_ref(), padding))).collect()
}

/// The row up to and with its first `padding`; all of it if there is none.
pub fn until_padding(row: &[u32], padding: u32) -> &[u32] {
    let end = row.iter().position(|&id| id == padding).map_or(row.len(), |at| at + 1);
    &row[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_scores_zero() {
        assert_eq!(cider(&[vec![1, 2, 3, 4]], &[vec![vec![1, 2, 3, 4]]]), [0.0]);
    }

    #[test]
    fn perfect_candidate_scores_ten() {
        let scores = cider(&[vec![1, 2, 3, 4], vec![5, 6, 7, 8]], &[vec![vec![1, 2, 3, 4]], vec![vec![5, 6, 7, 8]]]);
        assert!(scores.iter().all(|s| (s - 10.0).abs() < 1e-12), "{scores:?}");
    }

    #[test]
    fn clipping_and_length_penalty() {
        // Candidate "1 1", reference "1 2 3": two documents, all weights ln 2. Unigrams: min(2, 1)·1 / (2·√3); bigrams: nothing in common; Δ = 1 - 2.
        let scores = cider(&[vec![1, 1], vec![9]], &[vec![vec![1, 2, 3]], vec![vec![8]]]);
        let expected = 10.0 / 4.0 * (1.0 / (2.0 * 3.0_f64.sqrt())) * (-1.0_f64 / 72.0).exp();
        assert!((scores[0] - expected).abs() < 1e-12, "{} {expected}", scores[0]);
        assert_eq!(scores[1], 0.0);
    }

    #[test]
    fn words_known_to_all_documents_weigh_nothing() {
        assert_eq!(cider(&[vec![1], vec![1]], &[vec![vec![1]], vec![vec![1]]]), [0.0, 0.0]);
    }

    #[test]
    fn no_references() {
        assert_eq!(cider(&[vec![1]], &[vec![]]), [0.0]);
    }

    #[test]
    fn padding_counts_once() {
        assert_eq!(until_padding(&[5, 6, 0, 0], 0), [5, 6, 0]);
        assert_eq!(until_padding(&[5, 6], 0), [5, 6]);
        let sampled = [vec![1, 2, 3, 0, 0], vec![4, 5, 6, 0, 0]];
        let greedy = [vec![9, 9, 9, 9, 9], vec![4, 5, 6, 0, 0]];
        let out = self_critical(&sampled, &greedy, &sampled, 0);
        assert_eq!(out.reward[1], 0.0);
        assert!((out.reward[0] - 10.0).abs() < 1e-12, "{:?}", out.reward);
    }
}
