//! Word lists, found by running the COCO tools' tokenizer on every string of up to five letters and on a large vocabulary.
//!
//! Sorted, so that membership is a binary search. All entries are lower case.

/// Abbreviations whose period belongs to the word; at the end of a sentence a second period is written.
#[rustfmt::skip]
const SENTENCE_FINAL: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bhd", "bldg", "blvd", "bros", "calif", "co", "colo", "conn", "corp", "cos", "ct", "dak",
    "dec", "esq", "est", "etc", "ext", "feb", "fla", "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky", "ltd", "mar", "md",
    "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla", "penn", "plc", "ppte", "pptes", "ppty", "pptys", "pte", "ptes", "pty", "ptys",
    "rd", "rt", "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ", "va", "vt", "wed", "wis", "wisc",
    "wyo",
];

/// As `SENTENCE_FINAL`, but only if the first letter is a capital.
const CAPITALISED: &[&str] = &["ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"];

/// Abbreviations that cannot end a sentence: their period never ends one.
#[rustfmt::skip]
const TITLES: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf", "cie", "cmdr", "col", "comdr", "cpl", "dept", "det", "dr", "drs", "elec", "ens",
    "ft", "gen", "gov", "govs", "hon", "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mfg", "mlle", "mme", "mr", "mrs", "ms", "msgr", "mt", "mtg",
    "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep", "reps", "rev", "sen", "sens", "sfc", "sgt", "spc", "st", "ste", "supt", "supts", "treas", "vs", "wm",
];

/// Abbreviations that do not count as such in capitals.
const NOT_IN_CAPITALS: &[&str] = &["mfg", "mtg", "ppte", "pptes", "ppty", "pptys", "pte", "ptes", "pty", "ptys"];

/// Abbreviations only where one space and a digit follow (`no. 5`).
const BEFORE_DIGIT: &[&str] = &["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Words that begin a sentence: an acronym before one of them, capitalised or in capitals, ends the sentence before it.
#[rustfmt::skip]
const SENTENCE_STARTERS: &[&str] = &[
    "a", "about", "according", "additionally", "after", "an", "as", "at", "but", "earlier", "he", "her", "here", "however", "if", "in", "it", "last", "many",
    "more", "now", "once", "one", "other", "our", "she", "since", "so", "some", "such", "that", "the", "their", "then", "there", "these", "they", "this", "we",
    "what", "when", "while", "yet", "you",
];

/// Extensions of file names.
#[rustfmt::skip]
const EXTENSIONS: &[&str] = &[
    "bat", "bmp", "c", "cgi", "class", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h", "htm", "html", "jar", "java", "jpeg", "jpg", "mov", "mp3", "pdf",
    "php", "pl", "png", "ppt", "ps", "py", "sql", "tar", "txt", "wav", "x", "xml", "zip",
];

/// Words of two tokens, and the length of the first.
const SPLIT: &[(&str, usize)] =
    &[("cannot", 3), ("d'ye", 2), ("gimme", 3), ("gonna", 3), ("gotta", 3), ("lemme", 3), ("more'n", 4), ("wanna", 3)];

/// Longest entry of any list.
pub(super) const LONGEST: usize = 12;

/// What the period after an abbreviation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abbreviation {
    /// Belongs to the word; doubled at the end of a sentence.
    SentenceFinal,
    /// Belongs to the word.
    Title,
    /// Belongs to the word if one space and a digit follow.
    BeforeDigit,
}

/// Whether a period after `word` belongs to it.
pub(super) fn abbreviation(word: &[char]) -> Option<Abbreviation> {
    let mut buffer = [0_u8; LONGEST];
    let lower = lower_ascii(word, &mut buffer)?;
    let holds = |list: &[&str]| list.binary_search(&lower).is_ok();
    if holds(NOT_IN_CAPITALS) && word.iter().all(char::is_ascii_uppercase) {
        None
    } else if holds(SENTENCE_FINAL) || (word[0].is_ascii_uppercase() && holds(CAPITALISED)) {
        Some(Abbreviation::SentenceFinal)
    } else if holds(TITLES) {
        Some(Abbreviation::Title)
    } else if holds(BEFORE_DIGIT) {
        Some(Abbreviation::BeforeDigit)
    } else {
        None
    }
}

/// Whether `word`, with or without a period after it, begins a sentence.
pub(super) fn starts_sentence(word: &[char], period: bool) -> bool {
    let mut buffer = [0_u8; LONGEST];
    let capital = word.first().is_some_and(char::is_ascii_uppercase);
    let rest = word.get(1..).unwrap_or_default();
    let one_case = rest.iter().all(char::is_ascii_uppercase) || rest.iter().all(char::is_ascii_lowercase);
    let Some(lower) = lower_ascii(word, &mut buffer) else { return false };
    capital
        && one_case
        && if period { matches!(lower, "mr" | "ms") } else { SENTENCE_STARTERS.binary_search(&lower).is_ok() }
}

/// Whether `word` is a file name's extension.
pub(super) fn is_extension(word: &[char]) -> bool {
    let mut buffer = [0_u8; LONGEST];
    lower_ascii(word, &mut buffer).is_some_and(|lower| EXTENSIONS.binary_search(&lower).is_ok())
}

/// Length of the first token if `word` is written as two.
pub(super) fn split_point(word: &[char]) -> Option<usize> {
    let mut buffer = [0_u8; LONGEST];
    // All entries begin with one of these.
    if !matches!(word.first()?.to_ascii_lowercase(), 'c' | 'd' | 'g' | 'l' | 'm' | 'w') {
        return None;
    }
    let lower = lower_ascii(word, &mut buffer)?;
    SPLIT.iter().find(|(entry, _)| *entry == lower).map(|&(_, length)| length)
}

fn lower_ascii<'b>(word: &[char], buffer: &'b mut [u8; LONGEST]) -> Option<&'b str> {
    let slot = buffer.get_mut(..word.len()).filter(|slot| !slot.is_empty())?;
    for (byte, c) in slot.iter_mut().zip(word) {
        *byte = if c.is_ascii() { c.to_ascii_lowercase() as u8 } else { return None };
    }
    std::str::from_utf8(slot).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        for list in [SENTENCE_FINAL, CAPITALISED, TITLES, NOT_IN_CAPITALS, BEFORE_DIGIT, SENTENCE_STARTERS, EXTENSIONS]
        {
            assert!(list.is_sorted());
            assert!(list.iter().all(|entry| entry.len() <= LONGEST));
        }
    }

    #[test]
    fn case_matters_where_it_does() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(abbreviation(&chars("ETC")), Some(Abbreviation::SentenceFinal));
        assert_eq!(abbreviation(&chars("mass")), None);
        assert_eq!(abbreviation(&chars("Mass")), Some(Abbreviation::SentenceFinal));
        for (word, period, expected) in [
            ("THE", false, true),
            ("A", false, true),
            ("tHE", false, false),
            ("THe", false, false),
            ("Mr", true, true),
            ("Mr", false, false),
            ("A", true, false),
        ] {
            assert_eq!(starts_sentence(&chars(word), period), expected, "{word} {period}");
        }
        for &(word, length) in SPLIT {
            assert_eq!(split_point(&chars(word)), Some(length));
        }
        assert_eq!(split_point(&chars("Cannot")), Some(3));
        assert_eq!(abbreviation(&[]), None);
    }
}
