//! METEOR's own normalisation of English text (option `-norm`, punctuation kept): a rule tokenizer in the manner of the Moses tokenizer.
//!
//! Runs on text that may be tokenised already, as the captions of the COCO tools are: `t-shirt` becomes `t shirt`, `'s` becomes `' s`, `u.s.` becomes `us`.
//! It does not change case. Written from the behaviour of `meteor-1.5.jar`; other languages are not supported.

use std::collections::HashMap;

/// When the period of an abbreviation stays with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Always (`Mr.`).
    Always,
    /// Before a digit (`No. 5`).
    BeforeDigit,
}

/// Abbreviations whose period does not end a sentence.
#[derive(Debug, Clone, Default)]
pub struct Abbreviations(HashMap<String, Keeps>);

impl Abbreviations {
    /// Reads the list of the jar (`nonbreaking/english.prefixes`): one abbreviation per line without its period, `#` starts a comment line, and
    /// `#NUMERIC_ONLY#` marks abbreviations that keep their period only before a number.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let entries = lines.filter_map(|line| {
            let keeps = if line.contains("#NUMERIC_ONLY#") { Keeps::BeforeDigit } else { Keeps::Always };
            line.split_whitespace().next().map(|word| (word.to_owned(), keeps))
        });
        Self(entries.collect())
    }
}

/// Splits `text` into words, separated by single spaces. Control characters at both ends disappear.
pub fn normalise(text: &str, abbreviations: &Abbreviations) -> String {
    let mut chars = split_symbols(&unify(text));
    chars = split_multiple_dots(&chars);
    let comma = [' ', ',', ' '];
    chars = replace_between(&chars, ',', |c| !is_digit(c), |c| !is_digit(c), &comma);
    chars = replace_between(&chars, ',', is_digit, |c| !is_digit(c), &comma);
    chars = replace_between(&chars, ',', |c| !is_digit(c), is_digit, &comma);
    chars = join_dashes(&chars);
    let apostrophe = [' ', '\'', ' '];
    chars = replace_between(&chars, '\'', |c| !is_letter(c), |c| !is_letter(c), &apostrophe);
    chars = replace_between(&chars, '\'', |c| !is_letter(c) && !is_digit(c), is_letter, &apostrophe);
    chars = replace_between(&chars, '\'', is_letter, |c| !is_letter(c), &apostrophe);
    chars = replace_between(&chars, '\'', is_letter, is_letter, &apostrophe[..2]);
    chars = replace_between(&chars, '\'', is_digit, |c| c == 's', &apostrophe[..2]);
    chars = replace_between(
        &chars,
        '-',
        |c| is_letter(c) || is_digit(c) || c == '.',
        |c| is_letter(c) || is_digit(c),
        &[' '],
    );
    let text: String = chars.into_iter().collect();
    let words: Vec<&str> = text.split(is_delimiter).filter(|word| !word.is_empty()).collect();
    let mut result = String::with_capacity(text.len());
    for (at, word) in words.iter().enumerate() {
        if word.chars().all(is_wide_space) {
            continue;
        }
        let next = words.get(at + 1).and_then(|next| next.chars().next());
        if !result.is_empty() {
            result.push(' ');
        }
        push_with_period(&mut result, word, next, abbreviations);
    }
    result.trim_matches(|c| c <= ' ').to_owned()
}

/// What separates words.
pub(crate) fn is_delimiter(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// The letters METEOR knows: Latin up to U+017E, Cyrillic, and some phonetic extensions.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, '\u{c0}'..='\u{17e}' | '\u{400}'..='\u{527}' | '\u{1d00}'..='\u{1d7f}'
            | '\u{a640}'..='\u{a66e}' | '\u{a67e}'..='\u{a697}')
            && !matches!(c, '×' | '÷')
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Spaces that end up as separators, but count as words before.
fn is_wide_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// One form for each of the quotes and dashes; a space at both ends.
fn unify(text: &str) -> Vec<char> {
    let mut plain = String::with_capacity(text.len() + 2);
    plain.push(' ');
    for c in text.chars() {
        match c {
            '`' | '‘' | '’' => plain.push('\''),
            '“' | '”' => plain.push('"'),
            '–' => plain.push_str(" - "),
            _ => plain.push(c),
        }
    }
    plain.push(' ');
    plain.replace("''", "\"").chars().collect()
}

