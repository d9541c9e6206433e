//! Element types of tensors and arrays, and their conversion to f32.
//!
//! Only floating-point types are converted; integers would lose digits silently.

use std::fmt;

use half::{bf16, f16};

/// Type of the elements of a tensor or an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// A floating-point type.
    Float(FloatType),
    /// Signed integer of this many bytes.
    Int(u8),
    /// Unsigned integer of this many bytes.
    Uint(u8),
    /// One byte, 0 or 1.
    Bool,
}

/// Floating-point types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE half.
    F16,
    /// Upper half of an f32.
    Bf16,
    /// IEEE single.
    F32,
    /// IEEE double; rounded to nearest.
    F64,
}

impl ElementType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::Float(float) => float.size(),
            Self::Int(bytes) | Self::Uint(bytes) => usize::from(bytes),
            Self::Bool => 1,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(FloatType::F16) => f.write_str("f16"),
            Self::Float(FloatType::Bf16) => f.write_str("bf16"),
            Self::Float(FloatType::F32) => f.write_str("f32"),
            Self::Float(FloatType::F64) => f.write_str("f64"),
            Self::Int(bytes) => write!(f, "i{}", 8 * u16::from(*bytes)),
            Self::Uint(bytes) => write!(f, "u{}", 8 * u16::from(*bytes)),
            Self::Bool => f.write_str("bool"),
        }
    }
}

impl FloatType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Converts as many elements as both slices hold.
    pub fn convert(self, bytes: &[u8], big_endian: bool, out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, big_endian, out, f32::from_le_bytes),
            Self::F16 => each(bytes, big_endian, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, big_endian, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F64 => each(bytes, big_endian, out, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], big_endian: bool, out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    if big_endian {
        for (out, bytes) in out.iter_mut().zip(elements) {
            let mut bytes = *bytes;
            bytes.reverse();
            *out = value(bytes);
        }
    } else {
        for (out, bytes) in out.iter_mut().zip(elements) {
            *out = value(*bytes);
        }
    }
}
