//! The search for the alignment of two sentences among all matches of words and phrases (Denkowski and Lavie, WMT 2014, section 2).
//!
//! Matches without competitors are fixed first. A beam search over the reference, left to right, decides the rest: more matched words, then fewer chunks, then
//! smaller distance. It is not an exact optimisation, and these habits of `meteor-1.5.jar`, found by experiment, are kept, for they change scores:
//!
//! * an inexact match counts half of its words, rounded down: a stem, a synonym or a one-word paraphrase counts 0 in the search, so that it loses against no
//!   match at all wherever there is a choice, because it costs a chunk;
//! * the distance of a tried match is charged to the alternatives tried after it, not to the match itself;
//! * paths that differ only in how a match was found compete for places in the beam.

use std::cmp::Ordering;

/// Width of the beam.
const BEAM: usize = 40;

/// How a match was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// The same word.
    Exact,
    /// Words with the same stem.
    Stem,
    /// Words with a synonym set in common.
    Synonym,
    /// A pair of the paraphrase table.
    Paraphrase,
}

/// Number of modules.
pub const MODULES: usize = 4;

impl Module {
    /// What `length` matched words count in the search: all of them if exact, else half of them, rounded down.
    fn count(self, length: usize) -> usize {
        if self == Self::Exact { length } else { length / 2 }
    }
}

/// Words of the reference that match words of the candidate; positions from 0, lengths at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// First word in the reference.
    pub reference_start: usize,
    /// Number of words in the reference.
    pub reference_length: usize,
    /// First word in the candidate.
    pub candidate_start: usize,
    /// Number of words in the candidate.
    pub candidate_length: usize,
    /// How it was found.
    pub module: Module,
}

impl Match {
    fn candidate_end(&self) -> usize {
        self.candidate_start + self.candidate_length
    }

    fn distance(&self) -> usize {
        self.reference_start.abs_diff(self.candidate_start)
    }
}

/// The chosen matches, none of which share a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alignment {
    /// The matches, by position in the reference.
    pub matches: Vec<Match>,
    /// Number of runs of matches that are adjacent and in the same order in both sentences.
    pub chunks: usize,
}

/// A partial alignment: what is decided about the first words of the reference.
#[derive(Debug, Clone, Copy, Default)]
struct Path {
    /// The last match taken, an index of the arena.
    last: Option<u32>,
    /// First word of the reference that is not decided.
    next: usize,
    /// End in the candidate of the match that ends at `next`, if one does.
    open_chunk: Option<usize>,
    words: usize,
    chunks: usize,
    distance: usize,
}

impl Path {
    fn better_first(&self, other: &Self) -> Ordering {
        other.words.cmp(&self.words).then(self.chunks.cmp(&other.chunks)).then(self.distance.cmp(&other.distance))
    }

    fn close_chunk(&mut self) {
        self.chunks += usize::from(self.open_chunk.take().is_some());
    }

    fn take(&mut self, taken: &Match, arena: &mut Vec<(Match, Option<u32>)>) {
        if self.open_chunk != Some(taken.candidate_start) {
            self.close_chunk();
        }
        self.open_chunk = Some(taken.candidate_end());
        self.next = taken.reference_start + taken.reference_length;
        self.words += taken.module.count(taken.reference_length) + taken.module.count(taken.candidate_length);
        arena.push((*taken, self.last));
        self.last = Some((arena.len() - 1) as u32);
    }
}

/// Whether `wanted` shares a word of the candidate with a match of the path that ends with `last`.
fn is_used(wanted: &Match, mut last: Option<u32>, arena: &[(Match, Option<u32>)]) -> bool {
    while let Some(at) = last {
        let (taken, before) = &arena[at as usize];
        if wanted.candidate_start < taken.candidate_end() && taken.candidate_start < wanted.candidate_end() {
            return true;
        }
        last = *before;
    }
    false
}

