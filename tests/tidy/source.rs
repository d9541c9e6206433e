//! A Rust file as text, with comments and literals told apart from code, and the paths that it names.
//!
//! No parser: enough of the lexer that a word in a comment or a string is not taken for code.

use std::ops::Range;

/// One file. `code`, `comments` and `shipped` have the length and lines of `text`; what does not belong is blank.
pub struct Source {
    /// Relative to the project, with `/`.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// Without comments and literals.
    pub code: String,
    /// Comments alone, documentation included.
    pub comments: String,
    /// `code` without the inline modules marked `#[cfg(test)]`.
    pub shipped: String,
}

/// A `use` statement.
pub struct Use {
    /// Counted from 1.
    pub line: usize,
    /// `pub`, whatever its reach.
    pub public: bool,
    /// Between `use` and `;`.
    pub path: String,
}

impl Source {
    /// Splits `text` into its parts.
    pub fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let mut shipped = code.clone().into_bytes();
        for body in modules(&code).into_iter().filter(|m| m.test_only).map(|m| m.body) {
            shipped[body].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        let shipped = String::from_utf8(shipped).expect("whole characters were blanked");
        Self { path: path.into(), text: text.into(), code, comments, shipped }
    }

    /// Line of a byte position, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
    }

    /// All `use` statements.
    pub fn uses(&self) -> Vec<Use> {
        let mut found = Vec::new();
        for at in find_word(&self.code, "use") {
            let rest = &self.code[at + "use".len()..];
            if rest.starts_with('<') {
                continue; // precise capturing: `impl Trait + use<'a>`
            }
            let before = self.code[..at].trim_end();
            let restricted =
                before.ends_with(')') && before.rfind('(').is_some_and(|p| ends_with_word(&before[..p], "pub"));
            let path = rest.split(';').next().unwrap_or_default().trim().to_string();
            found.push(Use { line: self.line(at), public: restricted || ends_with_word(before, "pub"), path });
        }
        found
    }

    /// First segments below the crate root, with their lines: of `crate::…`, and of `super::…` chains that end there.
    pub fn crate_imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in find_word(&self.code, "crate") {
            found.extend(self.heads_after(at + "crate".len()));
        }
        let inline = modules(&self.code);
        for at in find_word(&self.code, "super") {
            if self.code[..at].trim_end().ends_with("super::") {
                continue; // counted with the head of its chain
            }
            let (mut end, mut steps) = (at + "super".len(), 1);
            while let Some(rest) = self.code[end..].trim_start().strip_prefix("::") {
                let next = rest.trim_start();
                if !next.starts_with("super") || next["super".len()..].starts_with(is_word) {
                    break;
                }
                end = self.code.len() - next.len() + "super".len();
                steps += 1;
            }
            if steps == depth(&self.path) + inline.iter().filter(|m| m.body.contains(&at)).count() {
                found.extend(self.heads_after(end));
            }
        }
        found
    }

    /// What `module::…` names in shipped code, with its line: `module::name`, each name of `module::{…}`, and `as` for a renamed module.
    pub fn paths_through(&self, module: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in find_word(&self.shipped, module) {
            let end = at + module.len();
            found.extend(heads(&self.shipped[end..]).into_iter().map(|name| (self.line(at), name)));
            if self.shipped[end..].trim_start().starts_with("as ") {
                found.push((self.line(at), "as".into()));
            }
        }
        found
    }

    fn heads_after(&self, at: usize) -> Vec<(usize, String)> {
        heads(&self.code[at..]).into_iter().map(|name| (self.line(at), name)).collect()
    }
}

/// Positions of `word` where it stands alone.
pub fn find_word(text: &str, word: &str) -> Vec<usize> {
    let alone = |at: &usize| !text[..*at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word);
    text.match_indices(word).map(|(at, _)| at).filter(alone).collect()
}

fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|before| !before.ends_with(is_word))
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `::name…` gives `name`, `::{a::b, c}` gives `a` and `c`, `::*` gives `*`; nothing without `::`.
fn heads(text: &str) -> Vec<String> {
    let Some(rest) = text.trim_start().strip_prefix("::") else { return Vec::new() };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else { return vec![head(rest)] };
    let (mut names, mut level, mut start) = (Vec::new(), 1, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' => level -= 1,
            _ => {}
        }
        if level == 0 || (level == 1 && c == ',') {
            names.push(head(group[start..at].trim()));
            start = at + 1;
        }
        if level == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn head(text: &str) -> String {
    match text.strip_prefix("r#").unwrap_or(text) {
        text if text.starts_with('*') => "*".into(),
        text => text.chars().take_while(|c| is_word(*c)).collect(),
    }
}

/// Levels of a file's module below the crate root: 0 for `src/lib.rs`, 1 for `src/data/mod.rs`, 2 for `src/data/batch.rs`.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    match inside {
        "lib" | "main" => 0,
        _ => inside.split('/').filter(|part| *part != "mod").count(),
    }
}

struct Inline {
    body: Range<usize>,
    test_only: bool,
}

/// Inline modules, `mod name { body }`.
fn modules(code: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    for at in find_word(code, "mod") {
        let rest = &code[at + "mod".len()..];
        let after_name = rest.trim_start().trim_start_matches(is_word).trim_start();
        if !after_name.starts_with('{') {
            continue;
        }
        let start = code.len() - after_name.len() + 1;
        let mut level = 1;
        let end = code[start..].char_indices().find(|(_, c)| {
            level += i32::from(*c == '{') - i32::from(*c == '}');
            level == 0
        });
        let before = code[..at].trim_end();
        found.push(Inline {
            body: start..end.map_or(code.len(), |(at, _)| start + at),
            test_only: before.trim_end_matches("pub").trim_end().ends_with("#[cfg(test)]"),
        });
    }
    found
}

/// Code and comments of a file, each as long as the file.
fn split(text: &str) -> (String, String) {
    let blank = |piece: &str| piece.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect::<String>();
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let comment = comment_length(rest);
        let literal = if code.ends_with(is_word) && c != '"' { 0 } else { literal_length(rest) };
        let (piece, tail) = rest.split_at(comment.max(literal).max(c.len_utf8()));
        code += &if comment + literal > 0 { blank(piece) } else { piece.to_string() };
        comments += &if comment > 0 { piece.to_string() } else { blank(piece) };
        rest = tail;
    }
    (code, comments)
}

/// Bytes of the comment that `text` starts with; 0 for none. Block comments nest.
fn comment_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if !text.starts_with("/*") {
        return 0;
    }
    let (mut level, mut at) = (0, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        level += step;
        at += if step == 0 { 1 } else { 2 };
        if level == 0 {
            return at;
        }
    }
    text.len()
}

/// Bytes of the string, byte string or character that `text` starts with; 0 for none.
fn literal_length(text: &str) -> usize {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if prefix > 1 {
        return 0;
    }
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let opened = raw.trim_start_matches('#');
        let hashes = raw.len() - opened.len();
        let Some(body) = opened.strip_prefix('"') else { return 0 };
        let close = format!("\"{}", "#".repeat(hashes));
        return text.len() - body.len() + body.find(&close).map_or(body.len(), |at| at + close.len());
    }
    if let Some(body) = unprefixed.strip_prefix('"') {
        return prefix + 1 + until_quote(body, '"');
    }
    let Some(body) = unprefixed.strip_prefix('\'') else { return 0 };
    let mut characters = body.char_indices();
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => prefix + 1 + until_quote(body, '\''),
        (Some(_), Some((at, '\''))) => prefix + 1 + at + 1,
        _ => 0, // a lifetime
    }
}

/// Bytes up to and with the closing `quote`; a backslash takes the next character with it.
fn until_quote(body: &str, quote: char) -> usize {
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    body.len()
}
