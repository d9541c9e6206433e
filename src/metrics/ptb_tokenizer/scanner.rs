//! The longest-match scan over one caption, and tokens that begin with punctuation.
//!
//! At each place every pattern offers what it would take, together with how far it had to look; the offer that saw furthest wins, the first of equal
//! ones. Tokens that begin with a letter or digit are in `words.rs` and `numbers.rs`.

use super::classes::{Class, class_of, is_run, rewritten};
use super::spelling::{Spelling, push_spelled};
use super::{LOOKAHEAD, NextLine, is_removed};

/// A caption with the beginning of the next line behind it.
pub(super) struct Scanner {
    chars: Vec<char>,
    classes: Vec<Class>,
    /// Where the caption ends.
    end: usize,
}

/// The best offer so far at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// Where the token's text ends.
    pub(super) end: usize,
    /// Where scanning goes on; before `end` if the last character is written twice.
    pub(super) resume: usize,
    /// How far the pattern looked.
    pub(super) seen: usize,
    pub(super) spelling: Spelling,
}

impl Offer {
    /// Takes the token up to `end`, having looked up to `seen`, if that is further than the offers before it.
    pub(super) fn offer(&mut self, end: usize, seen: usize, spelling: Spelling) {
        self.offer_again(end, end, seen, spelling);
    }

    /// As `offer`, and the text from `resume` is read again.
    pub(super) fn offer_again(&mut self, end: usize, resume: usize, seen: usize, spelling: Spelling) {
        if seen > self.seen {
            *self = Self { end, resume, seen, spelling };
        }
    }

    /// The token up to `end` as it stands.
    pub(super) fn plain(&mut self, end: usize) {
        self.offer(end, end, Spelling::Plain);
    }
}

impl Scanner {
    pub(super) fn new(text: &str, next: NextLine<'_>) -> Self {
        let mut chars: Vec<char> = Vec::with_capacity(text.len() + LOOKAHEAD);
        chars.extend(text.chars().map(|c| if is_line_end(c) { ' ' } else { c }));
        let end = chars.len();
        if let NextLine::Text(line) = next {
            chars.push('\n');
            chars.extend(line.chars().take(LOOKAHEAD));
        }
        let classes = chars.iter().map(|&c| class_of(c)).collect();
        Self { chars, classes, end }
    }

    /// Appends all tokens, separated by single spaces; the punctuation that the COCO tools remove only where it is `kept`.
    pub(super) fn run(&self, kept: bool, out: &mut String) {
        let mut at = 0;
        while at < self.end {
            if self.class(at) == Class::Space {
                at += 1;
                continue;
            }
            let offer = self.longest(at);
            let end = offer.end.min(self.end);
            if offer.spelling != Spelling::Nothing {
                let before = out.len();
                if before > 0 {
                    out.push(' ');
                }
                let start = out.len();
                push_spelled(out, &self.chars[at..end], offer.spelling);
                if !kept && is_removed(&out[start..]) {
                    out.truncate(before);
                }
            }
            at = offer.resume.max(at + 1);
        }
    }

    /// The token at `at`, which is not white space.
    fn longest(&self, at: usize) -> Offer {
        let mut best = Offer { end: at + 1, resume: at + 1, seen: at + 1, spelling: Spelling::Plain };
        match self.class(at) {
            Class::Letter | Class::Mark | Class::Digit => {
                best.seen = at;
                self.word(at, &mut best);
            }
            Class::Punctuation => self.punctuation(at, &mut best),
            Class::Symbol | Class::Space => {}
        }
        best
    }

    /// The character at `at`; NUL behind the text.
    pub(super) fn at(&self, at: usize) -> char {
        self.chars.get(at).copied().unwrap_or('\0')
    }

    /// The class at `at`; white space behind the text.
    pub(super) fn class(&self, at: usize) -> Class {
        self.classes.get(at).copied().unwrap_or(Class::Space)
    }

