//! Pickles against the rules: cut short, with lengths that cannot be, nested without end, made to exhaust memory.

use super::make::{
    array, bytes, call, dict, dtype, floats, global, int, ints, legacy, pickle, saved, storage, tensor, text,
};
use super::{array_error, checkpoint_error};
use insta::assert_snapshot;

fn object(body: &[u8]) -> String {
    checkpoint_error(&saved(body))
}

#[test]
fn cut_inside_a_string() {
    let file = saved(&text("weights"));
    assert_snapshot!(checkpoint_error(&file[..file.len() - 10]), @r"
    `hostile.bin`: byte 55: a string of 7 bytes, of which only 4 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn cut_between_operations() {
    assert_snapshot!(checkpoint_error(b"\x80\x02}"), @r"
    `hostile.bin`: byte 3: the file ends where the pickle should go on
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_string_of_four_gigabytes() {
    assert_snapshot!(object(b"X\xff\xff\xff\xffabc"), @r"
    `hostile.bin`: byte 55: a string of 4294967295 bytes, of which only 10 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_string_longer_than_any_memory() {
    assert_snapshot!(object(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc"), @r"
    `hostile.bin`: byte 55: a string of 18446744073709551615 bytes, of which only 10 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn bytes_longer_than_any_memory() {
    assert_snapshot!(object(b"\x8e\0\0\0\0\0\0\0\x80abc"), @r"
    `hostile.bin`: byte 55: bytes of 9223372036854775808 bytes, of which only 10 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_int_of_two_gigabytes() {
    assert_snapshot!(object(b"\x8b\0\0\0\x80"), @r"
    `hostile.bin`: byte 55: an int of 2147483648 bytes, of which only 7 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_int_of_many_digits() {
    assert_snapshot!(object(&[b"\x8a\x20", &[1; 32][..]].concat()), @r"
    `hostile.bin`: byte 55: an int of 32 bytes, expected at most 16
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_int_that_is_none() {
    assert_snapshot!(object(b"Ififteen\n"), @r"
    `hostile.bin`: byte 55: `fifteen` is not a number that is understood
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_line_without_an_end() {
    assert_snapshot!(checkpoint_error(b"\x80\x02cos"), @r"
    `hostile.bin`: byte 2: the file ends before the line of a name does
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_frame_longer_than_the_file() {
    assert_snapshot!(object(b"\x95\0\0\0\0\0\0\0\x01N"), @r"
    `hostile.bin`: byte 55: a frame of 72057594037927936 bytes, of which only 8 are there
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_unknown_protocol() {
    assert_snapshot!(object(b"\x80\x09N"), @r"
    `hostile.bin`: byte 55: pickle protocol 9, expected 0 to 5
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_unknown_operation() {
    assert_snapshot!(object(b"\xffN"), @r"
    `hostile.bin`: byte 55: 0xff is not an operation of a pickle
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_empty_stack() {
    assert_snapshot!(object(b"R"), @r"
    `hostile.bin`: byte 55: an operation on an empty stack
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_stack_emptied_beyond_its_mark() {
    assert_snapshot!(object(b"NN(\x86"), @r"
    `hostile.bin`: byte 58: an operation on an empty stack
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn no_mark() {
    assert_snapshot!(object(b"Nt"), @r"
    `hostile.bin`: byte 56: an operation that needs a mark, and there is none
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_entry_of_the_memo_that_was_never_set() {
    assert_snapshot!(object(b"N\x940j\xff\xff\xff\xff"), @r"
    `hostile.bin`: byte 58: entry 4294967295 of the memo was never set
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_key_without_a_value() {
    assert_snapshot!(object(b"}(NNNu"), @r"
    `hostile.bin`: byte 60: a dictionary with a key that has no value
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn elements_appended_to_a_tuple() {
    assert_snapshot!(object(b")Na"), @r"
    `hostile.bin`: byte 57: elements are appended to a tuple
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn entries_added_to_a_list() {
    assert_snapshot!(object(b"]NNs"), @r"
    `hostile.bin`: byte 58: entries are added to a list
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn text_that_is_not_utf_8() {
    assert_snapshot!(object(b"X\x02\0\0\0\xc3\x28"), @r"
    `hostile.bin`: byte 55: a string that is not UTF-8
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_character_without_a_latin_1_code() {
    assert_snapshot!(object(&call(global("_codecs", "encode"), &[text("€"), text("latin1")])), @r"
    `hostile.bin`: byte 92: the character '€' has no Latin-1 code
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_name_made_of_numbers() {
    assert_snapshot!(object(b"K\x01K\x02\x93"), @r"
    `hostile.bin`: byte 59: a name that is not made of two strings
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn lists_nested_a_million_deep() {
    let nested = [vec![b']'; 1_000_000], vec![b'a'; 999_999]].concat();
    assert_snapshot!(object(&nested), @r"
    `hostile.bin` holds a list, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}

#[test]
fn tuples_nested_a_million_deep() {
    let nested = [b")".to_vec(), vec![0x85; 1_000_000]].concat();
    assert_snapshot!(object(&nested), @r"
    `hostile.bin` holds a tuple, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}

/// Ten times ten times … a list: 10^100 elements if it were written out.
#[test]
fn a_list_that_would_not_fit_the_universe() {
    let mut bomb = b"]".to_vec();
    for _ in 0..100 {
        bomb.extend(b"q\x000](");
        bomb.extend(b"h\0".repeat(10));
        bomb.push(b'e');
    }
    assert_snapshot!(object(&dict(&[("model", bomb)])), @r"
    `hostile.bin` holds a dict of `model`: a list, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}

#[test]
fn a_dict_that_contains_itself() {
    assert_snapshot!(object(&[&b"}q\0"[..], &text("model"), b"h\0s"].concat()), @r"
    `hostile.bin` holds a dict of `model`: a dict, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}

#[test]
fn more_values_than_a_checkpoint_has() {
    assert_snapshot!(object(&vec![b')'; 4_000_000]), @r"
    `hostile.bin`: byte 3932215: the values of the pickle take more than 256 MiB of memory, far more than such a file needs
      help: the file is damaged or made to exhaust memory; do not trust it
    ");
}

#[test]
fn more_values_than_questions_have() {
    assert_snapshot!(array_error(&pickle(&vec![b'}'; 2_000_000])), @r"
    `fc7_w.pkl`: byte 1667507: the values of the pickle take more than 109 MiB of memory, far more than such a file needs
      help: the file is damaged or made to exhaust memory; do not trust it
    ");
}

#[test]
fn a_memo_of_distant_entries() {
    let puts: Vec<u8> =
        (0..8_500_000u32).flat_map(|i| [b'r', i as u8, (i >> 8) as u8, (i >> 16) as u8, 0xf0]).collect();
    assert_snapshot!(object(&[b"N".to_vec(), puts].concat()), @r"
    `hostile.bin`: byte 41943091: the values of the pickle take more than 256 MiB of memory, far more than such a file needs
      help: the file is damaged or made to exhaust memory; do not trust it
    ");
}

#[test]
fn a_tensor_made_of_something_else() {
    assert_snapshot!(object(&call(global("torch._utils", "_rebuild_tensor_v2"), &[text("w"), int(3)])), @r"
    `hostile.bin`: byte 106: torch._utils._rebuild_tensor_v2 cannot be built from (a str, an int)
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_tensor_without_a_storage() {
    assert_snapshot!(object(&tensor(b"N".to_vec(), 0, &[1], &[1])), @r"
    `hostile.bin`: byte 154: the storage of a tensor is None
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_negative_shape() {
    assert_snapshot!(object(&tensor(storage("FloatStorage", "0", 1), 0, &[-1], &[1])), @r"
    `hostile.bin`: byte 212: the shape of a tensor is -1
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_shape_that_is_no_tuple() {
    let parts = [storage("FloatStorage", "0", 1), int(0), text("1"), ints(&[1])];
    assert_snapshot!(object(&call(global("torch._utils", "_rebuild_tensor"), &parts)), @r"
    `hostile.bin`: byte 174: the shape of a tensor is a str, expected a tuple
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn more_axes_than_strides() {
    assert_snapshot!(object(&tensor(storage("FloatStorage", "0", 1), 0, &[1, 1], &[1])), @r"
    `hostile.bin`: byte 222: a tensor with 2 axes and 1 strides
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_thousand_axes() {
    assert_snapshot!(object(&tensor(storage("FloatStorage", "0", 1), 0, &[1; 1000], &[1; 1000])), @r"
    `hostile.bin`: byte 20192: the shape of a tensor has 1000 numbers, expected at most 64
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn a_storage_without_a_class() {
    assert_snapshot!(object(&storage("Size", "0", 1)), @r"
    `hostile.bin`: byte 105: a storage of the class torch.Size
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_array_with_too_few_bytes() {
    assert_snapshot!(array_error(&pickle(&array(&[2048, 2048], dtype("f4"), bytes(&floats(&[1.0]))))), @r"
    `fc7_w.pkl`: byte 189: a numpy array of the shape [2048, 2048] and 4 bytes per element has 4 bytes
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_array_larger_than_any_memory() {
    assert_snapshot!(array_error(&pickle(&array(&[i64::MAX, i64::MAX], dtype("f4"), bytes(b"")))), @r"
    `fc7_w.pkl`: byte 185: a numpy array of the shape [9223372036854775807, 9223372036854775807]
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn an_array_of_objects_with_too_few() {
    assert_snapshot!(array_error(&pickle(&array(&[1_000_000_000], dtype("O8"), b"]".to_vec()))), @r"
    `fc7_w.pkl`: byte 174: a numpy array of the shape [1000000000] has 0 elements
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn not_the_container_of_pytorch() {
    let file = saved(b"}");
    let mut other = pickle(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19");
    other.extend(pickle(&int(1002)));
    assert!(file.len() > other.len());
    assert_snapshot!(checkpoint_error(&other), @r"
    `hostile.bin`: byte 15: the version of PyTorch's container is 1002, expected 1001
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn no_tensor_at_all() {
    assert_snapshot!(object(&dict(&[("epoch", int(3)), ("model", dict(&[("w", text("none"))]))])), @r"
    `hostile.bin` holds a dict of `epoch`: an int, `model`: a dict, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}

#[test]
fn no_dictionary() {
    assert_snapshot!(checkpoint_error(&legacy(&tensor(storage("FloatStorage", "0", 1), 0, &[1], &[1]), &[("0", 1, floats(&[1.0]))])), @r"
    `hostile.bin` holds a tensor, expected a dictionary of tensors, at the top or under `state_dict` or `model`
      help: save only the weights: torch.save(model.state_dict(), 'plain.bin')
    ");
}
