//! Tokens that begin with a letter or a digit: words and their compounds, abbreviations, acronyms, contractions, addresses.

use super::classes::Class;
use super::lists::{Abbreviation, abbreviation, is_extension, split_point, starts_sentence};
use super::scanner::{Offer, Scanner};
use super::spelling::Spelling;

/// Words that keep an inner or final apostrophe, whatever follows.
const APOSTROPHE_WORDS: [(&str, &str); 12] = [
    ("o", "o"),
    ("c", "mon"),
    ("c", "est"),
    ("e", "er"),
    ("s", "mores"),
    ("ev", "ry"),
    ("li", "l"),
    ("nat", "l"),
    ("cap", "n"),
    ("ol", ""),
    ("dunkin", ""),
    ("somethin", ""),
];

impl Scanner {
    /// Offers every token that begins with the letter or digit at `at`.
    pub(super) fn word(&self, at: usize, best: &mut Offer) {
        let end = self.letters_and_digits(at);
        for prefix in ["anti", "pro"] {
            if self.at(end) == '-' && self.matches(at, prefix) == Some(end) {
                best.plain(end + 1);
            }
        }
        if let Some(length) = split_point(self.slice(at, end)) {
            best.offer(at + length, end, Spelling::Plain);
        }
        best.plain(end);
        if !self.is_digit(at) && matches!(self.at(end), ' ' | '\0') {
            return;
        }
        if self.is_digit(at) {
            self.number(at, best);
            self.file(at, best);
            self.phone(at, best);
            self.date(at, best);
        } else {
            self.contraction(at, end, best);
            if let Some(end) = self.dotted(at) {
                best.plain(end);
                self.period_before_comma(end, best);
                self.before_clitic(end, best);
            }
            self.abbreviated(at, end, best);
            self.file(at, best);
            self.lettered(at, best);
        }
        if !self.is_space(end) && !self.is_end(end) {
            let compound = self.compound(at);
            best.plain(compound);
            self.period_before_comma(compound, best);
            self.slashed(at, best);
            self.address(at, best);
        }
        self.mixed_fraction(at, best);
    }

    /// End of the run of letters and digits at `at`; a mark cannot follow a digit.
    pub(super) fn letters_and_digits(&self, at: usize) -> usize {
        let mut end = at;
        let number = self.is_digit(at);
        while self.is_word(end)
            && !(end > at && self.class(end) == Class::Mark && self.is_digit(end - 1))
            && !(number && self.at(end) == '\u{ad}')
        {
            end += 1;
        }
        end
    }

    fn ascii_letters(&self, at: usize) -> usize {
        self.skip(at, |c| c.is_ascii_alphabetic())
    }

    /// `do|n't`, `he|'s`, `ne'er`, `M'Baku`, `y'|all`, and the words of `APOSTROPHE_WORDS`. `end` is the end of the plain word.
    fn contraction(&self, at: usize, end: usize, best: &mut Offer) {
        let Some(after) = self.loose_apostrophe(end) else { return };
        let letters = self.letters(at) == end;
        let last = self.at(end - 1);
        let tail = self.letters(after);
        if self.apostrophe(end).is_some() {
            self.clitic_or_elision(at, end, after, best);
        }
        if self.ascii_letters(at) == end && last.eq_ignore_ascii_case(&'n') && self.at(after).eq_ignore_ascii_case(&'t')
        {
            if end > at + 1 && !self.at(end - 2).eq_ignore_ascii_case(&'n') {
                best.offer(end - 1, after + 1, Spelling::Plain);
            } else if end == at + 1 && !self.is_letter(after + 1) {
                let typed = matches!(self.at(end), '`' | '\u{91}' | '\u{2018}' | '\u{201b}');
                best.offer(after + 1, after + 2, Spelling::Fixed(if typed { "n`t" } else { "n't" }));
            }
        }
        if letters
            && end > at + 1
            && is_vowel(last, true)
            && (is_vowel(self.at(after), false) || self.at(after).is_ascii_uppercase())
        {
            best.plain(tail);
        }
        if end == at + 1
            && tail >= after + 2
            && (last == 'n' || (last.is_ascii_uppercase() && !matches!(last, 'I' | 'Y')))
        {
            best.plain(tail);
        }
    }

    /// What needs a true apostrophe, which stands at `end`.
    fn clitic_or_elision(&self, at: usize, end: usize, after: usize, best: &mut Offer) {
        self.before_clitic(end, best);
        if end == at + 1 {
            let letter = self.at(at).to_ascii_lowercase();
            if matches!(letter, 'd' | 'l' | 'j') || (letter == 'y' && self.is_letter(after)) {
                best.plain(after);
            }
        }
        for (head, tail) in APOSTROPHE_WORDS {
            if self.matches(at, head) == Some(end)
                && let Some(end) = self.matches(after, tail)
            {
                best.plain(end);
            }
        }
    }

