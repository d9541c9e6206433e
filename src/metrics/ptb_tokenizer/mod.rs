//! The word splitting of the COCO caption tools: Penn Treebank conventions, lower case, punctuation removed.
//!
//! Matches what `pycocoevalcap` 1.2 gets from its Java tokenizer (`-preserveLines -lowerCase`), one caption at a time. Written from that program's
//! observed behaviour; it is neither a port nor a general sentence splitter. It does not Americanise, stem or correct anything.
//!
//! ```
//! use vlp::metrics::ptb_tokenizer::{NextLine, tokenize};
//! assert_eq!(tokenize("The man's dog doesn't bark.", NextLine::End), "the man 's dog does n't bark");
//! ```

mod addresses;
mod classes;
mod lists;
mod markup;
mod numbers;
mod plain;
mod quotes;
mod scanner;
mod spelling;
mod words;

use rayon::prelude::*;

use plain::plain_tokens;
use scanner::Scanner;

/// Characters of the next line that can matter: leading white space aside, the longest word of interest has 12 letters.
const LOOKAHEAD: usize = 64;

/// Tokens that the COCO tools remove. Brackets are removed in upper case only, so the tokenizer's lower-case `-lrb-` stays.
const PUNCTUATION: [&str; 17] =
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// What follows a caption in the stream that the COCO tools tokenise as one text.
///
/// The tokenizer looks over the line end: `etc.` gets a second period before a capital, `art.` keeps its period before a digit, and
/// `the letter c.` loses it before `A`. About 1 caption in 3,500 of COCO and Flickr30k depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NextLine<'a> {
    /// The caption is the last one.
    #[default]
    End,
    /// The following caption (and, where that is blank, the ones after it, each after a `\n`).
    Text(&'a str),
}

/// The tokens of one caption, punctuation included, separated by single spaces.
///
/// Line ends within the caption (U+000A to U+000D, U+2028, U+2029) count as spaces. A token may hold U+00A0 (`22 3/4`).
pub fn ptb(text: &str, next: NextLine<'_>) -> String {
    tokens(text, next, true)
}

/// [`ptb`] with the punctuation tokens of the COCO tools removed: what BLEU, ROUGE-L and CIDEr are computed from.
pub fn tokenize(text: &str, next: NextLine<'_>) -> String {
    tokens(text, next, false)
}

fn tokens(text: &str, next: NextLine<'_>, punctuation: bool) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let at = plain_tokens(text, punctuation, &mut out);
    if at < text.len() {
        Scanner::new(&text[at..], next).run(punctuation, &mut out);
    }
    out
}

/// [`tokenize`] for each of `lines`, each of which sees the lines after it, as in the text that the COCO tools tokenise at once.
pub fn tokenize_lines<S: AsRef<str> + Sync>(lines: &[S]) -> Vec<String> {
    (0..lines.len())
        .into_par_iter()
        .map(|at| {
            let text = lines[at].as_ref();
            match &lines[at + 1..] {
                [] => tokenize(text, NextLine::End),
                [next, ..] if !next.as_ref().trim().is_empty() => tokenize(text, NextLine::Text(next.as_ref())),
                following => tokenize(text, NextLine::Text(&joined(following))),
            }
        })
        .collect()
}

/// The lines up to the first that is not blank, each after a `\n`, as far as they can matter.
fn joined<S: AsRef<str>>(lines: &[S]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text.push_str(line.as_ref());
        if text.len() > LOOKAHEAD || !line.as_ref().trim().is_empty() {
            break;
        }
    }
    text
}

/// Whether the COCO tools remove this token.
fn is_removed(token: &str) -> bool {
    // No punctuation begins with a letter or digit, and most tokens do.
    !token.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && PUNCTUATION.contains(&token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upper(text: &str) -> String {
        tokenize(text, NextLine::Text("A cat"))
    }

    #[test]
    fn words_and_contractions() {
        for (text, expected) in [
            ("A dog, a cat; and (maybe) \"two\" birds!", "a dog a cat and -lrb- maybe -rrb- two birds"),
            ("Don't he's they'll o'clock y'all", "do n't he 's they 'll o'clock y' all"),
            ("cannot gonna", "can not gon na"),
            ("black-and-white t-shirt", "black-and-white t-shirt"),
            ("22 3/4 inches at 5:54pm", "22\u{a0}3/4 inches at 5:54 pm"),
            ("AT&T &amp; Q&A at&t", "at&t & q&a at & t"),
            ("St. Mark's on Main St.", "st. mark 's on main st."),
            ("!! ?? ... .. --", "!! ??"),
            ("\u{1f600} smile\u{2026} \u{201c}x\u{201d}", "smile x"),
            ("", ""),
        ] {
            assert_eq!(upper(text), expected, "{text}");
        }
    }

    #[test]
    fn punctuation_stays_in_ptb() {
        assert_eq!(ptb("He said \"go\".", NextLine::End), "he said `` go '' .");
    }

    #[test]
    fn the_next_line_matters() {
        for (text, next, expected) in [
            ("art.", NextLine::Text("5 cats"), "art."),
            ("art.", NextLine::Text("A cat"), "art ."),
            ("the letter c.", NextLine::Text("a cat"), "the letter c."),
            ("the letter c.", NextLine::Text("A cat"), "the letter c ."),
            ("etc.", NextLine::Text("a cat"), "etc."),
            ("etc.", NextLine::Text(" 5"), "etc. ."),
            ("etc.", NextLine::End, "etc. ."),
            ("D.C.", NextLine::Text("Mr. Who"), "d.c. ."),
        ] {
            assert_eq!(ptb(text, next), expected, "{text} {next:?}");
        }
    }

    #[test]
    fn blank_lines_are_looked_over() {
        assert_eq!(tokenize_lines(&["letter c.", "", "A cat"]), ["letter c", "", "a cat"]);
        assert_eq!(tokenize_lines(&["letter c.", "", "a cat"]), ["letter c.", "", "a cat"]);
        assert_eq!(tokenize_lines(&["letter c."]), ["letter c."]);
    }

    #[test]
    fn line_ends_are_spaces() {
        assert_eq!(upper("a\r\nb\u{b}c\u{c}d\u{2028}e\u{2029}f"), "a b c d e f");
    }

    proptest! {
        #[test]
        fn any_text_gives_clean_tokens(text in any::<String>(), next in any::<String>()) {
            let out = ptb(&text, NextLine::Text(&next));
            prop_assert!(!out.contains("  ") && !out.starts_with(' ') && !out.ends_with(' ') && !out.contains(['\n', '\r']));
            let _ = tokenize(&text, NextLine::End);
        }

        #[test]
        fn any_typed_text_gives_clean_tokens(text in "[aeNnStT'`.,;:!?/&@#$%*+=<>()0-9_~ -]{0,40}") {
            let out = ptb(&text, NextLine::End);
            prop_assert!(!out.contains("  ") && !out.starts_with(' ') && !out.ends_with(' '));
        }
    }
}
