//! safetensors files behind the same type as PyTorch's containers.
//!
//! The header's form is that of the `safetensors` crate; that the tensors tile the rest of the file is checked here, with
//! numbers that cannot overflow. Element types that are neither integers nor the four usual floating-point ones are
//! skipped and listed.

use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::element::{ElementType, FloatType};
use super::error::{FormatError, printable};
use super::source::Source;
use super::state_dict::{Container, StateDict, Storage, TensorInfo, contiguous_strides};

/// Bytes that hold the length of the header.
const PREFIX: usize = 8;

/// Reads the header.
pub(super) fn read(source: &Arc<Source>) -> Result<StateDict, FormatError> {
    let damaged =
        |offset: usize, reason: String| FormatError::Damaged { path: source.path().to_owned(), offset, reason };
    let size = source.first_chunk::<PREFIX>().map_or(0, |b| u64::from_le_bytes(*b));
    let data = usize::try_from(size).ok().and_then(|size| size.checked_add(PREFIX));
    let Some((data, header)) = data.and_then(|data| Some((data, source.get(PREFIX..data)?))) else {
        let all = source.len();
        return Err(damaged(0, format!("a safetensors header of {size} bytes in a file of {all}")));
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| {
        damaged(PREFIX, format!("the safetensors header is not understood: {}", printable(&e.to_string())))
    })?;

    let mut state = StateDict::new(Arc::clone(source), Container::Safetensors);
    let mut start = data;
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let shown = printable(&name);
        let (first, last) = info.data_offsets;
        let end = data.checked_add(last).filter(|end| data.checked_add(first) == Some(start) && *end >= start);
        let Some(end) = end else {
            let reason = format!("the tensor `{shown}` does not start where the one before it ends");
            return Err(damaged(start, reason));
        };
        if end > source.len() {
            let left = source.len().saturating_sub(start);
            let size = end - start;
            return Err(damaged(
                start,
                format!("the tensor `{shown}` has {size} bytes, of which only {left} are there"),
            ));
        }
        match element(info.dtype) {
            None => state.skip(&name, format!("a tensor of {:?}", info.dtype)),
            Some(element) => {
                let count = info.shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
                if count.and_then(|n| n.checked_mul(element.size())) != Some(end - start) {
                    let (shape, size) = (&info.shape, end - start);
                    let reason = format!("the tensor `{shown}` of {element} {shape:?} has {size} bytes");
                    return Err(damaged(start, reason));
                }
                let length = (end - start) / element.size();
                let storage = state.add_storage(Storage { element, start, length, big_endian: false });
                let (shape, strides) = (info.shape.clone(), contiguous_strides(&info.shape));
                state.add(&name, TensorInfo { element, shape, strides, storage, offset: 0 })?;
            }
        }
        start = end;
    }
    if start != source.len() {
        let left = source.len() - start;
        return Err(damaged(start, format!("{left} bytes after the last tensor")));
    }
    state.finish()
}

fn element(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F16 => ElementType::Float(FloatType::F16),
        Dtype::BF16 => ElementType::Float(FloatType::Bf16),
        Dtype::F32 => ElementType::Float(FloatType::F32),
        Dtype::F64 => ElementType::Float(FloatType::F64),
        Dtype::I8 => ElementType::Int(1),
        Dtype::I16 => ElementType::Int(2),
        Dtype::I32 => ElementType::Int(4),
        Dtype::I64 => ElementType::Int(8),
        Dtype::U8 => ElementType::Uint(1),
        Dtype::U16 => ElementType::Uint(2),
        Dtype::U32 => ElementType::Uint(4),
        Dtype::U64 => ElementType::Uint(8),
        Dtype::BOOL => ElementType::Bool,
        _ => return None,
    })
}
