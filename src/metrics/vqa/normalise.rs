//! How the VQA evaluation (github.com/GT-Vision-Lab/VQA, a013f00) makes answers comparable: punctuation, then number
//! words, articles and contractions.
//!
//! Its oddities are kept, because scores depend on them. It does not compare answers.

/// What becomes a space, or nothing. Apostrophe, colon and `$ % & * #` stay.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// At most so many periods of an answer are removed.
const MOST_PERIODS: usize = 32;

const ARTICLES: [&str; 3] = ["a", "an", "the"];

const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Contractions that a word becomes if it is one of them but for ONE missing apostrophe (`dont`, `hadnt've`, `hadn'tve`).
/// Those with a capital (`I'm`) cannot be met after lower-casing and are left out here.
const CONTRACTIONS: &[&str] = &[
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "couldn't've",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hadn't've",
    "hasn't",
    "haven't",
    "he'd",
    "he'd've",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'd've",
    "it'll",
    "ma'am",
    "mightn't",
    "mightn't've",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "'ow's'at",
    "shan't",
    "she'd've",
    "should've",
    "shouldn't",
    "shouldn't've",
    "somebody'd've",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'd've",
    "someone'll",
    "someone's",
    "something'd",
    "something'd've",
    "something'll",
    "that's",
    "there'd",
    "there'd've",
    "there're",
    "there's",
    "they'd",
    "they'd've",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we'd've",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'd've",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "wouldn't've",
    "y'all",
    "y'all'll",
    "y'all'd've",
    "you'd",
    "you'd've",
    "you'll",
    "you're",
    "you've",
];

/// Both steps: [`punctuation`], then [`digit_article`].
pub fn normalise(text: &str) -> String {
    digit_article(&punctuation(text))
}

/// Line ends (`\n`) and tabs to spaces, white space at the edges removed.
pub fn strip(text: &str) -> String {
    text.replace(['\n', '\t'], " ").trim_matches(is_space).to_owned()
}

/// Removes or blanks punctuation (`processPunctuation`).
///
/// A mark becomes nothing where the ORIGINAL text has it beside a space somewhere, or a comma between two digits
/// anywhere; else a space. Then each period goes unless a digit follows it, 32 of them at most.
pub fn punctuation(text: &str) -> String {
    let comma_in_number = has_comma_in_number(text);
    let mut blanks = String::new();
    for mark in PUNCTUATION.chars() {
        let beside_space = || text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        if !comma_in_number && !beside_space() {
            blanks.push(mark);
        }
    }
    let replaced: Vec<char> = text
        .chars()
        .filter(|c| !PUNCTUATION.contains(*c) || blanks.contains(*c))
        .map(|c| if blanks.contains(c) { ' ' } else { c })
        .collect();
    let mut removed = 0;
    let mut out = String::with_capacity(text.len());
    for (at, &c) in replaced.iter().enumerate() {
        if c == '.' && removed < MOST_PERIODS && !replaced.get(at + 1).is_some_and(|&next| is_digit(next)) {
            removed += 1;
        } else {
            out.push(c);
        }
    }
    out
}

/// Lower case; number words to digits; articles removed; contractions mended; single spaces (`processDigitArticle`).
pub fn digit_article(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(is_space).filter(|word| !word.is_empty()).map(|word| {
        let number = NUMBERS.iter().find(|(name, _)| *name == word);
        number.map_or(word, |(_, digits)| digits)
    });
    words.filter(|word| !ARTICLES.contains(word)).map(mend_contraction).collect::<Vec<_>>().join(" ")
}

fn mend_contraction(word: &str) -> &str {
    if word == "somebody'd" {
        return "somebodyd"; // the official table has this pair the wrong way round
    }
    CONTRACTIONS.iter().find(|right| lacks_one_apostrophe(word, right)).copied().unwrap_or(word)
}

/// Whether `word` is `right` without one of its apostrophes.
fn lacks_one_apostrophe(word: &str, right: &str) -> bool {
    word.len() + 1 == right.len()
        && right.match_indices('\'').any(|(at, _)| {
            word.as_bytes()[..at] == right.as_bytes()[..at] && word.as_bytes()[at..] == right.as_bytes()[at + 1..]
        })
}

fn has_comma_in_number(text: &str) -> bool {
    let commas = text.match_indices(',');
    commas.into_iter().any(|(at, _)| {
        text[..at].chars().next_back().is_some_and(is_digit) && text[at + 1..].chars().next().is_some_and(is_digit)
    })
}

/// What Python's `str.split()` splits at.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Zeros of the decimal digits beyond ASCII (general category Nd, Unicode 14), which Python's `\d` matches.
const OTHER_ZEROS: [u32; 65] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
    0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
    0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0,
    0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0,
    0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && OTHER_ZEROS.iter().any(|&zero| (zero..zero + 10).contains(&u32::from(c))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_beside_a_space_vanishes_elsewhere_it_parts_words() {
        assert_eq!(punctuation("yes/no"), "yes no");
        assert_eq!(punctuation("yes / no/maybe"), "yes  nomaybe");
        assert_eq!(punctuation("1,000/2"), "10002");
        assert_eq!(punctuation("$5 & #3: it's 100%*"), "$5 & #3: it's 100%*");
    }

    #[test]
    fn periods_go_unless_a_digit_follows() {
        assert_eq!(punctuation("1.5 m."), "1.5 m");
        assert_eq!(punctuation("u.s.a."), "usa");
        assert_eq!(punctuation("v.\u{0663}"), "v.\u{0663}");
        assert_eq!(punctuation(".½"), "½");
        assert_eq!(punctuation(&".".repeat(40)), ".".repeat(8));
    }

    #[test]
    fn numbers_articles_and_contractions() {
        assert_eq!(digit_article("None of THE ten a\u{1f}b an"), "0 of 10 b");
        assert_eq!(digit_article("hes hadnt've hadn'tve hadntve"), "he's hadn't've hadn't've hadntve");
        assert_eq!(
            digit_article("yall yalld've y'alldve ows'at 'owsat ow's'at Im lets"),
            "y'all yalld've y'alldve ows'at 'owsat 'ow's'at im lets"
        );
        assert_eq!(digit_article("twas somebody'd somebodyd'll"), "'twas somebodyd somebodyd'll");
    }

    #[test]
    fn edges() {
        assert_eq!(strip("\t a\tb\n"), "a b");
        assert_eq!(strip("\u{1c}a\r"), "a");
    }
}