/// One dash for two.
fn join_dashes(chars: &[char]) -> Vec<char> {
    let mut result = Vec::with_capacity(chars.len());
    for run in chars.chunk_by(|a, b| *a == '-' && *b == '-') {
        let length = if run[0] == '-' { run.len().div_ceil(2) } else { 1 };
        result.extend(&run[..length]);
    }
    result
}

/// Spaces around everything but letters, digits, white space and `. ' , -`.
fn split_symbols(chars: &[char]) -> Vec<char> {
    let mut result = Vec::with_capacity(chars.len() * 2);
    for &c in chars {
        if is_letter(c) || is_digit(c) || is_delimiter(c) || matches!(c, '.' | '\'' | ',' | '-' | '\u{b}') {
            result.push(c);
        } else {
            result.extend([' ', c, ' ']);
        }
    }
    result
}

/// Spaces around runs of two or more dots.
fn split_multiple_dots(chars: &[char]) -> Vec<char> {
    let mut result = Vec::with_capacity(chars.len() + 8);
    for run in chars.chunk_by(|a, b| *a == '.' && *b == '.') {
        if run.len() > 1 {
            result.push(' ');
            result.extend(run);
            result.push(' ');
        } else {
            result.extend(run);
        }
    }
    result
}

/// Replaces `mark` where it stands between two suitable characters, left to right; a character that took part cannot serve again as the left one.
fn replace_between(
    chars: &[char],
    mark: char,
    left: impl Fn(char) -> bool,
    right: impl Fn(char) -> bool,
    replacement: &[char],
) -> Vec<char> {
    let mut result = Vec::with_capacity(chars.len() + 8);
    let mut rest = chars;
    while let [first, tail @ ..] = rest {
        result.push(*first);
        rest = tail;
        if let [middle, last, after @ ..] = tail
            && *middle == mark
            && left(*first)
            && right(*last)
        {
            result.extend(replacement);
            result.push(*last);
            rest = after;
        }
    }
    result
}

/// Splits the period off a word, unless it belongs to an abbreviation or the next word starts in lower case. Acronyms lose their periods.
fn push_with_period(result: &mut String, word: &str, next: Option<char>, abbreviations: &Abbreviations) {
    let Some(stem) = word.strip_suffix('.').filter(|stem| !stem.is_empty() && !word.bytes().all(|b| b == b'.')) else {
        result.push_str(word);
        return;
    };
    if stem.contains('.') && stem.chars().any(is_letter) {
        result.extend(stem.chars().filter(|&c| c != '.'));
        return;
    }
    let keeps = match abbreviations.0.get(stem) {
        Some(Keeps::Always) => true,
        Some(Keeps::BeforeDigit) if next.is_some_and(is_digit) => true,
        _ => next.is_some_and(|c| c.is_ascii_lowercase()),
    };
    result.push_str(if keeps { word } else { stem });
    if !keeps {
        result.push_str(" .");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_the_jar_does() {
        let abbreviations = Abbreviations::parse("# titles\nMr\n\nNo #NUMERIC_ONLY#\n");
        for (text, expected) in [
            ("a dog 's t-shirt", "a dog ' s t shirt"),
            ("don't", "don 't"),
            ("the 1990's", "the 1990 's"),
            ("u.s. and U.S.'s", "us and US ' s"),
            ("Mr. X. No. 5 No. A", "Mr. X . No. 5 No . A"),
            ("etc. and etc.", "etc. and etc ."),
            ("wait... 1,000,x", "wait ... 1,000 , x"),
            ("x-y-z -- ---", "x y-z - --"),
            ("``a'' (b)", "\" a \" ( b )"),
            ("w.\u{a0}b", "w . b"),
            (" \u{1} ", ""),
        ] {
            assert_eq!(normalise(text, &abbreviations), expected, "{text:?}");
        }
    }
}
