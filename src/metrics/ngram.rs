//! Words as numbers and the n-grams (orders 1 to 4) of a sentence, as BLEU and CIDEr count them.
//!
//! Holds counting only. It does not decide what a word is (see `ptb_tokenizer.rs`) nor weigh an n-gram (see `cider.rs`).

use std::collections::HashMap;
use std::ops::Range;

use super::numbers::{Numbers, Spread};

/// Highest n-gram order.
pub const MAX_ORDER: usize = 4;

/// An n-gram of one fixed order as an integer: its word numbers, the last word lowest. Keys of one order sort as their words do.
pub trait Key: Spread + Ord + Send + Sync {
    /// The n-gram that goes on with `word`.
    fn then(self, word: u32) -> Self;
}

/// For any word numbers.
impl Key for u128 {
    fn then(self, word: u32) -> Self {
        self << 32 | Self::from(word)
    }
}

/// For word numbers below `NARROW`: half as much to sort, to hash and to keep.
impl Key for u64 {
    fn then(self, word: u32) -> Self {
        self << 16 | Self::from(word)
    }
}

/// How many different words fit keys of 64 bits.
pub(crate) const NARROW: usize = 1 << 16;

/// Gives equal words equal numbers, in order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct Interner<'a> {
    /// Words of up to eight bytes, which is most, as an integer.
    short: Numbers<u64>,
    long: HashMap<&'a str, u32>,
    len: u32,
}

impl<'a> Interner<'a> {
    /// The number of `word`.
    pub(crate) fn number(&mut self, word: &'a str) -> u32 {
        let next = self.len;
        let number = match as_integer(word.as_bytes()) {
            Some(key) => self.short.number(key, next),
            None => *self.long.entry(word).or_insert(next),
        };
        self.len += u32::from(number == next);
        number
    }

    /// How many different words there were.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The words of a tokenised sentence under the two splitting rules of the COCO tools.
    pub(crate) fn sentence(&mut self, text: &'a str) -> Sentence {
        if is_simple(text.as_bytes()) {
            let mut words = Vec::with_capacity(text.len() / 4 + 1);
            let mut start = 0;
            // Words are short: looking at each byte beats a search that is made for long ones.
            for (at, byte) in text.bytes().enumerate() {
                if byte == b' ' {
                    words.push(self.number(&text[start..at]));
                    start = at + 1;
                }
            }
            words.push(self.number(&text[start..]));
            return Sentence { words, pieces: None };
        }
        let words = text.split(is_python_space).filter(|w| !w.is_empty()).map(|w| self.number(w)).collect();
        let plain = !text.is_empty()
            && !text.starts_with(' ')
            && !text.ends_with(' ')
            && !text.contains("  ")
            && !text.contains(|c: char| c != ' ' && is_python_space(c));
        let pieces = (!plain).then(|| text.split(' ').map(|w| self.number(w)).collect());
        Sentence { words, pieces }
    }
}

/// Up to eight bytes, none of them zero, as an integer of their own.
fn as_integer(word: &[u8]) -> Option<u64> {
    let short = word.len() <= 8 && !word.contains(&0);
    short.then(|| word.iter().rev().fold(0, |integer, byte| integer << 8 | u64::from(*byte)))
}

/// Whether a text has printable ASCII and single spaces between words only, so that both rules split it alike.
fn is_simple(text: &[u8]) -> bool {
    let mut before = b' ';
    for &byte in text {
        if !matches!(byte, b' '..=b'~') || (byte == b' ' && before == b' ') {
            return false;
        }
        before = byte;
    }
    before != b' '
}

/// What Python's `str.split()` splits at.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A tokenised sentence as word numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    words: Vec<u32>,
    pieces: Option<Vec<u32>>,
}

impl Sentence {
    /// Split at runs of Unicode white space (`str.split()`), as BLEU and CIDEr do.
    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }

    /// Split at each single space (`str.split(' ')`), as ROUGE-L does: never empty, and U+00A0 does not split.
    pub(crate) fn pieces(&self) -> &[u32] {
        self.pieces.as_deref().unwrap_or(&self.words)
    }
}

/// [`Counts`] of any words.
pub type NgramCounts = Counts<u128>;

/// How often each n-gram of orders 1 to 4 occurs in one sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts<K> {
    words: usize,
    /// Order after order, each ascending.
    all: Vec<(K, u32)>,
    /// Where each order ends.
    ends: [usize; MAX_ORDER],
}