    /// A word that ends at `end`, before `'s`, `'m`, `'d`, `'re`, `'ve` or `'ll`.
    fn before_clitic(&self, end: usize, best: &mut Offer) {
        let Some(after) = self.apostrophe(end) else { return };
        if matches!(self.at(after).to_ascii_lowercase(), 's' | 'm' | 'd') {
            best.offer(end, after + 1, Spelling::Plain);
        } else if ["re", "ve", "ll"].iter().any(|tail| self.matches(after, tail).is_some()) {
            best.offer(end, after + 2, Spelling::Plain);
        }
    }

    /// Words whose period belongs to them.
    fn abbreviated(&self, at: usize, end: usize, best: &mut Offer) {
        for title in ["ph.d.", "ed.d."] {
            if let Some(after) = self.matches(at, title) {
                self.sentence_final(after, best);
            }
        }
        if let Some(dot) = self.acronym(at) {
            best.plain(dot + 1);
            if let Some(seen) = self.sentence_starter(dot + 1) {
                best.offer_again(dot + 1, dot, seen, Spelling::Plain);
            }
        }
        if self.at(end) != '.' || self.ascii_letters(at) != end {
            return;
        }
        let after = end + 1;
        if end == at + 1 {
            best.plain(after);
            if let Some(seen) = self.sentence_starter(after) {
                best.offer(end, seen, Spelling::Plain);
            }
        }
        match abbreviation(self.slice(at, end)) {
            Some(Abbreviation::SentenceFinal) => {
                self.sentence_final(after, best);
            }
            Some(Abbreviation::Title) => best.plain(after),
            Some(Abbreviation::BeforeDigit) => {
                let number = if self.is_space(after) { after + 1 } else { after };
                if self.is_digit(number) {
                    best.offer(after, number + 1, Spelling::Plain);
                }
            }
            None => {}
        }
    }

    /// An abbreviation whose period ends at `after`; the period counts twice at the end of a sentence: before white space and a capital, before wide
    /// white space, and before the end of everything.
    fn sentence_final(&self, after: usize, best: &mut Offer) {
        let resume = |twice: bool| if twice { after - 1 } else { after };
        if self.is_end(after + 1) {
            best.offer_again(after, resume(true), after, Spelling::Plain);
        } else {
            let capital = self.at(after + 1).is_uppercase() || self.tag(after + 1).is_some();
            let twice = self.is_space(after) && (self.is_space(after + 1) || capital);
            best.offer_again(after, resume(twice), after + 2, Spelling::Plain);
        }
    }

    /// The period that ends a word stays with it before `,`, `;` and `:`. `end` is the end of the word.
    fn period_before_comma(&self, end: usize, best: &mut Offer) {
        if self.at(end) == '.' && matches!(self.at(end + 1), ',' | ';' | ':') {
            best.offer(end + 1, end + 2, Spelling::Plain);
        }
    }

    /// `c++`, `c#`, `AT&T`, `US$`.
    fn lettered(&self, at: usize, best: &mut Offer) {
        let c = self.at(at).to_ascii_lowercase();
        if c == 'c' && self.at(at + 1) == '+' && self.at(at + 2) == '+' {
            best.plain(at + 3);
        }
        if matches!(c, 'c' | 'f') && self.at(at + 1) == '#' {
            best.plain(at + 2);
        }
        let capitals = self.skip(at, |c| c.is_ascii_uppercase());
        if capitals == at {
            return;
        }
        if self.at(capitals) == '$' {
            best.plain(capitals + 1);
        }
        let mut end = capitals;
        while matches!(self.at(end), '&' | '+') {
            let upper = |after: usize| Some(self.skip(after, |c| c.is_ascii_uppercase())).filter(|&next| next > after);
            let Some(next) = self.matches(end, "&amp;").and_then(upper).or_else(|| upper(end + 1)) else { break };
            end = next;
        }
        best.offer(end, end, Spelling::Joined);
    }

    /// Where the last period of the acronym at `at` stands: `U.S.`, `e.g.`.
    fn acronym(&self, at: usize) -> Option<usize> {
        let letter = |at: usize| self.at(at).is_ascii_alphabetic();
        let mut i = at;
        while letter(i) && self.at(i + 1) == '.' {
            i += 2;
        }
        (i > at + 2).then(|| i - 1)
    }

