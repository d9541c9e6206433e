//! The words at the beginning of a caption to which only the plainest rules apply: most of all words.
//!
//! A shortcut over bytes. It takes nothing of which the scanner would make something else, and stops at the first place
//! where it is not sure; the scanner goes on from there.

use super::lists::{LONGEST, abbreviation, split_point};

/// Appends the tokens at the beginning of `text` to `out`, punctuation too where it is `kept`. Returns where the first begins that
/// needs the scanner: the length of `text` where none does.
///
/// Taken are ASCII letters before a space or the end; two or more of them before a closing `.` or `,`; and these two marks.
pub(super) fn plain_tokens(text: &str, kept: bool, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        while bytes.get(at) == Some(&b' ') {
            at += 1;
        }
        let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if end > at {
            let word = &text[at..end];
            let taken = match bytes.get(end) {
                None | Some(b' ') => !is_special(word, false),
                Some(mark) => end > at + 1 && closes(bytes, end) && !is_special(word, *mark == b'.'),
            };
            if !taken {
                return at;
            }
            push(out, word);
            at = end;
        } else if closes(bytes, at) {
            if kept {
                push(out, &text[at..=at]);
            }
            at += 1;
        } else {
            return at;
        }
    }
}

/// Whether a period or comma stands at `at`, before the end or before a space that no period follows (`. .` may be an ellipsis).
fn closes(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b'.' | b','))
        && match bytes.get(at + 1) {
            None => true,
            Some(after) => *after == b' ' && bytes.get(at + 2) != Some(&b'.'),
        }
}

/// Whether a word of ASCII letters is written as two, or makes something of the period behind it.
fn is_special(word: &str, before_period: bool) -> bool {
    if word.len() > LONGEST {
        return false;
    }
    let mut buffer = ['\0'; LONGEST];
    buffer.iter_mut().zip(word.chars()).for_each(|(to, from)| *to = from);
    let word = &buffer[..word.len()];
    split_point(word).is_some() || (before_period && abbreviation(word).is_some())
}

fn push(out: &mut String, token: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    let start = out.len();
    out.push_str(token);
    out[start..].make_ascii_lowercase();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scanner::Scanner;
    use super::super::{NextLine, ptb};

    /// The scanner alone.
    fn slow(text: &str, next: NextLine<'_>) -> String {
        let mut out = String::new();
        Scanner::new(text, next).run(true, &mut out);
        out
    }

    #[test]
    fn what_the_scanner_has_to_see() {
        for text in [
            "a dog . .",
            "a dog. . .",
            "a dog. b",
            "Mr. cannot",
            "cannot.",
            "etc.",
            "no.",
            "U.S. dog",
            "a dog., b",
            "a dog,5",
            "a.",
            "I.",
            "ph.d. x",
            "Ph. D.",
            "c. ",
            "dog . , x",
            "www. x",
            "A, b",
            "dog .",
            "gonna,",
            "a  dog",
            " a dog. ",
            ".",
            ",",
            " , .",
            "Wash. dc",
        ] {
            for next in [
                NextLine::End,
                NextLine::Text("A cat"),
                NextLine::Text(". x"),
                NextLine::Text("5 x"),
                NextLine::Text(""),
            ] {
                assert_eq!(ptb(text, next), slow(text, next), "{text} {next:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_shortcut_changes_nothing(text in "([A-Za-z]{1,6}|cannot|etc|Mr|no|ph|a|U)?([ .,]{1,3}([A-Za-z]{0,5}|gonna|St|art|[-'&@/0-9:]{1,2})){0,8}", next in "[A-Za-z.,0-9 ]{0,6}") {
            prop_assert_eq!(ptb(&text, NextLine::Text(&next)), slow(&text, NextLine::Text(&next)));
            prop_assert_eq!(ptb(&text, NextLine::End), slow(&text, NextLine::End));
        }
    }
}
