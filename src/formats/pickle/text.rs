//! The text forms of protocol 0: quoted strings with escapes, escaped unicode, decimal numbers.
//!
//! Escapes are those of Python; an escape that Python would reject is an error here too.

use super::super::error::Fault;

/// `'…'` or `"…"` as Python 2's `repr` writes it.
pub(super) fn quoted(line: &[u8]) -> Result<Box<[u8]>, Fault> {
    let line = line.trim_ascii();
    let inner = match line {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return Err(Fault::damaged("a string without its quotes")),
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let [escape, tail @ ..] = rest else { return Err(Fault::damaged("a string that ends with a backslash")) };
        rest = tail;
        match escape {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'\\' | b'\'' | b'"' => out.push(*escape),
            b'x' => out.push(hexadecimal(&mut rest, 2)? as u8),
            b'0'..=b'7' => {
                let mut value = u32::from(escape - b'0');
                for _ in 0..2 {
                    let [digit @ b'0'..=b'7', tail @ ..] = rest else { break };
                    value = value * 8 + u32::from(digit - b'0');
                    rest = tail;
                }
                out.push(value as u8);
            }
            other => out.extend([b'\\', *other]),
        }
    }
    Ok(out.into())
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn unicode(line: &[u8]) -> Result<Box<[u8]>, Fault> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digits = match (first, rest.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                out.push(char::from(*first));
                continue;
            }
        };
        rest = &rest[1..];
        let code = hexadecimal(&mut rest, digits)?;
        out.push(char::from_u32(code).ok_or_else(|| Fault::damaged(format!("\\u{code:04x} is not a character")))?);
    }
    Ok(out.into_bytes().into())
}

fn hexadecimal(rest: &mut &[u8], digits: usize) -> Result<u32, Fault> {
    let (digits, tail) = rest.split_at_checked(digits).ok_or_else(|| Fault::damaged("an escape is cut short"))?;
    *rest = tail;
    let digit = |b: &u8| char::from(*b).to_digit(16).ok_or_else(|| Fault::damaged("an escape with a wrong digit"));
    digits.iter().try_fold(0, |value, b| Ok(value * 16 + digit(b)?))
}

/// A decimal number on a line.
pub(super) fn number<T: std::str::FromStr>(line: &[u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(line).unwrap_or_default().trim();
    text.parse().map_err(|_| {
        let shown = super::super::error::printable(&String::from_utf8_lossy(line));
        Fault::damaged(format!("`{shown}` is not a number that is understood"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings() {
        assert_eq!(&*quoted(br#"'a\x00\n\'\\\101"'"#).unwrap(), b"a\0\n'\\A\"");
        assert_eq!(&*quoted(br#""it's""#).unwrap(), b"it's");
        assert_eq!(&*quoted(b"''").unwrap(), b"");
        for wrong in [&b"'"[..], b"", b"abc", b"'abc\"", br"'\x1'", br"'\xzz'", br"'\'"] {
            quoted(wrong).unwrap_err();
        }
    }

    #[test]
    fn escaped_unicode() {
        assert_eq!(&*unicode(b"a\\u00e9\xe9\\U0001f600").unwrap(), "aéé😀".as_bytes());
        assert_eq!(&*unicode(b"\\n").unwrap(), b"\\n");
        unicode(b"\\ud800").unwrap_err();
        unicode(b"\\u12").unwrap_err();
    }
}
