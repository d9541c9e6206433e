//! The statistics of a segment and the score that follows from them (Denkowski and Lavie, WMT 2014, section 2; English, parameters of the task `rank`).
//!
//! The parameters are fixed: these are the ones that captions are scored with.

use super::aligner::{Alignment, MODULES};

/// Weight of precision against recall.
const ALPHA: f64 = 0.85;
/// Exponent of the fragmentation.
const BETA: f64 = 0.2;
/// Weight of the fragmentation.
const GAMMA: f64 = 0.6;
/// Weight of content words; that of function words is 1 - δ.
const DELTA: f64 = 0.75;
/// Weights of the modules exact, stem, synonym and paraphrase.
const WEIGHTS: [f64; MODULES] = [1.0, 0.6, 0.8, 0.6];

/// Matched words of one module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleStatistics {
    /// Content words of the candidate.
    pub candidate_content: u64,
    /// Content words of the reference.
    pub reference_content: u64,
    /// Function words of the candidate.
    pub candidate_function: u64,
    /// Function words of the reference.
    pub reference_function: u64,
}

/// The 23 counts from which METEOR follows; those of a corpus are the sums over its segments, see [`SegmentStatistics::add`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentStatistics {
    /// Words of the candidate.
    pub candidate_length: u64,
    /// Words of the reference.
    pub reference_length: u64,
    /// Function words of the candidate.
    pub candidate_function_words: u64,
    /// Function words of the reference.
    pub reference_function_words: u64,
    /// Matches by module: exact, stem, synonym, paraphrase.
    pub modules: [ModuleStatistics; MODULES],
    /// Runs of matches that are adjacent and in the same order in both sentences.
    pub chunks: u64,
    /// Matched words of the candidate.
    pub candidate_matches: u64,
    /// Matched words of the reference.
    pub reference_matches: u64,
}

impl SegmentStatistics {
    /// Counts of an alignment. `function_words(in_reference, start, length)` counts the function words of a stretch of the reference or the candidate.
    pub(crate) fn new(
        alignment: &Alignment,
        candidate_length: usize,
        reference_length: usize,
        function_words: impl Fn(bool, usize, usize) -> usize,
    ) -> Self {
        let mut result = Self {
            candidate_length: candidate_length as u64,
            reference_length: reference_length as u64,
            candidate_function_words: function_words(false, 0, candidate_length) as u64,
            reference_function_words: function_words(true, 0, reference_length) as u64,
            chunks: alignment.chunks as u64,
            ..Self::default()
        };
        for found in &alignment.matches {
            let module = &mut result.modules[found.module as usize];
            let function = function_words(false, found.candidate_start, found.candidate_length) as u64;
            module.candidate_function += function;
            module.candidate_content += found.candidate_length as u64 - function;
            let function = function_words(true, found.reference_start, found.reference_length) as u64;
            module.reference_function += function;
            module.reference_content += found.reference_length as u64 - function;
            result.candidate_matches += found.candidate_length as u64;
            result.reference_matches += found.reference_length as u64;
        }
        result
    }

    /// The counts in the order in which the jar prints them: lengths of candidate and reference, their function words, for each module the content words of
    /// candidate and reference and their function words, then chunks and matched words of candidate and reference.
    pub fn to_array(&self) -> [u64; 23] {
        let mut array = [0; 23];
        let lengths = [
            self.candidate_length,
            self.reference_length,
            self.candidate_function_words,
            self.reference_function_words,
        ];
        let modules = self
            .modules
            .iter()
            .flat_map(|m| [m.candidate_content, m.reference_content, m.candidate_function, m.reference_function]);
        let matches = [self.chunks, self.candidate_matches, self.reference_matches];
        array.iter_mut().zip(lengths.into_iter().chain(modules).chain(matches)).for_each(|(to, from)| *to = from);
        array
    }

    /// The inverse of [`Self::to_array`].
    pub fn from_array(array: &[u64; 23]) -> Self {
        let module = |index: usize| ModuleStatistics {
            candidate_content: array[4 + 4 * index],
            reference_content: array[5 + 4 * index],
            candidate_function: array[6 + 4 * index],
            reference_function: array[7 + 4 * index],
        };
        Self {
            candidate_length: array[0],
            reference_length: array[1],
            candidate_function_words: array[2],
            reference_function_words: array[3],
            modules: std::array::from_fn(module),
            chunks: array[20],
            candidate_matches: array[21],
            reference_matches: array[22],
        }
    }

    /// All words of both sides matched, in one chunk.
    fn is_perfect(&self) -> bool {
        self.candidate_matches == self.candidate_length
            && self.reference_matches == self.reference_length
            && self.chunks == 1
    }

    /// Adds the counts of a segment to those of a corpus. A perfect segment adds no chunk.
    pub fn add(&mut self, segment: &Self) {
        let mut added = segment.to_array();
        if segment.is_perfect() {
            added[20] = 0;
        }
        let mut sum = self.to_array();
        sum.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
        *self = Self::from_array(&sum);
    }

    /// METEOR, 0 to 1: `F · (1 - γ · (chunks / mean of matched words)^β)` where `F = 1 / ((1 - α)/P + α/R)`; precision `P` and recall `R` are matched words
    /// divided by words, content words weighted by δ, function words by 1 - δ, and matches by their module.
    pub fn score(&self) -> f64 {
        let weighted = |content: fn(&ModuleStatistics) -> u64, function: fn(&ModuleStatistics) -> u64| {
            let mut sum = 0.0;
            for (module, weight) in self.modules.iter().zip(WEIGHTS) {
                sum += content(module) as f64 * weight * DELTA;
            }
            for (module, weight) in self.modules.iter().zip(WEIGHTS) {
                sum += function(module) as f64 * weight * (1.0 - DELTA);
            }
            sum
        };
        let length = |words: u64, function: u64| DELTA * (words - function) as f64 + (1.0 - DELTA) * function as f64;
        let candidate_length = length(self.candidate_length, self.candidate_function_words);
        let reference_length = length(self.reference_length, self.reference_function_words);
        let candidate = weighted(|m| m.candidate_content, |m| m.candidate_function);
        let reference = weighted(|m| m.reference_content, |m| m.reference_function);
        if candidate_length == 0.0 || reference_length == 0.0 || candidate == 0.0 || reference == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (candidate / candidate_length, reference / reference_length);
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.is_perfect() {
            0.0
        } else {
            self.chunks as f64 / ((self.candidate_matches + self.reference_matches) as f64 / 2.0)
        };
        mean * (1.0 - GAMMA * fragmentation.powf(BETA))
    }
}