impl<K: Key> Counts<K> {
    /// Counts the n-grams of `words`, whose numbers fit the keys.
    pub fn new(words: &[u32]) -> Self {
        let mut all = Vec::with_capacity(MAX_ORDER * words.len());
        let mut keys: Vec<K> = Vec::with_capacity(words.len());
        let ends = std::array::from_fn(|index| {
            keys.clear();
            keys.extend(
                words.windows(index + 1).map(|words| words.iter().fold(K::default(), |key, &word| key.then(word))),
            );
            keys.sort_unstable();
            all.extend(keys.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)));
            all.len()
        });
        Self { words: words.len(), all, ends }
    }

    /// Number of words of the sentence.
    pub fn len(&self) -> usize {
        self.words
    }

    /// Whether the sentence has no word.
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Number of n-grams of `order` (1 to 4), repetitions included: `len - order + 1`, or 0.
    pub fn total(&self, order: usize) -> usize {
        (self.words + 1).saturating_sub(order)
    }

    /// The distinct n-grams of `order` (1 to 4) with their counts, in ascending order of the key.
    pub(crate) fn of_order(&self, order: usize) -> &[(K, u32)] {
        &self.all[self.place(order)]
    }

    /// The distinct n-grams of all orders, one order after the other.
    pub(crate) fn all(&self) -> &[(K, u32)] {
        &self.all
    }

    /// Where those of `order` stand among all.
    pub(crate) fn place(&self, order: usize) -> Range<usize> {
        let start = if order == 1 { 0 } else { self.ends[order - 2] };
        start..self.ends[order - 1]
    }
}

/// Calls `f(i, j)` with the places of each key that both sorted lists hold.
pub(crate) fn for_each_common<K: Ord, A, B>(left: &[(K, A)], right: &[(K, B)], mut f: impl FnMut(usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        match left[i].0.cmp(&right[j].0) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                f(i, j);
                i += 1;
                j += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_every_order() {
        let counts = NgramCounts::new(&[7, 0, 7, 0, 7]);
        assert_eq!(counts.of_order(1), [(0, 2), (7, 3)]);
        assert_eq!(counts.of_order(2), [(7, 2), (7 << 32, 2)]);
        assert_eq!((1..=5).map(|n| counts.total(n)).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
        let single = NgramCounts::new(&[3]);
        assert_eq!((single.total(1), single.total(2), single.total(4)), (1, 0, 0));
        assert!(single.of_order(2).is_empty());
        assert!(NgramCounts::new(&[]).is_empty());
    }

    #[test]
    fn narrow_keys_count_and_sort_alike() {
        let words = [65_535, 0, 7, 65_535, 0, 7, 3, 0, 7];
        let (wide, narrow) = (NgramCounts::new(&words), Counts::<u64>::new(&words));
        let numbers = |key: u128| (0..4).rev().map(|i| (key >> (32 * i)) as u32).collect::<Vec<_>>();
        let narrow_numbers = |key: u64| (0..4).rev().map(|i| (key >> (16 * i)) as u32 & 0xffff).collect::<Vec<_>>();
        for order in 1..=MAX_ORDER {
            let wide: Vec<_> = wide.of_order(order).iter().map(|&(key, count)| (numbers(key), count)).collect();
            let narrow: Vec<_> =
                narrow.of_order(order).iter().map(|&(key, count)| (narrow_numbers(key), count)).collect();
            assert_eq!(wide, narrow);
        }
    }

    #[test]
    fn two_splitting_rules() {
        let mut interner = Interner::default();
        let plain = interner.sentence("a b a");
        assert_eq!((plain.words(), plain.pieces()), (&[0, 1, 0][..], &[0, 1, 0][..]));
        let fraction = interner.sentence("22\u{a0}3/4 a");
        assert_eq!((fraction.words().len(), fraction.pieces().len()), (3, 2));
        let empty = interner.sentence("");
        assert_eq!((empty.words().len(), empty.pieces().len()), (0, 1));
        let double = interner.sentence("a  b");
        assert_eq!((double.words().len(), double.pieces().len()), (2, 3));
        let separator = interner.sentence("a\u{1c}b");
        assert_eq!((separator.words(), separator.pieces().len()), (&[0, 1][..], 1));
    }

    #[test]
    fn words_short_long_and_odd() {
        let mut interner = Interner::default();
        let words = ["", "a", "eightbyt", "ninebytes", "a\0", "\0", "\u{e9}", "\0\0", "ninebytez"];
        for (number, word) in (0..).zip(words) {
            assert_eq!(interner.number(word), number, "{word:?}");
        }
        assert_eq!(words.map(|word| interner.number(word)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(interner.len(), 9);
    }

    #[test]
    fn common_keys() {
        let mut found = Vec::new();
        for_each_common(&[(1, 'a'), (3, 'b'), (5, 'c')], &[(3, 1), (4, 2), (5, 3)], |i, j| found.push((i, j)));
        assert_eq!(found, [(1, 0), (2, 2)]);
    }
}
