//! Names for error messages: of operations that are refused, of what a pickle asks for.

use super::super::error::printable;

/// Python's name of an opcode that is understood by Python but not here, and what it is.
pub(super) fn refused_operation(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'o' => "an object (OBJ)",
        0x82 => "an extension code (EXT1)",
        0x83 => "an extension code (EXT2)",
        0x84 => "an extension code (EXT4)",
        0x8f => "a set (EMPTY_SET)",
        0x90 => "a set (ADDITEMS)",
        0x91 => "a frozenset (FROZENSET)",
        0x92 => "an object (NEWOBJ_EX)",
        0x97 => "a buffer outside the file (NEXT_BUFFER)",
        0x98 => "a buffer outside the file (READONLY_BUFFER)",
        b'P' => "a persistent id in text form (PERSID)",
        _ => return None,
    })
}

/// `module.name`, fit to be printed.
pub(super) fn dotted(module: &[u8], name: &[u8]) -> String {
    printable(&format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name)))
}
