//! Containers whose parts contradict each other: storages, archives, headers.

use super::make::{
    dict, floats, int, legacy, pickle, row, safetensors, small_legacy, small_zip, storage, tensor, text, tuple, viewed,
    zip,
};
use super::{checkpoint, checkpoint_error};
use insta::assert_snapshot;

/// A legacy container of one tensor on a storage of four.
fn one(shape: &[i64], strides: &[i64], offset: i64) -> String {
    let object = dict(&[("w", tensor(storage("FloatStorage", "0", 4), offset, shape, strides))]);
    checkpoint_error(&legacy(&object, &[("0", 4, floats(&[0.0; 4]))]))
}

#[test]
fn a_storage_cut_short() {
    let file = small_legacy();
    assert_snapshot!(checkpoint_error(&file[..file.len() - 1]), @r"
    `hostile.bin`: byte 447: the storage `0` of 6 f32 needs more than the 23 bytes that are left
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_that_does_not_start() {
    let file = small_legacy();
    assert_snapshot!(checkpoint_error(&file[..file.len() - 30]), @r"
    `hostile.bin`: byte 447: the file ends where the storage `0` should start
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_of_another_length_than_its_tensors_expect() {
    let object = dict(&[("w", row("0", 3))]);
    assert_snapshot!(checkpoint_error(&legacy(&object, &[("0", u64::MAX, floats(&[0.0; 3]))])), @r"
    `hostile.bin`: byte 235: the storage `0` has 18446744073709551615 elements, its tensors expect 3
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_larger_than_any_memory() {
    let object = dict(&[("w", row("0", i64::MAX))]);
    assert_snapshot!(checkpoint_error(&legacy(&object, &[("0", i64::MAX as u64, floats(&[0.0; 3]))])), @r"
    `hostile.bin`: byte 235: the storage `0` of 9223372036854775807 f32 needs more than the 12 bytes that are left
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_without_a_tensor() {
    let object = dict(&[("w", row("0", 1))]);
    assert_snapshot!(checkpoint_error(&legacy(&object, &[("1", 1, floats(&[0.0]))])), @r"
    `hostile.bin`: byte 235: the storage `1` belongs to no tensor, so its size is unknown
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_that_is_not_there() {
    assert_snapshot!(checkpoint_error(&legacy(&dict(&[("w", row("0", 1))]), &[])), @r"
    `hostile.bin`: tensor `w`: its storage `0` is not in the file
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_that_is_there_twice() {
    let part = || ("0", 1, floats(&[0.0]));
    assert_snapshot!(checkpoint_error(&legacy(&dict(&[("w", row("0", 1))]), &[part(), part()])), @r"
    `hostile.bin`: byte 253: the storage `0` is there twice
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_of_two_types() {
    let object = dict(&[("w", row("0", 2)), ("v", tensor(storage("DoubleStorage", "0", 2), 0, &[2], &[1]))]);
    assert_snapshot!(checkpoint_error(&legacy(&object, &[("0", 2, floats(&[0.0; 2]))])), @r"
    `hostile.bin` holds the storage `0` once as 2 f32 and once as 2 f64, expected one type and length
      help: the file is damaged, or made to mislead; do not trust it
    ");
}

#[test]
fn more_elements_than_are_stored() {
    assert_snapshot!(one(&[1_000_000_000_000, 5], &[0, 0], 0), @r"
    `hostile.bin`: tensor `w`: the shape [1000000000000, 5] has more elements than the 4 stored
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn more_elements_than_can_be_counted() {
    assert_snapshot!(one(&[1 << 40, 1 << 40, 0], &[1, 1, 1], 0), @r"
    `hostile.bin`: tensor `w`: the shape [1099511627776, 1099511627776, 0] has more elements than the 4 stored
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn strides_that_leave_the_storage() {
    assert_snapshot!(one(&[2, 2], &[3, 1], 0), @r"
    `hostile.bin`: tensor `w`: the shape [2, 2] with the strides [3, 1] from element 0 on leaves the 4 stored elements
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn strides_that_cannot_be_multiplied() {
    assert_snapshot!(one(&[3], &[i64::MAX], 0), @r"
    `hostile.bin`: tensor `w`: the shape [3] with the strides [9223372036854775807] from element 0 on leaves the 4 stored elements
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_offset_beyond_the_storage() {
    assert_snapshot!(one(&[1], &[1], 4), @r"
    `hostile.bin`: tensor `w`: the shape [1] with the strides [1] from element 4 on leaves the 4 stored elements
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_view_that_leaves_its_storage() {
    let view = tuple(&[text("v"), int(3), int(2)]);
    let object = dict(&[("w", tensor(viewed("FloatStorage", "0", 4, view), 0, &[2], &[1]))]);
    assert_snapshot!(checkpoint_error(&legacy(&object, &[("0", 4, floats(&[0.0; 4]))])), @r"
    `hostile.bin`: tensor `w`: its view leaves its storage
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn one_storage_under_a_thousand_names() {
    let names: Vec<String> = (0..1000).map(|i| format!("w{i}")).collect();
    let entries: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (n.as_str(), row("0", 100_000))).collect();
    assert_snapshot!(checkpoint_error(&legacy(&dict(&entries), &[("0", 100_000, floats(&[0.0; 100_000]))])), @r"
    `hostile.bin` holds tensors of 100000000 elements that share 100000 stored ones, expected each to be used at most 16 times
      help: the file is damaged or made to exhaust memory; do not trust it
    ");
}

#[test]
fn an_archive_cut_short() {
    let file = small_zip();
    assert_snapshot!(checkpoint_error(&file[..file.len() - 1]), @r"
    `hostile.bin`: byte 495: the archive ends without its directory
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_archive_whose_directory_is_elsewhere() {
    let mut file = small_zip();
    let at = file.len() - 6;
    file[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    assert_snapshot!(checkpoint_error(&file), @r"
    `hostile.bin`: byte 474: the directory of the archive lies outside the file
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_archive_with_more_entries_announced() {
    let mut file = small_zip();
    let at = file.len() - 12;
    file[at] = 9;
    assert_snapshot!(checkpoint_error(&file), @r"
    `hostile.bin`: byte 474: the archive has 3 entries where 9 are announced
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_entry_that_is_not_where_the_directory_says() {
    let mut file = small_zip();
    file[0] = b'P';
    let at = file.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 42;
    file[at] = 1;
    assert_snapshot!(checkpoint_error(&file), @r"
    `hostile.bin`: byte 1: the entry `m/data.pkl` of the archive is not where the directory says
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_compressed_entry() {
    let mut file = small_zip();
    let at = file.windows(4).position(|w| w == b"PK\x01\x02").unwrap() + 10;
    file[at] = 8;
    assert_snapshot!(checkpoint_error(&file), @r"
    `hostile.bin` is a zip archive in which the entry `m/data.pkl` is compressed or encrypted, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: PyTorch never compresses; unpack the archive, and pack its folder again with `zip -0 -r`
    ");
}

#[test]
fn an_archive_without_the_storage() {
    let object = pickle(&dict(&[("w", row("../../etc/passwd", 3))]));
    assert_snapshot!(checkpoint_error(&zip(&[("m/data.pkl", &object)])), @r"
    `hostile.bin`: tensor `w`: its storage `data/../../etc/passwd` is not in the archive
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_archive_with_a_short_storage() {
    let object = pickle(&dict(&[("w", row("0", 3))]));
    assert_snapshot!(checkpoint_error(&zip(&[("m/data.pkl", &object), ("m/data/0", b"1234")])), @r"
    `hostile.bin`: tensor `w`: its storage `data/0` has 4 bytes, too few for 3 f32
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_archive_of_an_unknown_byte_order() {
    let object = pickle(&dict(&[("w", row("0", 1))]));
    assert_snapshot!(checkpoint_error(&zip(&[("m/data.pkl", &object), ("m/byteorder", b"middle"), ("m/data/0", b"1234")])), @r"
    `hostile.bin` holds the byte order `middle`, expected `little` or `big`
      help: the file is damaged, or of a later PyTorch; save it again with an earlier one
    ");
}

#[test]
fn an_archive_of_something_else() {
    assert_snapshot!(checkpoint_error(&zip(&[("word/document.xml", b"<w/>")])), @r"
    `hostile.bin` is a zip archive without `data.pkl`, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: unpack it if the checkpoint is inside, and name the file
    ");
}

#[test]
fn an_archive_of_arrays() {
    assert_snapshot!(checkpoint_error(&zip(&[("arr_0.npy", b"\x93NUMPY")])), @r"
    `hostile.bin` is a zip archive of numpy arrays (.npz), expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name the PyTorch or safetensors checkpoint
    ");
}

#[test]
fn an_archive_with_a_program() {
    let object = pickle(&dict(&[]));
    assert_snapshot!(checkpoint_error(&zip(&[("m/data.pkl", &object), ("m/constants.pkl", b"\x80\x02)."), ("m/code/m.py", b"")])), @r"
    `hostile.bin` is a TorchScript archive, which holds a program, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: save its weights in Python: torch.save(torch.jit.load(…).state_dict(), 'plain.bin')
    ");
}

#[test]
fn a_header_longer_than_the_file() {
    let mut file = safetensors("{\"w\":0}", b"");
    file[0..6].copy_from_slice(&[0xff; 6]);
    assert_snapshot!(checkpoint_error(&file), @r"
    `hostile.bin`: byte 0: a safetensors header of 281474976710655 bytes in a file of 15
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_header_that_is_not_json() {
    assert_snapshot!(checkpoint_error(&safetensors("{\"w\":", b"")), @r"
    `hostile.bin`: byte 8: the safetensors header is not understood: EOF while parsing a value at line 1 column 5
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_tensor_beyond_the_end_of_the_file() {
    let header = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    assert_snapshot!(checkpoint_error(&safetensors(header, b"1234")), @r"
    `hostile.bin`: byte 63: the tensor `w` has 16 bytes, of which only 4 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_tensor_of_another_size_than_its_shape() {
    let header = r#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#;
    assert_snapshot!(checkpoint_error(&safetensors(header, b"1234")), @r"
    `hostile.bin`: byte 8: the safetensors header is not understood: overflow computing buffer size from shape and/or element type
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn tensors_that_overlap() {
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"v":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#;
    assert_snapshot!(checkpoint_error(&safetensors(header, b"12345678")), @r"
    `hostile.bin`: byte 8: the safetensors header is not understood: invalid offset for tensor `v`
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn offsets_that_cannot_be_added() {
    let header = r#"{"w":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
    assert_snapshot!(checkpoint_error(&safetensors(header, b"1234")), @r"
    `hostile.bin`: byte 8: the safetensors header is not understood: overflow computing buffer size from shape and/or element type
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn bytes_after_the_last_tensor() {
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert_snapshot!(checkpoint_error(&safetensors(header, b"12345678")), @r"
    `hostile.bin`: byte 66: 4 bytes after the last tensor
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn reading_what_is_not_there() {
    let state = checkpoint(&small_legacy()).unwrap();
    assert_snapshot!(state.read_f32("vis_embed.0.weight").unwrap_err(), @r"
    `hostile.bin` has no tensor `vis_embed.0.weight`
      help: it has 2 tensors, the first `w`, `t`
    ");
}

#[test]
fn reading_into_a_slice_of_another_length() {
    let state = checkpoint(&small_legacy()).unwrap();
    assert_snapshot!(state.read_f32_into("w", &mut [0.0; 5]).unwrap_err(), @r"
    `hostile.bin`: tensor `w` has 6 elements, room for 5 was given
      help: ask for its shape first
    ");
}

#[test]
fn reading_integers() {
    let object = dict(&[("ids", tensor(storage("LongStorage", "0", 1), 0, &[1], &[1]))]);
    let state = checkpoint(&legacy(&object, &[("0", 1, vec![0; 8])])).unwrap();
    assert_snapshot!(state.read_f32("ids").unwrap_err(), @r"
    `hostile.bin`: `ids` holds i64, expected floating-point values
      help: leave it out; weights are floating-point
    ");
}
