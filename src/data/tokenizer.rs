//! WordPiece as BERT does it: text to ids of `vocab.txt`, and ids back to words.
//!
//! Normalising, splitting at punctuation and matching of pieces are the `tokenizers` crate's. Around it stands what the
//! original does differently from that crate's whole pipeline: control tokens are kept whole only where they stand between
//! blanks (`[SEP]arated` is not one), lower-casing works on whole words, and one block of Chinese characters more is split.
//! Checked against the original's rules for every Unicode character; what differs was not yet assigned in Unicode 8, whose
//! tables the crate has (the original takes its Python's).

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::error::{DataError, VocabularyProblem, read_file};

/// Tokens that stay whole where they stand between blanks.
const KEPT: [&str; 6] = ["[UNK]", "[SEP]", "[X_SEP]", "[PAD]", "[CLS]", "[MASK]"];

/// Characters per word above which it becomes `[UNK]`.
const LONGEST_WORD: usize = 100;

/// A vocabulary and the rules that cut text into its pieces.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    model: WordPiece,
    ids: HashMap<String, u32>,
    tokens: Vec<String>,
    cased: bool,
    pad: u32,
    unk: u32,
    cls: u32,
    sep: u32,
    mask: u32,
}

impl Tokenizer {
    /// Reads `vocab.txt`: one token per line, the line's number (from 0) being its id. `[unused1]` is called `[X_SEP]`, and
    /// `[unused2]` to `[unused11]` `[SEP_0]` to `[SEP_9]`. Without `cased`, text is lower-cased and stripped of accents.
    pub fn from_file(path: impl AsRef<Path>, cased: bool) -> Result<Self, DataError> {
        let path = path.as_ref();
        let bytes = read_file("data.vocabulary", "vocabulary", &path.to_string_lossy())?;
        Self::from_bytes(&bytes, cased).map_err(|problem| DataError::Vocabulary { path: PathBuf::from(path), problem })
    }

    fn from_bytes(bytes: &[u8], cased: bool) -> Result<Self, VocabularyProblem> {
        let text = std::str::from_utf8(bytes).map_err(|e| VocabularyProblem::NotUtf8 {
            line: 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count(),
        })?;
        let mut ids = HashMap::new();
        let mut tokens = Vec::new();
        for (line, token) in text.trim_end().lines().enumerate() {
            let token = renamed(token.trim());
            if token.is_empty() {
                return Err(VocabularyProblem::Blank { line: line + 1 });
            }
            match ids.entry(token.clone()) {
                Entry::Occupied(first) => {
                    let first = *first.get() as usize + 1;
                    return Err(VocabularyProblem::Duplicate { token, first, second: line + 1 });
                }
                Entry::Vacant(free) => free.insert(line as u32),
            };
            tokens.push(token);
        }
        let mut missing = Vec::new();
        let [pad, unk, cls, sep, mask] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(|token| {
            ids.get(token).copied().unwrap_or_else(|| {
                missing.push(token.to_owned());
                0
            })
        });
        let model = WordPiece::read_bytes(tokens.join("\n").as_bytes()).and_then(|vocabulary| {
            WordPiece::builder()
                .vocab(vocabulary)
                .unk_token("[UNK]".into())
                .continuing_subword_prefix("##".into())
                .max_input_chars_per_word(LONGEST_WORD)
                .build()
        });
        match model {
            Ok(model) if missing.is_empty() => Ok(Self { model, ids, tokens, cased, pad, unk, cls, sep, mask }),
            _ => Err(VocabularyProblem::ControlTokens { missing }),
        }
    }

    /// Id of `[PAD]`.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Id of `[UNK]`.
    pub fn unk_id(&self) -> u32 {
        self.unk
    }

    /// Id of `[CLS]`.
    pub fn cls_id(&self) -> u32 {
        self.cls
    }

    /// Id of `[SEP]`.
    pub fn sep_id(&self) -> u32 {
        self.sep
    }

    /// Id of `[MASK]`.
    pub fn mask_id(&self) -> u32 {
        self.mask
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The token with this id; `[UNK]` for an id outside the vocabulary.
    pub fn token(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("[UNK]", String::as_str)
    }

    /// The id of this token, if the vocabulary has it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The ids of the pieces of a text; control tokens are not added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let clean = cleaned(text);
        let mut ids = Vec::with_capacity(clean.len() / 4 + 1);
        for word in clean.split_whitespace() {
            match self.ids.get(word) {
                Some(id) if KEPT.contains(&word) => ids.push(*id),
                _ => self.encode_word(word, &mut ids),
            }
        }
        ids
    }

    /// A word between blanks: case and accents, then punctuation, then pieces.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let word = match (self.cased, word.is_ascii()) {
            (true, _) => Cow::Borrowed(word),
            (false, true) => Cow::Owned(word.to_ascii_lowercase()),
            (false, false) => {
                let strip_accents = BertNormalizer::new(false, false, Some(true), false);
                Cow::Owned(normalized(&strip_accents, word.to_lowercase()))
            }
        };
        if word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return self.encode_part(&word, ids); // nothing to split at
        }
        let mut parts = PreTokenizedString::from(&*word);
        if BertPreTokenizer.pre_tokenize(&mut parts).is_err() {
            return ids.push(self.unk);
        }
        for (part, ..) in parts.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            self.encode_part(part, ids);
        }
    }

    /// A stretch of text without blanks and punctuation.
    fn encode_part(&self, part: &str, ids: &mut Vec<u32>) {
        match self.model.tokenize(part) {
            Ok(pieces) => ids.extend(pieces.iter().map(|piece| piece.id)),
            Err(_) => ids.push(self.unk),
        }
    }

    /// The words of a caption: cut at the first `[SEP]` or `[PAD]`, `##` pieces glued to what stands before them.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        for id in ids.iter().take_while(|id| **id != self.sep && **id != self.pad) {
            let token = self.token(*id);
            match token.strip_prefix("##") {
                Some(rest) if !text.is_empty() => text.push_str(rest),
                _ => {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(token);
                }
            }
        }
        text
    }
}

