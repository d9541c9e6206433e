//! numpy files: tables of numbers, and pickled object arrays of dictionaries as `numpy.save` writes them.
//!
//! Writes only what the demo world needs; reading is done elsewhere.

use std::io::{self, Write};

/// A Python value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `True` or `False`.
    Bool(bool),
    /// An `int`.
    Int(i64),
    /// A `str`.
    Text(String),
    /// A `list`.
    List(Vec<Value>),
    /// A `dict`, in this order.
    Dict(Vec<(&'static str, Value)>),
}

/// Writes a C-ordered float32 array.
pub fn write_f32(out: &mut impl Write, shape: &[usize], values: &[f32]) -> io::Result<()> {
    write_header(out, "<f4", shape)?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    out.write_all(&bytes)
}

/// Writes a one-dimensional object array as a pickle of protocol 3, under the module names that all numpy versions know.
pub fn write_objects(out: &mut impl Write, items: &[Value]) -> io::Result<()> {
    write_header(out, "|O", &[items.len()])?;
    let mut p: Vec<u8> = vec![0x80, 3]; // PROTO 3
    p.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"); // _reconstruct(ndarray, (0,), b'b')
    p.extend(b"(K\x01"); // state: (1, shape, dtype, fortran order, items)
    int(&mut p, items.len() as i64);
    p.extend(b"\x85cnumpy\ndtype\n");
    text(&mut p, "O8");
    p.extend(b"K\0K\x01\x87R(K\x03"); // dtype('O8', 0, 1), its state
    text(&mut p, "|");
    p.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]("); // BUILD dtype, False, [
    items.iter().for_each(|item| value(&mut p, item));
    p.extend(b"etb."); // ], BUILD array, STOP
    out.write_all(&p)
}

/// Version 1.0 header, padded so that the data start at a multiple of 64.
fn write_header(out: &mut impl Write, dtype: &str, shape: &[usize]) -> io::Result<()> {
    let lengths: String = match shape {
        [n] => format!("{n},"),
        _ => shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({lengths}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(length as u16).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn value(p: &mut Vec<u8>, v: &Value) {
    match v {
        Value::Bool(true) => p.push(0x88),
        Value::Bool(false) => p.push(0x89),
        Value::Int(n) => int(p, *n),
        Value::Text(s) => text(p, s),
        Value::List(items) => {
            p.extend(b"](");
            items.iter().for_each(|item| value(p, item));
            p.push(b'e');
        }
        Value::Dict(entries) => {
            p.extend(b"}(");
            for (key, item) in entries {
                text(p, key);
                value(p, item);
            }
            p.push(b'u');
        }
    }
}

fn int(p: &mut Vec<u8>, n: i64) {
    if let Ok(n) = u8::try_from(n) {
        p.extend([b'K', n]); // BININT1
    } else if let Ok(n) = i32::try_from(n) {
        p.push(b'J'); // BININT
        p.extend(n.to_le_bytes());
    } else {
        p.extend([0x8a, 8]); // LONG1, eight bytes
        p.extend(n.to_le_bytes());
    }
}

fn text(p: &mut Vec<u8>, s: &str) {
    p.push(b'X'); // BINUNICODE
    p.extend((s.len() as u32).to_le_bytes());
    p.extend(s.as_bytes());
}