    /// How far one has to look to see that a sentence begins at `at`.
    fn sentence_starter(&self, at: usize) -> Option<usize> {
        let mut from = at;
        while self.is_space(from) {
            from += 1;
        }
        if from > at
            && let Some(end) = self.tag(from)
        {
            return self.is_space(end).then_some(end + 1);
        }
        let to = self.ascii_letters(from);
        if from == at || !starts_sentence(self.slice(from, to), self.at(to) == '.') {
            return None;
        }
        let after = if self.at(to) == '.' { to + 1 } else { to };
        self.is_space(after).then_some(after + 1)
    }

    /// Words joined by `-` or `_`: `black-and-white`, `pre-U.S.`, `x-o'clock`; before a `-` there may be a number or an abbreviation (`5,000-seat`,
    /// `jan.-feb`). Without any joint, the end of the first word.
    pub(super) fn compound(&self, at: usize) -> usize {
        let mut end = self.prefixed(at).unwrap_or_else(|| self.letters_and_digits(at));
        while matches!(self.at(end), '-' | '_')
            && let Some(next) = self.part(end + 1, self.at(end) == '-')
        {
            end = next;
        }
        end.max(self.punctuated_compound(at).unwrap_or(0))
    }

    fn punctuated_compound(&self, at: usize) -> Option<usize> {
        let head = self.skip(at, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | ','));
        let mut end = head;
        while self.at(end) == '-'
            && let Some(next) = self.ascii_part(end + 1)
        {
            end = next;
        }
        (end > head).then_some(end)
    }

    fn ascii_part(&self, at: usize) -> Option<usize> {
        let plain = Some(self.skip(at, |c| c.is_ascii_alphanumeric())).filter(|&end| end > at)?;
        Some(self.acronym(at).map_or(plain, |dot| plain.max(dot + 1)))
    }

    /// One word of a compound.
    fn part(&self, at: usize, acronym: bool) -> Option<usize> {
        let plain = self.is_word(at).then(|| self.letters_and_digits(at))?;
        let long = self.prefixed(at).unwrap_or(plain);
        Some(self.acronym(at).filter(|_| acronym).map_or(long, |dot| long.max(dot + 1)))
    }

    /// `o'clock`, `d'arc`: one letter and at least two more letters or digits.
    fn prefixed(&self, at: usize) -> Option<usize> {
        let known = matches!(self.at(at).to_ascii_lowercase(), 'd' | 'l' | 'o');
        let after = self.loose_apostrophe(at + 1)?;
        (known && self.is_word(after) && self.is_word(after + 1)).then(|| self.letters_and_digits(after))
    }

    /// `and/or`, `a/b-c/d`: at most three words, hyphenated or not.
    fn slashed(&self, at: usize, best: &mut Offer) {
        let word = |at: usize| {
            let mut end = self.skip(at, |c| c.is_ascii_alphanumeric());
            while self.at(end) == '-' && self.at(end + 1).is_ascii_alphabetic() {
                end = self.ascii_letters(end + 1);
            }
            end
        };
        let mut end = word(at);
        for _ in 0..2 {
            let below = if self.at(end) == '\\' { end + 1 } else { end };
            if self.at(below) != '/' || !self.at(below + 1).is_ascii_alphanumeric() {
                break;
            }
            end = word(below + 1);
            best.plain(end);
        }
    }

    /// File names with a well-known extension, before white space or `.`, `,`, `!`, `?`.
    fn file(&self, at: usize, best: &mut Offer) {
        let mut end = self.letters_and_digits(at);
        while self.at(end) == '.' && self.is_word(end + 1) {
            let part = end + 1;
            end = self.letters_and_digits(part);
            let closed = self.is_space(end) || matches!(self.at(end), '.' | ',' | '!' | '?');
            if closed && is_extension(self.slice(part, end)) {
                best.offer(end, end + 1, Spelling::Plain);
            }
        }
    }

    /// Words joined by `.`, `!` or `?` without a space: `file.txt`, `board.on`.
    fn dotted(&self, at: usize) -> Option<usize> {
        if !self.is_letter(at) {
            return None;
        }
        let mut end = self.letters_and_digits(at);
        let start = end;
        while matches!(self.at(end), '.' | '!' | '?') && self.is_letter(end + 1) {
            end = self.letters_and_digits(end + 1);
        }
        (end > start).then_some(end)
    }
}

fn is_vowel(c: char, or_y: bool) -> bool {
    matches!(c.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u') || (or_y && c.eq_ignore_ascii_case(&'y'))
}
