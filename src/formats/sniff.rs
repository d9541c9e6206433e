//! What a file is, by its first bytes, and what to do about files that people hold for a checkpoint by mistake.

use std::path::Path;

use super::error::FormatError;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A pickle, or several.
    Pickle,
    /// A zip archive.
    Zip,
    /// A safetensors file.
    Safetensors,
    /// A numpy array.
    Npy,
}

const OTHER_FILE: &str = "name a file of the expected format";

/// The format of a file; none if it is not one of them.
pub(super) fn format(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [b'P', b'K', 3, 4, ..] => Some(Format::Zip),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Format::Npy),
        // PROTO, MARK or EMPTY containers of protocol 2 and later.
        [0x80, 0..=5, ..] => Some(Format::Pickle),
        [_, _, _, _, _, _, 0, 0, b'{', ..] => Some(Format::Safetensors),
        // The first operation of a pickle in text form: a name, a mark, or the magic number.
        [b'c' | b'(' | b'L', rest @ ..] if text_pickle(rest) => Some(Format::Pickle),
        _ => None,
    }
}

/// Whether these bytes follow the first operation of a pickle of protocol 0 or 1: no markup, no prose.
fn text_pickle(rest: &[u8]) -> bool {
    let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
    line.len() < 100 && line.len() < rest.len() && !line.contains(&b' ') && !line.contains(&b'<')
}

/// The error for a file that is not `expected`.
pub(super) fn other_format(path: &Path, bytes: &[u8], expected: &'static str) -> FormatError {
    let (looks_like, help) = describe(path, bytes);
    FormatError::OtherFormat { path: path.to_owned(), looks_like, expected, help }
}

fn describe(path: &Path, bytes: &[u8]) -> (String, String) {
    let shown = path.display();
    let plain = |what: &str, help: &str| (what.to_owned(), help.to_owned());
    let head = &bytes[..bytes.len().min(512)];
    let text = head.trim_ascii_start().to_ascii_lowercase();
    let text_starts = |starts: &[&str]| starts.iter().any(|s| text.starts_with(s.as_bytes()));
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();

    if bytes.is_empty() {
        return plain("empty", "the download or the copy did not succeed; fetch the file again");
    }
    if text_starts(&["version https://git-lfs"]) {
        let help = format!("the real file is fetched by `git lfs pull --include '{shown}'` in its repository");
        return ("a git-lfs pointer, not the file it points to".to_owned(), help);
    }
    if text_starts(&["<!doctype html", "<html", "<head", "<body"]) {
        let what = "a web page, probably an error or log-in page that was saved in place of the file";
        return plain(what, "open it in a browser to see what went wrong, then download the file itself");
    }
    if text_starts(&["<?xml", "<error"]) {
        let what = "an XML document, probably an error message of the server it was downloaded from";
        return plain(what, "read it to see what went wrong, then download the file again");
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        let help = format!(
            "unpack it first (`tar xzf '{shown}'`, or `gunzip`) and name the file inside, e.g. pytorch_model.bin"
        );
        return ("compressed with gzip".to_owned(), help);
    }
    for (magic, program) in [
        (&b"BZh"[..], "bzip2"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c], "7-Zip"),
        (b"Rar!", "RAR"),
    ] {
        if head.starts_with(magic) {
            return (format!("compressed with {program}"), "unpack it first and name the file inside".to_owned());
        }
    }
    if head.get(257..262) == Some(b"ustar") {
        let help = format!("unpack it first (`tar xf '{shown}'`) and name the file inside, e.g. pytorch_model.bin");
        return ("a tar archive".to_owned(), help);
    }
    if name.contains(".ckpt") && [".index", ".meta"].iter().any(|e| name.ends_with(e))
        || name.contains(".data-0")
        || bytes.ends_with(&[0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb])
    {
        let help = "convert it to PyTorch first, with the converter of the `transformers` package \
                    (`BertForPreTraining.from_pretrained(…, from_tf=True)`, then `torch.save(model.state_dict(), …)`)";
        return plain("part of a TensorFlow checkpoint", help);
    }
    if head.starts_with(b"\x89HDF\r\n\x1a\n") {
        return plain("an HDF5 file (region features, or Keras weights)", OTHER_FILE);
    }
    if head.starts_with(b"GGUF") {
        return plain("a GGUF file", OTHER_FILE);
    }
    match format(bytes) {
        Some(Format::Zip) => return plain("a zip archive", OTHER_FILE),
        Some(Format::Npy) => return plain("a numpy array file", OTHER_FILE),
        Some(Format::Safetensors) => return plain("a safetensors file", OTHER_FILE),
        Some(Format::Pickle) => return plain("a pickle", OTHER_FILE),
        None => {}
    }
    if text_starts(&["{", "["]) {
        return plain("JSON text", "name the data itself, not the configuration beside it");
    }
    let first: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let what = format!("in no format that is known here (first bytes {})", first.join(" "));
    (what, "check that it is the right file and complete".to_owned())
}