/// The name under which the original knows a token of the file.
fn renamed(token: &str) -> String {
    let number = token.strip_prefix("[unused").and_then(|rest| rest.strip_suffix(']')).map(str::parse);
    match number {
        Some(Ok(1)) => "[X_SEP]".into(),
        Some(Ok(n @ 2..=11)) => format!("[SEP_{}]", n - 2),
        _ => token.into(),
    }
}

/// Text without control characters, with plain blanks, and with blanks around Chinese characters.
fn cleaned(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text); // nothing to clean, as in nearly all captions
    }
    Cow::Owned(normalized(&BertNormalizer::new(true, true, Some(false), false), split_missed_block(text)))
}

fn normalized(rules: &BertNormalizer, text: String) -> String {
    let mut string = NormalizedString::from(text.as_str());
    match rules.normalize(&mut string) {
        Ok(()) => string.get().to_owned(),
        Err(_) => text,
    }
}

/// Blanks around the characters of CJK extension E that the crate's normaliser leaves unsplit (U+2B820 to U+2B91F).
fn split_missed_block(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        if ('\u{2B820}'..='\u{2B91F}').contains(&c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::Tokenizer;

    /// A vocabulary of the control tokens and all characters of `text`, so that every piece shows.
    fn tokenizer(text: &str, cased: bool) -> Tokenizer {
        let mut tokens: Vec<String> =
            ["[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(Into::into).into();
        let mut characters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        characters.sort_unstable();
        characters.dedup();
        tokens.extend(characters.iter().flat_map(|c| [c.to_string(), format!("##{c}")]));
        Tokenizer::from_bytes(tokens.join("\n").as_bytes(), cased).unwrap()
    }

    fn words(text: &str, more: &str, cased: bool) -> String {
        let tokenizer = tokenizer(&format!("{text}{more}"), cased);
        let ids = tokenizer.encode(text);
        ids.iter().map(|id| tokenizer.token(*id)).collect::<Vec<_>>().join(" ").replace(" ##", "")
    }

    #[test]
    fn unusual_characters() {
        let cases = [
            // text, cased, uncased
            ("ΟΔΟΣ ΣΑ", "ΟΔΟΣ ΣΑ", "οδος σα"),
            ("İz", "İz", "iz"),
            ("Ångström", "Ångström", "angstrom"),
            ("a\u{2B820}b\u{4E2D}c", "a \u{2B820} b \u{4E2D} c", "a \u{2B820} b \u{4E2D} c"),
            ("a\u{3000}b\u{2028}c\u{A0}d\u{85}e\u{B}f", "a b c def", "a b c def"),
            ("a\u{200B}b\u{FEFF}c", "abc", "abc"),
            ("«a»—b…c‘s", "« a » — b … c ‘ s", "« a » — b … c ‘ s"),
            ("a`b^c$d+e~f|g<h>", "a ` b ^ c $ d + e ~ f | g < h >", "a ` b ^ c $ d + e ~ f | g < h >"),
            ("3½ €5 x²", "3½ €5 x²", "3½ €5 x²"),
            ("[SEP] [sep] [SEP_0] [X_SEP]", "[SEP] [ sep ] [ SEP _ 0 ] [X_SEP]", "[SEP] [ sep ] [ sep _ 0 ] [X_SEP]"),
        ];
        for (text, cased, uncased) in cases {
            assert_eq!(words(text, "", true), cased, "{text:?}");
            assert_eq!(words(text, uncased, false), uncased, "{text:?}");
        }
    }

    #[test]
    fn a_word_of_a_hundred_characters_is_the_longest() {
        assert_eq!(words(&"é".repeat(100), "", true), "é".repeat(100));
        assert_eq!(words(&"é".repeat(101), "", true), "[UNK]");
    }

    proptest! {
        #[test]
        fn plain_text_needs_no_cleaning(text in "[ -~]{0,40}") {
            // A character that cleaning removes makes the text take the long way.
            let tokenizer = tokenizer("abcdeABC.,'", true);
            proptest::prop_assert_eq!(tokenizer.encode(&text), tokenizer.encode(&format!("{text}\u{200B}")));
        }
    }

    #[test]
    fn decoding_cuts_and_glues() {
        let tokenizer = tokenizer("abc", true);
        let ids = |tokens: &[&str]| tokens.iter().map(|t| tokenizer.id(t).unwrap()).collect::<Vec<_>>();
        assert_eq!(tokenizer.decode(&ids(&["a", "##b", "c", "##a", "##b", "[SEP]", "a"])), "ab cab");
        assert_eq!(tokenizer.decode(&ids(&["##b", "c", "[PAD]", "a"])), "##b c");
        assert_eq!(tokenizer.decode(&[]), "");
        assert_eq!(tokenizer.token(9999), "[UNK]");
    }

    #[test]
    fn unused_tokens_get_their_names() {
        let tokenizer = tokenizer("", true);
        assert_eq!((tokenizer.token(1), tokenizer.token(2)), ("[X_SEP]", "[SEP_0]"));
        assert_eq!((tokenizer.pad_id(), tokenizer.unk_id(), tokenizer.mask_id(), tokenizer.vocab_size()), (0, 3, 6, 7));
    }
}
