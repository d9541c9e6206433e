//! Apostrophes and single quotes: contractions, elisions, decades, opening and closing quotes.

use super::scanner::{Offer, Scanner};
use super::spelling::Spelling;

impl Scanner {
    /// Behind the apostrophe at `at`.
    pub(super) fn apostrophe(&self, at: usize) -> Option<usize> {
        match self.at(at) {
            '\'' | '\u{92}' | '\u{2019}' => Some(at + 1),
            '&' => self.matches(at, "&apos;"),
            _ => None,
        }
    }

    /// Behind the apostrophe at `at`, or a character often typed for one.
    pub(super) fn loose_apostrophe(&self, at: usize) -> Option<usize> {
        match self.at(at) {
            '`' | '\u{91}' | '\u{2018}' | '\u{201b}' => Some(at + 1),
            _ => self.apostrophe(at),
        }
    }

    /// An apostrophe (or right single quote) that ends at `after`.
    pub(super) fn single_quote(&self, at: usize, after: usize, best: &mut Offer) {
        let straight = self.at(at) == '\'';
        let opens =
            straight && self.at(after).is_ascii_alphabetic() && !self.is_end(after + 1) && !self.is_blank(after + 1);
        best.spelling = Spelling::Fixed("'");
        if straight && self.at(after) == '\'' {
            best.offer(after + 1, after + 1, Spelling::Plain);
        }
        self.clitic(at, best);
        for word in ["till", "til", "cause", "em"] {
            if let Some(end) = self.matches(after, word) {
                best.plain(end);
            }
        }
        if straight {
            for word in ["tis", "twas"] {
                if let Some(end) = self.matches(after, word) {
                    best.offer(after + 1, end, Spelling::Plain);
                }
            }
        }
        self.and_or_decade(after, !straight, best);
        if opens {
            best.offer(after, after + 2, Spelling::Fixed("`"));
        }
    }

    /// `'n'`, `'n` before white space (always if curly), `'90s`, `'90`.
    fn and_or_decade(&self, after: usize, curly: bool, best: &mut Offer) {
        if self.at(after).eq_ignore_ascii_case(&'n') {
            if matches!(self.at(after + 1), '\'' | '\u{2019}') {
                best.plain(after + 2);
            } else if curly || self.is_blank(after + 1) {
                best.offer(after + 1, after + 2, Spelling::Plain);
            }
        }
        if self.is_digit(after) && self.is_digit(after + 1) {
            let decade = ('2'..='9').contains(&self.at(after)) && self.at(after + 1) == '0';
            if decade && self.at(after + 2).eq_ignore_ascii_case(&'s') {
                best.plain(after + 3);
            } else if self.is_space(after + 2) {
                best.offer(after + 2, after + 3, Spelling::Plain);
            }
        }
    }

    /// `'s`, `'d`, `'m`, `'re`, `'ve`, `'ll`; no letter may follow unless the apostrophe is a curly one.
    pub(super) fn clitic(&self, at: usize, best: &mut Offer) {
        let Some(after) = self.apostrophe(at) else { return };
        let curly = matches!(self.at(at), '\u{92}' | '\u{2019}');
        for (word, text) in [("s", "'s"), ("d", "'d"), ("m", "'m"), ("re", "'re"), ("ve", "'ve"), ("ll", "'ll")] {
            if let Some(end) = self.matches(after, word)
                && (curly || !self.at(end).is_ascii_alphabetic())
            {
                best.offer(end, end + 1, Spelling::Fixed(text));
            }
        }
    }
}
