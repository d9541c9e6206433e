//! Internet addresses: `http://…`, `www.…`, `name.com/…`, e-mail.

use super::scanner::{Offer, Scanner};

impl Scanner {
    /// Offers the address at `at`.
    pub(super) fn address(&self, at: usize, best: &mut Offer) {
        for scheme in ["http://", "https://"] {
            if let Some(from) = self.matches(at, scheme)
                && let Some(end) = self.url_rest(from, |c| is_url_character(c) && !matches!(c, '{' | '}'))
            {
                best.plain(end);
            }
        }
        let host = match self.matches(at, "www.") {
            Some(from) => self.host_and_domain(from),
            None => self.plain_host(at),
        };
        if let Some(end) = host {
            best.plain(end);
            if self.at(end) == '/'
                && let Some(end) = self.url_rest(end + 1, is_url_character)
            {
                best.plain(end);
            }
        }
        if let Some(end) = self.email(at) {
            best.plain(end);
        }
    }

    /// End of the e-mail address at `at`, with the bracket after it.
    pub(super) fn email(&self, at: usize) -> Option<usize> {
        if !self.at(at).is_ascii_alphanumeric() {
            return None;
        }
        let part = |c: char| is_url_character(c) && !matches!(c, '{' | '}');
        let sign = self.skip(at, |c| part(c) && c != '@');
        if self.at(sign) != '@' {
            return None;
        }
        let label = |c: char| part(c) && c != '.';
        let mut end = self.skip(sign + 1, label);
        if end == sign + 1 {
            return None;
        }
        while self.at(end) == '.' && label(self.at(end + 1)) {
            end = self.skip(end + 1, label);
        }
        Some(if self.at(end) == '>' { end + 1 } else { end })
    }

    /// At least two characters, the last of which is no closing punctuation.
    fn url_rest(&self, from: usize, test: impl Fn(char) -> bool) -> Option<usize> {
        let mut end = self.skip(from, test);
        while end > from && matches!(self.at(end - 1), '.' | ',' | '!' | '?' | ';' | '-' | '{' | '}') {
            end -= 1;
        }
        (end >= from + 2).then_some(end)
    }

    /// `ab-c.cd` behind `www.`: the last label has two to four letters.
    fn host_and_domain(&self, from: usize) -> Option<usize> {
        let label = |c: char| is_url_character(c) && !matches!(c, '.' | ',' | '!' | '?' | '{' | '}' | '/');
        let mut best = None;
        let mut at = from;
        loop {
            let end = self.skip(at, label);
            if end == at || self.at(end) != '.' {
                return best;
            }
            let domain = self.skip(end + 1, |c| c.is_ascii_alphabetic());
            if (2..=4).contains(&(domain - end - 1)) {
                best = Some(domain);
            }
            at = end + 1;
        }
    }

    /// `name.com` and its like, in lower case, if a path follows.
    fn plain_host(&self, at: usize) -> Option<usize> {
        let label = |c: char| c.is_ascii_lowercase() || matches!(c, '#' | '%' | '&' | '*' | '+' | '~');
        let mut end = self.skip(at, label);
        while end > at && self.at(end) == '.' {
            let next = self.skip(end + 1, label);
            let domain: String = self.slice(end + 1, next).iter().collect();
            if self.at(next) == '/' && matches!(domain.as_str(), "com" | "net" | "org" | "edu") {
                return self.url_rest(next + 1, is_url_character).map(|_| next);
            }
            if next == end + 1 {
                break;
            }
            end = next;
        }
        None
    }
}

fn is_url_character(c: char) -> bool {
    !matches!(c, ' ' | '\t' | '\n' | '\0' | '\u{a0}' | '"' | '<' | '>' | '|' | '(' | ')')
}
