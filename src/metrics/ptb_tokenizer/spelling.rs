//! How a token is written: lower case, brackets as `-lrb-`, spaces inside as U+00A0.

use super::classes::rewritten;

/// How the text of a token becomes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// The text itself, lower-cased.
    Plain,
    /// As `Plain`, with `&amp;` as `&`.
    Joined,
    /// Something else.
    Fixed(&'static str),
    /// Nothing, not even an empty token.
    Nothing,
    /// Each typographic quote in its ASCII form.
    Quotes,
}

/// Appends the token `text`.
pub(super) fn push_spelled(out: &mut String, text: &[char], spelling: Spelling) {
    match spelling {
        Spelling::Nothing => {}
        Spelling::Fixed(fixed) => out.push_str(fixed),
        Spelling::Quotes => text.iter().for_each(|&c| out.push_str(rewritten(c).unwrap_or("`"))),
        Spelling::Plain if text.iter().all(char::is_ascii_alphanumeric) => {
            out.extend(text.iter().map(char::to_ascii_lowercase));
        }
        Spelling::Plain => out.push_str(&plain(text).to_lowercase()),
        Spelling::Joined => out.push_str(&plain(text).to_lowercase().replace("&amp;", "&")),
    }
}

fn plain(text: &[char]) -> String {
    if text.iter().all(|&c| c == '\u{ad}') {
        return "-".into();
    }
    let mut word = String::with_capacity(text.len());
    for &c in text {
        match c {
            '(' => word.push_str("-lrb-"),
            ')' => word.push_str("-rrb-"),
            '[' if text.len() == 1 => word.push_str("-lsb-"),
            ']' if text.len() == 1 => word.push_str("-rsb-"),
            '{' if text.len() == 1 => word.push_str("-lcb-"),
            '}' if text.len() == 1 => word.push_str("-rcb-"),
            ' ' => word.push('\u{a0}'),
            '\u{ad}' => {}
            _ => word.push(c),
        }
    }
    word
}
