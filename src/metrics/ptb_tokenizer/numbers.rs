//! Tokens of digits: numbers, fractions, telephone numbers.

use super::scanner::{Offer, Scanner};

impl Scanner {
    /// A number with an optional sign: digits, and groups after `.`, `,`, `:`; or a fraction.
    pub(super) fn number(&self, at: usize, best: &mut Offer) {
        let from = if matches!(self.at(at), '+' | '-') { at + 1 } else { at };
        let mut end = from;
        loop {
            if self.is_digit(end) {
                end += 1;
            } else if matches!(self.at(end), '.' | ',' | ':' | '\u{66b}' | '\u{66c}' | '\u{ad}')
                && self.is_digit(end + 1)
            {
                end += 2;
            } else {
                break;
            }
        }
        if end > from {
            best.plain(end);
        }
        if let Some(end) = self.fraction(at) {
            best.plain(end);
        }
    }

    /// `3/4`, `3\/4`, `3⁄4`.
    fn fraction(&self, at: usize) -> Option<usize> {
        let slash = self.skip(at, |c| c.is_ascii_digit());
        if slash == at {
            return None;
        }
        let below = match (self.at(slash), self.at(slash + 1)) {
            ('\\', '/') => slash + 2,
            ('/' | '\u{2044}', _) => slash + 1,
            _ => return None,
        };
        let end = self.skip(below, |c| c.is_ascii_digit());
        (end > below).then_some(end)
    }

    /// `22 3/4`: one token, with U+00A0.
    pub(super) fn mixed_fraction(&self, at: usize, best: &mut Offer) {
        let space = self.skip(at, |c| c.is_ascii_digit());
        if space > at
            && space - at <= 4
            && matches!(self.at(space), ' ' | '-' | '\u{a0}')
            && self.skip(space + 1, |c| c.is_ascii_digit()) - space <= 5
            && let Some(end) = self.fraction(space + 1)
        {
            best.plain(end);
        }
    }

    /// `12/25/2009`, `1/1-99`.
    pub(super) fn date(&self, at: usize, best: &mut Offer) {
        let joint = |at: usize| matches!(self.at(at), '/' | '-').then_some(at + 1);
        for first in self.digits(at, 1, 2) {
            let Some(month) = joint(first) else { continue };
            for second in self.digits(month, 1, 2) {
                let Some(year) = joint(second) else { continue };
                if let Some(end) = self.digits(year, 2, 4).last() {
                    best.plain(end);
                }
            }
        }
    }

    /// Telephone numbers: `[+44] 555 555-1234`, `(555) 555-1234`; spaces inside become U+00A0.
    pub(super) fn phone(&self, at: usize, best: &mut Offer) {
        let from = if self.at(at) == '+' { at + 1 } else { at };
        let separator = |c: char| matches!(c, ' ' | '-' | '\u{a0}');
        let mut areas = vec![from];
        for country in self.digits(from, 2, 4) {
            if separator(self.at(country)) {
                areas.push(country + 1);
            }
        }
        let mut locals = Vec::new();
        for area in areas {
            for end in self.digits(area, 2, 4) {
                if separator(self.at(end)) {
                    locals.push(end + 1);
                }
            }
            if self.at(area) == '(' {
                for end in self.digits(area + 1, 2, 3) {
                    if self.at(end) == ')' {
                        locals.push(end + 1);
                        if separator(self.at(end + 1)) && self.at(end + 1) != '-' {
                            locals.push(end + 2);
                        }
                    }
                }
            }
        }
        for local in locals {
            for middle in self.digits(local, 3, 4) {
                let next = if separator(self.at(middle)) { [middle, middle + 1] } else { [middle, middle] };
                for last in next {
                    if let Some(end) = self.digits(last, 3, 5).last() {
                        best.plain(end);
                    }
                }
            }
        }
    }

    /// Ends of the `least` to `most` digits at `at`.
    fn digits(&self, at: usize, least: usize, most: usize) -> impl Iterator<Item = usize> + use<> {
        let run = self.skip(at, |c| c.is_ascii_digit()) - at;
        (least..=most.min(run)).map(move |n| at + n)
    }
}