    /// Whether nothing at all follows, not even a next line.
    pub(super) fn is_end(&self, at: usize) -> bool {
        at >= self.chars.len()
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &[char] {
        &self.chars[from..to]
    }

    pub(super) fn is_word(&self, at: usize) -> bool {
        matches!(self.class(at), Class::Letter | Class::Mark | Class::Digit)
    }

    pub(super) fn is_letter(&self, at: usize) -> bool {
        matches!(self.class(at), Class::Letter | Class::Mark)
    }

    pub(super) fn is_digit(&self, at: usize) -> bool {
        self.class(at) == Class::Digit
    }

    /// White space in the narrow sense of the quote rules; many characters that separate words are not.
    pub(super) fn is_blank(&self, at: usize) -> bool {
        matches!(self.at(at), ' ' | '\t' | '\n' | '\u{a0}')
    }

    /// White space in the sense of the rules for sentence ends.
    pub(super) fn is_space(&self, at: usize) -> bool {
        self.is_blank(at) || matches!(self.at(at), '\u{2000}'..='\u{200a}' | '\u{3000}')
    }

    /// First place from `at` on where `test` fails.
    pub(super) fn skip(&self, at: usize, test: impl Fn(char) -> bool) -> usize {
        self.chars[at.min(self.chars.len())..]
            .iter()
            .position(|&c| !test(c))
            .map_or(self.chars.len().max(at), |n| at + n)
    }

    /// First place from `at` on that is no letter.
    pub(super) fn letters(&self, at: usize) -> usize {
        let mut end = at;
        while self.is_letter(end) {
            end += 1;
        }
        end
    }

    /// Where `text` (ASCII, lower case) ends if it stands at `at` in any case.
    pub(super) fn matches(&self, at: usize, text: &str) -> Option<usize> {
        let same = text.chars().enumerate().all(|(n, c)| self.at(at + n).eq_ignore_ascii_case(&c));
        same.then_some(at + text.len())
    }

    /// Offers every token that begins with the punctuation character at `at`.
    fn punctuation(&self, at: usize, best: &mut Offer) {
        let c = self.at(at);
        if let Some(text) = rewritten(c) {
            best.spelling = Spelling::Fixed(text);
        }
        match c {
            '\'' | '\u{92}' | '\u{2019}' => self.single_quote(at, at + 1, best),
            '"' => {
                let opens = self.at(at + 1) == '$' || self.at(at + 1).is_ascii_alphanumeric();
                best.spelling = Spelling::Fixed(if opens { "``" } else { "''" });
            }
            '`' if self.at(at + 1) == '`' => best.plain(at + 2),
            '&' => self.entity(at, best),
            '<' | '>' => {
                best.plain(self.skip(at, |x| x == c).min(at + 2));
                self.markup(at, best);
            }
            '.' => {
                self.dots(at, best);
                self.number(at, best);
            }
            '!' | '?' => best.plain(self.skip(at, |x| matches!(x, '!' | '?'))),
            '-' => {
                let end = self.skip(at, |x| x == '-');
                let dash = (2..=4).contains(&(end - at));
                best.offer(end, end, if dash { Spelling::Fixed("--") } else { Spelling::Plain });
                self.number(at, best);
                if let Some(end) = self.bracket_name(at) {
                    best.plain(end);
                }
            }
            '+' => {
                self.number(at, best);
                self.phone(at, best);
            }
            ',' | ':' => self.number(at, best),
            '(' => self.phone(at, best),
            '*' | '_' => best.plain(self.skip(at, |x| x == c)),
            '\\' if self.at(at + 1) == '*' => best.plain(at + 2),
            '#' => {
                best.plain(self.skip(at, |x| x == '#'));
                best.plain(self.letters(at + 1));
            }
            '@' => {
                best.plain(self.skip(at, |x| x == '@'));
                if self.at(at + 1).is_ascii_alphabetic() || self.at(at + 1) == '_' {
                    best.plain(self.skip(at + 1, |x| x.is_ascii_alphanumeric() || x == '_'));
                }
            }
            _ if is_run(c) => best.plain(self.skip(at, |x| x == c)),
            _ => {}
        }
        if is_fancy_quote(c) && is_fancy_quote(self.at(at + 1)) {
            best.offer(at + 2, at + 2, Spelling::Quotes);
        }
        self.emoticon(at, best);
    }

    /// `.` `. .` and ellipses: three periods or more, also if spaced.
    fn dots(&self, at: usize, best: &mut Offer) {
        let end = self.skip(at, |x| x == '.').min(at + 5);
        if end >= at + 3 {
            best.offer(end, end, Spelling::Fixed("..."));
        }
        let mut spaced = at;
        let mut count = 0;
        while self.at(spaced) == '.' {
            count += 1;
            if count < 5 && matches!(self.at(spaced + 1), ' ' | '\u{a0}') && self.at(spaced + 2) == '.' {
                spaced += 2;
            } else {
                break;
            }
        }
        if count >= 3 {
            best.offer(spaced + 1, spaced + 1, Spelling::Fixed("..."));
        }
    }

    /// `-LRB-` and its kin.
    fn bracket_name(&self, at: usize) -> Option<usize> {
        let side = matches!(self.at(at + 1), 'l' | 'L' | 'r' | 'R');
        let shape = matches!(self.at(at + 2), 'r' | 'R' | 's' | 'S' | 'c' | 'C');
        (side && shape && matches!(self.at(at + 3), 'b' | 'B') && self.at(at + 4) == '-').then_some(at + 5)
    }

    /// `:-)`, `=P`, `>:(` before anything but a letter or digit, and `^_^`.
    fn emoticon(&self, at: usize, best: &mut Offer) {
        let mut eyes = at;
        if matches!(self.at(eyes), '<' | '>') {
            eyes += 1;
        }
        if matches!(self.at(eyes), ':' | ';' | '=') {
            let nose = eyes + 1;
            for mouth in [nose, nose + 1] {
                if mouth > nose && !matches!(self.at(nose), '-' | '\'' | '*' | 'o') {
                    continue;
                }
                let known = matches!(
                    self.at(mouth),
                    '(' | ')' | '[' | ']' | '{' | '|' | '\\' | '@' | 'D' | 'd' | 'O' | 'P' | 'p'
                );
                if known && !self.is_end(mouth + 1) && !self.at(mouth + 1).is_ascii_alphanumeric() {
                    best.offer(mouth + 1, mouth + 2, Spelling::Plain);
                }
            }
        }
        let face = |c| matches!(c, '-' | '^' | '~' | '=' | '\'' | '<' | '>');
        if face(self.at(at)) && self.at(at + 1) == '_' && face(self.at(at + 2)) {
            best.plain(at + 3);
        }
    }
}

fn is_fancy_quote(c: char) -> bool {
    matches!(c, '`' | '\u{91}'..='\u{94}' | '\u{2018}' | '\u{2019}' | '\u{201b}'..='\u{201d}' | '\u{2039}' | '\u{203a}' | '\u{ab}' | '\u{bb}')
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}