/// Chooses among `matches`: for each word of the reference, those that start there, in the order in which they were found.
pub fn align(matches: &[Vec<Match>], candidate_length: usize) -> Alignment {
    let fixed = fixed(matches, candidate_length);
    let mut arena = Vec::new();
    let mut beam = vec![Path::default()];
    for (position, (here, fixed)) in matches.iter().zip(fixed).enumerate() {
        let mut extended = Vec::with_capacity(beam.len() * 2);
        for mut path in beam {
            if path.next > position {
                extended.push(path);
                continue;
            }
            if let Some(fixed) = fixed {
                path.distance += fixed.distance();
                path.take(&fixed, &mut arena);
                extended.push(path);
                continue;
            }
            for wanted in here {
                if !is_used(wanted, path.last, &arena) {
                    let mut with = path;
                    with.take(wanted, &mut arena);
                    extended.push(with);
                    path.distance += wanted.distance();
                }
            }
            path.close_chunk();
            path.next = position + 1;
            extended.push(path);
        }
        extended.sort_by(Path::better_first);
        extended.truncate(BEAM);
        beam = extended;
    }
    beam.iter_mut().for_each(Path::close_chunk);
    beam.sort_by(Path::better_first);
    let best = beam.first().copied().unwrap_or_default();
    let mut chosen: Vec<Match> =
        std::iter::successors(best.last, |&at| arena[at as usize].1).map(|at| arena[at as usize].0).collect();
    chosen.reverse();
    Alignment { matches: chosen, chunks: best.chunks }
}

/// For each word of the reference, the match that starts there and alone covers each of its words, in both sentences.
fn fixed(matches: &[Vec<Match>], candidate_length: usize) -> Vec<Option<Match>> {
    let mut reference = vec![0_u32; matches.len()];
    let mut candidate = vec![0_u32; candidate_length];
    for found in matches.iter().flatten() {
        reference[found.reference_start..][..found.reference_length].iter_mut().for_each(|n| *n += 1);
        candidate[found.candidate_start..][..found.candidate_length].iter_mut().for_each(|n| *n += 1);
    }
    let alone = |found: &&Match| {
        reference[found.reference_start..][..found.reference_length].iter().all(|&n| n == 1)
            && candidate[found.candidate_start..][..found.candidate_length].iter().all(|&n| n == 1)
    };
    matches.iter().map(|here| here.first().filter(alone).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(module: Module, reference_start: usize, candidate_start: usize) -> Match {
        Match { reference_start, reference_length: 1, candidate_start, candidate_length: 1, module }
    }

    /// All pairs of equal words.
    fn exact(candidate: &str, reference: &str) -> Alignment {
        let candidate: Vec<&str> = candidate.split(' ').collect();
        let equal = |(at, word): (usize, &str)| {
            let places = candidate.iter().enumerate().filter(|&(_, other)| *other == word);
            places.map(|(place, _)| one(Module::Exact, at, place)).collect()
        };
        align(&reference.split(' ').enumerate().map(equal).collect::<Vec<_>>(), candidate.len())
    }

    fn places(alignment: &Alignment) -> Vec<(usize, usize)> {
        alignment.matches.iter().map(|found| (found.reference_start, found.candidate_start)).collect()
    }

    #[test]
    fn prefers_few_chunks() {
        let found = exact("the dog and the cat", "and the cat");
        assert_eq!((places(&found), found.chunks), (vec![(0, 2), (1, 3), (2, 4)], 1));
        let found = exact("a b a c", "c a b");
        assert_eq!((places(&found), found.chunks), (vec![(0, 3), (1, 0), (2, 1)], 2));
    }

    #[test]
    fn the_first_of_equally_good_ones_wins() {
        assert_eq!(places(&exact("x a x x x x a", "y a y")), [(1, 1)]);
        // The second one is nearer, but pays for the first.
        assert_eq!(places(&exact("a x a", "y y a y")), [(2, 0)]);
    }

    #[test]
    fn inexact_matches_need_to_be_alone() {
        let stem = one(Module::Stem, 0, 0);
        assert_eq!(align(&[vec![stem]], 1).matches, [stem]);
        assert_eq!(align(&[vec![stem, one(Module::Stem, 0, 1)]], 2), Alignment::default());
        assert_eq!(align(&[vec![stem, one(Module::Synonym, 0, 0)]], 1), Alignment::default());
    }

    #[test]
    fn long_paraphrases_count_half() {
        let long = Match {
            reference_start: 0,
            reference_length: 1,
            candidate_start: 0,
            candidate_length: 5,
            module: Module::Paraphrase,
        };
        let short = Match { candidate_start: 2, candidate_length: 3, ..long };
        let word = one(Module::Exact, 1, 1);
        // Five words count 2 and cost the exact match; three count 1, and the exact match counts 2.
        let found = align(&[vec![long, short], vec![word]], 5);
        assert_eq!((found.matches, found.chunks), (vec![short, word], 2));
    }

    #[test]
    fn nothing_to_align() {
        assert_eq!(align(&[], 0), Alignment::default());
        assert_eq!(align(&[vec![], vec![]], 3), Alignment::default());
    }
}
