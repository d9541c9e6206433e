//! HTML entities and tags.

use super::scanner::{Offer, Scanner};
use super::spelling::Spelling;

impl Scanner {
    /// Offers the entity at `at`, an ampersand.
    pub(super) fn entity(&self, at: usize, best: &mut Offer) {
        if let Some(end) = self.matches(at, "&lt;").and_then(|after| self.email(after)) {
            best.plain(end);
        }
        if let Some(after) = self.matches(at, "&apos;") {
            best.offer(after, after, Spelling::Fixed("'"));
            self.clitic(at, best);
        }
        if let Some(end) = self.matches(at, "&quot;") {
            let opens = self.at(end) == '$' || self.at(end).is_ascii_alphanumeric();
            best.offer(end, end, Spelling::Fixed(if opens { "``" } else { "''" }));
        }
        if let Some(end) = self.matches(at, "&nbsp;") {
            best.offer(end, end, Spelling::Nothing);
        }
        best.plain(self.verbatim_entity(at));
        for (name, text) in
            [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&mdash;", "--"), ("&ndash;", "--"), ("&md;", "--")]
        {
            if let Some(end) = self.matches(at, name) {
                best.offer(end, end, Spelling::Fixed(text));
            }
        }
    }

    /// End of `&#39;`, `&eacute;` and the like, which stay as they are; else the place behind the ampersand.
    fn verbatim_entity(&self, at: usize) -> usize {
        let digits = self.skip(at + 2, |c| c.is_ascii_digit());
        if self.at(at + 1) == '#' && digits > at + 2 && self.at(digits) == ';' {
            return digits + 1;
        }
        if matches!(self.at(at + 1).to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u') {
            let accents = ["acute;", "grave;", "uml;"];
            return accents.iter().find_map(|accent| self.matches(at + 2, accent)).unwrap_or(at + 1);
        }
        at + 1
    }

    /// `<b>`, `</b>`, `<br/>`, `<a href="x">`, `<!-- -->`, `<a@b.c>`: spaces inside become U+00A0.
    pub(super) fn markup(&self, at: usize, best: &mut Offer) {
        if let Some(end) = self.tag(at) {
            best.offer(end, end, Spelling::Plain);
        }
        if self.at(at) == '<'
            && let Some(end) = self.email(at + 1)
        {
            best.plain(end);
        }
    }

    /// End of the tag at `at`, if one begins there.
    pub(super) fn tag(&self, at: usize) -> Option<usize> {
        if self.at(at) != '<' {
            return None;
        }
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
        let mut i = at + 1;
        if matches!(self.at(i), '!' | '?') {
            let end = self.skip(i + 1, |c| c != '>' && c != '\0' && c != '\n');
            return (end > i + 1 && self.at(end) == '>').then_some(end + 1);
        }
        if self.at(i) == '/' {
            i += 1;
        }
        if !self.at(i).is_ascii_alphabetic() {
            return None;
        }
        i = self.skip(i, name);
        loop {
            let blank = self.skip(i, |c| c == ' ');
            if !self.at(blank).is_ascii_alphabetic() || blank == i {
                i = blank;
                break;
            }
            i = self.skip(blank, name);
            let equals = self.skip(i, |c| c == ' ');
            if self.at(equals) == '=' {
                let quote = self.skip(equals + 1, |c| c == ' ');
                let mark = self.at(quote);
                if mark != '"' && mark != '\'' {
                    return None;
                }
                let close = self.skip(quote + 1, |c| c != mark && c != '\n');
                if self.at(close) != mark {
                    return None;
                }
                i = close + 1;
            }
        }
        if self.at(i) == '/' {
            i += 1;
        }
        (self.at(i) == '>').then_some(i + 1)
    }
}
