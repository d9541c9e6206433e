//! Unusual but sound files: old Pythons, views, other element types and byte orders, zip64, nested dictionaries.

use super::make::{
    array, bytes, call, dict, dtype, floats, global, int, legacy, npy, pickle, row, safetensors, saved, small_legacy,
    small_zip, storage, tensor, text, tuple, viewed, zip, zip64,
};
use super::{checkpoint, error};
use std::path::Path;
use vlp::formats::{
    Array, Change, Container, ElementType, FloatType, NamedTensor, Pickle, Skipped, Target, Value, adapt,
};

fn read(file: &[u8], name: &str) -> Vec<f32> {
    checkpoint(file).unwrap().read_f32(name).unwrap()
}

#[test]
fn tensors_share_a_storage() {
    let state = checkpoint(&small_legacy()).unwrap();
    assert_eq!(state.container(), Container::PytorchLegacy);
    let names: Vec<&str> = state.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["w", "t"]);
    assert_eq!(state.read_f32("w").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(state.read_f32("t").unwrap(), [2.0, 5.0, 3.0, 6.0]);
    assert_eq!(state.get("w").unwrap().storage, state.get("t").unwrap().storage);
    assert!(!state.get("t").unwrap().is_contiguous());
}

#[test]
fn the_zip_container() {
    let state = checkpoint(&small_zip()).unwrap();
    assert_eq!(state.container(), Container::PytorchZip);
    assert_eq!(state.read_f32("w").unwrap(), [1.0, 2.0, 3.0]);
}

#[test]
fn an_archive_larger_than_four_gigabytes_has_another_directory() {
    let object = pickle(&dict(&[("w", row("0", 3))]));
    let file = zip64(&[("m/data.pkl", &object), ("m/data/0", &floats(&[1.0, 2.0, 3.0]))]);
    assert_eq!(read(&file, "w"), [1.0, 2.0, 3.0]);
}

#[test]
fn an_archive_of_a_big_endian_machine() {
    let object = pickle(&dict(&[("w", row("0", 2))]));
    let data: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|v| v.to_be_bytes()).collect();
    let file = zip(&[("m/data.pkl", &object), ("m/byteorder", b"big"), ("m/data/0", &data)]);
    assert_eq!(read(&file, "w"), [1.0, -2.5]);
}

#[test]
fn a_view_of_a_storage() {
    let view = tuple(&[text("v"), int(2), int(3)]);
    let object = dict(&[("w", tensor(viewed("FloatStorage", "0", 6, view), 1, &[2], &[1]))]);
    assert_eq!(read(&legacy(&object, &[("0", 6, floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))]), "w"), [3.0, 4.0]);
}

#[test]
fn other_element_types() {
    let halves: Vec<u8> = [0x3c00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect();
    let brains: Vec<u8> = [0x3f80u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect();
    let doubles: Vec<u8> = [1.0f64, 0.1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let pair = |class: &str, key: &str| tensor(storage(class, key, 2), 0, &[2], &[1]);
    let object = dict(&[
        ("half", pair("HalfStorage", "a")),
        ("brain", pair("BFloat16Storage", "b")),
        ("double", pair("DoubleStorage", "c")),
        ("byte", pair("ByteStorage", "d")),
        ("flag", pair("BoolStorage", "e")),
    ]);
    let file = legacy(
        &object,
        &[("d", 2, vec![1, 2]), ("a", 2, halves), ("b", 2, brains), ("c", 2, doubles), ("e", 2, vec![0, 1])],
    );
    let state = checkpoint(&file).unwrap();
    assert_eq!(state.read_f32("half").unwrap(), [1.0, -2.0]);
    assert_eq!(state.read_f32("brain").unwrap(), [1.0, -2.0]);
    assert_eq!(state.read_f32("double").unwrap(), [1.0, 0.1]);
    let types: Vec<String> = state.tensors().map(|(_, info)| info.element.to_string()).collect();
    assert_eq!(types, ["f16", "bf16", "f64", "u8", "bool"]);
    let floating: Vec<String> = state.read_all_f32().unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(floating, ["half", "brain", "double"]);
}

#[test]
fn tensors_without_elements_or_axes() {
    let object = dict(&[
        ("none", tensor(storage("FloatStorage", "0", 3), 3, &[0, 7], &[7, 1])),
        ("scalar", tensor(storage("FloatStorage", "0", 3), 2, &[], &[])),
        ("column", tensor(storage("FloatStorage", "0", 3), 0, &[3, 1], &[1, i64::MAX])),
    ]);
    let file = legacy(&object, &[("0", 3, floats(&[1.0, 2.0, 3.0]))]);
    assert!(read(&file, "none").is_empty());
    assert_eq!(read(&file, "scalar"), [3.0]);
    assert_eq!(read(&file, "column"), [1.0, 2.0, 3.0]);
}

#[test]
fn the_state_of_a_training_run() {
    let object = dict(&[
        ("rng", tensor(storage("ByteStorage", "1", 1), 0, &[1], &[1])),
        ("model", dict(&[("w", row("0", 1)), ("step", int(9))])),
        ("epoch", int(3)),
        ("lr", b"G\x3f\xf0\0\0\0\0\0\0".to_vec()),
    ]);
    let state = checkpoint(&legacy(&object, &[("1", 1, vec![7]), ("0", 1, floats(&[2.0]))])).unwrap();
    assert_eq!(state.under(), Some("model"));
    assert_eq!(state.read_f32("w").unwrap(), [2.0]);
    let skipped = |name: &str, kind: &str| Skipped { name: name.to_owned(), kind: kind.to_owned() };
    let expected =
        [skipped("rng", "a tensor"), skipped("epoch", "an int"), skipped("lr", "a float"), skipped("step", "an int")];
    assert_eq!(state.skipped(), expected);
}

#[test]
fn the_last_of_two_entries_counts() {
    let first = tensor(storage("FloatStorage", "0", 2), 0, &[1], &[1]);
    let last = tensor(storage("FloatStorage", "0", 2), 1, &[1], &[1]);
    let file = legacy(&dict(&[("w", first), ("w", last)]), &[("0", 2, floats(&[1.0, 2.0]))]);
    assert_eq!(checkpoint(&file).unwrap().tensors().len(), 1);
    assert_eq!(read(&file, "w"), [2.0]);
}

#[test]
fn parameters_and_metadata() {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let parameter = call(global("torch._utils", "_rebuild_parameter"), &[row("0", 1), b"\x88".to_vec(), hooks.clone()]);
    let entries = [text("w"), parameter].concat();
    let state = dict(&[("_metadata", hooks.clone())]);
    let object = [&hooks[..], b"(", &entries, b"u", &state, b"b"].concat();
    assert_eq!(read(&legacy(&object, &[("0", 1, floats(&[4.0]))]), "w"), [4.0]);
}

/// Python 2 writes an OrderedDict as a list of pairs, and its strings as bytes.
#[test]
fn a_checkpoint_of_python_2() {
    let native = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let storage = [
        tuple(&[
            native("storage"),
            global("torch", "FloatStorage"),
            native("k1"),
            native("cuda:0"),
            int(2),
            b"N".to_vec(),
        ]),
        b"Q".to_vec(),
    ]
    .concat();
    let empty = [&b"ccollections\nOrderedDict\n]\x85R"[..]].concat();
    let parts = [storage, int(0), b"K\x02\x85".to_vec(), b"K\x01\x85".to_vec(), b"\x89".to_vec(), empty];
    let tensor = call(global("torch._utils", "_rebuild_tensor_v2"), &parts);
    let pair = [&b"]("[..], &native("a.weight"), &tensor, b"e"].concat();
    let object = [b"ccollections\nOrderedDict\n](", &pair[..], b"e\x85R"].concat();
    let mut file = legacy(&object, &[]);
    file.truncate(file.len() - pickle(b"](e").len());
    file.extend(pickle(b"]U\x02k1a"));
    file.extend(2u64.to_le_bytes());
    file.extend(floats(&[1.5, -1.5]));
    assert_eq!(read(&file, "a.weight"), [1.5, -1.5]);
}

#[test]
fn the_whole_in_text_form() {
    let file = b"L119547037146038801333356L\n.I1001\n.(dp0\nS'little_endian'\nI01\ns.(dp0\nVw\nctorch._utils\n_rebuild_tensor\n\
        ((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1\nNtQI0\n(I1\nt(I1\nttRs.(lp0\nS'0'\na.";
    let file = [&file[..], &1u64.to_le_bytes(), &floats(&[0.5])].concat();
    assert_eq!(read(&file, "w"), [0.5]);
}

#[test]
fn values_of_safetensors() {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},"w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"e":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[6,8]}}"#;
    let state = checkpoint(&safetensors(header, b"\0\0\x80\x3f\x80\xbf12")).unwrap();
    assert_eq!(state.container(), Container::Safetensors);
    assert_eq!(state.read_f32("w").unwrap(), [1.0]);
    assert_eq!(state.read_f32("b").unwrap(), [-1.0]);
    assert_eq!(state.get("w").unwrap().shape, [1, 1]);
    assert_eq!(state.skipped(), [Skipped { name: "e".to_owned(), kind: "a tensor of F8_E5M2".to_owned() }]);
}

/// `numpy.array([[1, 2, 3], [4, 5, -0.5]], 'f4')` as Python and numpy of several ages pickle it.
#[test]
fn weights_of_the_detector() {
    let numbers = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, -0.5]);
    let python_2 = [
        &b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02U\x01bq\x03\x87q\x04Rq\x05(K\x01K\x02K\x03\x86q\x06cnumpy\ndtype\nq\x07U\x02f4q\x08K\x00K\x01\x87q\tRq\n(K\x03U\x01<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89U\x18"[..],
        &numbers,
        b"q\rtq\x0eb.",
    ]
    .concat();
    let python_2_text = b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n(I1\n(I2\nI3\ntp6\ncnumpy\ndtype\np7\n(S'f4'\np8\nI0\nI1\ntp9\nRp10\n(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@\\x00\\x00@@\\x00\\x00\\x80@\\x00\\x00\\xa0@\\x00\\x00\\x00\\xbf'\np13\ntp14\nb.".to_vec();
    let protocol_0 = b"cnumpy._core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nc_codecs\nencode\np3\n(Vb\np4\nVlatin1\np5\ntp6\nRp7\ntp8\nRp9\n(I1\n(I2\nI3\ntp10\ncnumpy\ndtype\np11\n(Vf4\np12\nI00\nI01\ntp13\nRp14\n(I3\nV<\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\ng3\n(V\\u0000\\u0000\x80?\\u0000\\u0000\\u0000@\\u0000\\u0000@@\\u0000\\u0000\x80@\\u0000\\u0000\xa0@\\u0000\\u0000\\u0000\xbf\np17\ng5\ntp18\nRp19\ntp20\nb.".to_vec();
    let protocol_2_fortran = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02c_codecs\nencode\nq\x03X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\t(K\x01K\x02K\x03\x86q\ncnumpy\ndtype\nq\x0bX\x02\x00\x00\x00f4q\x0c\x89\x88\x87q\rRq\x0e(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x88h\x03X\x1c\x00\x00\x00\x00\x00\xc2\x80?\x00\x00\xc2\x80@\x00\x00\x00@\x00\x00\xc2\xa0@\x00\x00@@\x00\x00\x00\xc2\xbfq\x11h\x05\x86q\x12Rq\x13tq\x14b.".to_vec();
    let protocol_5 = [
        &b"\x80\x05\x95\x8e\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x18\x00\x00\x00\x00\x00\x00\x00"[..],
        &numbers,
        b"\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94.",
    ]
    .concat();
    for file in [python_2, python_2_text, protocol_0, protocol_2_fortran, protocol_5] {
        let array = Array::from_bytes(Path::new("fc7_w.pkl"), file).unwrap();
        assert_eq!((&array.shape[..], array.element), (&[2, 3][..], FloatType::F32));
        assert_eq!(array.values, [1.0, 2.0, 3.0, 4.0, 5.0, -0.5]);
    }
}

#[test]
fn a_big_endian_array_of_doubles() {
    let file = b"\x80\x03cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87q\x04Rq\x05(K\x01K\x01K\x02\x86q\x06cnumpy\ndtype\nq\x07X\x02\x00\x00\x00f8q\x08\x89\x88\x87q\tRq\n(K\x03X\x01\x00\x00\x00>q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89C\x10?\xf0\x00\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00q\rtq\x0eb.";
    let array = Array::from_bytes(Path::new("fc7_b.pkl"), file.to_vec()).unwrap();
    assert_eq!((array.shape, array.element, array.values), (vec![1, 2], FloatType::F64, vec![1.0, 2.0]));
}

#[test]
fn questions_with_scalars_of_numpy() {
    let scalar = |name: &str, data: &[u8]| call(global("numpy.core.multiarray", "scalar"), &[dtype(name), bytes(data)]);
    let entry = dict(&[
        ("i", scalar("i8", &(-3i64).to_le_bytes())),
        ("s", scalar("i2", &(-300i16).to_le_bytes())),
        ("u", scalar("u1", &[255])),
        ("f", scalar("f4", &0.5f32.to_le_bytes())),
        ("d", scalar("f8", &0.1f64.to_le_bytes())),
        ("t", scalar("U2", b"o\0\0\0k\0\0\0")),
        ("y", scalar("b1", &[1])),
        ("nested", array(&[2], dtype("f4"), bytes(&floats(&[1.0, 2.0])))),
    ]);
    let items = [&b"]("[..], &dict(&[("has_answer", b"\x88".to_vec())]), &entry, b"e"].concat();
    let file = npy("'|O'", &pickle(&array(&[2], dtype("O8"), items)));
    let pickle = Pickle::objects_from_bytes(Path::new("imdb.npy"), file).unwrap();
    let items = pickle.root().items().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items.get(0).unwrap().dict().unwrap().get("has_answer").unwrap().bool(), Some(true));
    let entry = items.get(1).unwrap().dict().unwrap();
    let get = |key: &str| entry.get(key).unwrap();
    assert_eq!([get("i").int(), get("s").int(), get("u").int()], [Some(-3), Some(-300), Some(255)]);
    assert!(matches!((get("f"), get("d")), (Value::Float(0.5), Value::Float(0.1))));
    assert_eq!((get("t").text(), get("y").bool()), (Some("ok"), Some(true)));
    let Value::Array(nested) = get("nested") else { panic!("nested is {}", get("nested").kind()) };
    assert_eq!(nested.shape(), [2]);
    assert!(entry.get("absent").is_none());
}

#[test]
fn numbers_of_all_forms() {
    let body = b"(I-7\nL12345678901234567890L\nF1.5\nK\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x00\x8a\x01\x80\x8b\x02\0\0\0\0\x80I01\nI00\nNt";
    let pickle = Pickle::from_bytes(Path::new("numbers.pkl"), pickle(body)).unwrap();
    let shown: Vec<String> = pickle.root().items().unwrap().iter().map(|v| format!("{v:?}")).collect();
    let expected = [
        "Int(-7)",
        "Long(12345678901234567890)",
        "Float(1.5)",
        "Int(255)",
        "Int(65535)",
        "Int(-1)",
        "Int(0)",
        "Int(-128)",
        "Int(-32768)",
        "Bool(true)",
        "Bool(false)",
        "None",
    ];
    assert_eq!(shown, expected);
}

/// What is popped, doubled and remembered.
#[test]
fn the_stack_and_the_memo() {
    let body = b"(K\x01K\x022\x94(K\x03K\x0410K\x05\x94g1\nh\0r\x00\x00\x01\x00j\x00\x00\x01\x00p7\ng7\nt";
    let pickle = Pickle::from_bytes(Path::new("stack.pkl"), pickle(body)).unwrap();
    let shown: Vec<Option<i64>> = pickle.root().items().unwrap().iter().map(|v| v.int()).collect();
    assert_eq!(shown, [1, 2, 5, 5, 2, 2, 2].map(Some));
}

fn target() -> Target {
    Target { hidden_size: 2, max_position_embeddings: 5, type_vocab_size: 6, transforms: 1, task_idx: None }
}

fn named(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    NamedTensor { name: name.to_owned(), shape: shape.to_vec(), values: values.to_vec() }
}

fn adapted(tensor: NamedTensor, target: &Target) -> (Vec<f32>, Vec<Change>) {
    let adapted = adapt(vec![tensor], target).unwrap();
    (adapted.tensors[0].values.clone(), adapted.changes)
}

#[test]
fn tables_grow_and_shrink() {
    let positions = |rows: usize| {
        let values: Vec<f32> = (0..2 * rows).map(|v| v as f32).collect();
        adapted(named("bert.embeddings.position_embeddings.weight", &[rows, 2], &values), &target())
    };
    assert_eq!(positions(2).0, [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0]);
    assert_eq!(positions(6).0, (0..10).map(|v| v as f32).collect::<Vec<_>>());
    assert_eq!(positions(6).1, [Change::Positions { from: 6, to: 5 }]);
    assert_eq!(positions(5).1, []);

    let segments = |rows: usize| {
        let values: Vec<f32> = (0..rows).map(|v| v as f32).collect();
        adapted(named("bert.embeddings.token_type_embeddings.weight", &[rows, 1], &values), &target())
    };
    assert_eq!(segments(2), (vec![0.0, 1.0, 0.0, 0.0, 0.0, 1.0], vec![Change::Segments { from: 2, to: 6 }]));
    assert_eq!(segments(4).0, [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(segments(7).0, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn transforms_are_taken_or_repeated() {
    let name = "cls.predictions.transform.LayerNorm.gamma";
    let four = || named(name, &[8], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let task = |task_idx| adapted(four(), &Target { task_idx, ..target() }).0;
    assert_eq!(task(Some(3)), [6.0, 7.0]);
    assert_eq!(task(Some(1)), [2.0, 3.0]);
    assert_eq!(task(Some(4)), [0.0, 1.0]);
    assert_eq!(task(None), [0.0, 1.0]);
    let (values, changes) = adapted(named(name, &[2], &[0.0, 1.0]), &Target { transforms: 3, ..target() });
    assert_eq!(values, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    let shown: Vec<String> = changes.iter().map(Change::to_string).collect();
    assert_eq!(
        shown,
        [
            "`cls.predictions.transform.LayerNorm.gamma` is now `cls.predictions.transform.LayerNorm.weight`",
            "`cls.predictions.transform.LayerNorm.weight`: repeated 3 times",
        ]
    );
}

#[test]
fn the_tied_matrix_under_either_name() {
    let decoder = || named("cls.predictions.decoder.weight", &[1, 2], &[1.0, 2.0]);
    let only = adapt(vec![decoder()], &target()).unwrap();
    assert_eq!(only.tensors[1], named("bert.embeddings.word_embeddings.weight", &[1, 2], &[1.0, 2.0]));
    assert_eq!(only.changes, [Change::WordsFromDecoder]);
    let words = named("bert.embeddings.word_embeddings.weight", &[1, 2], &[1.0, 3.0]);
    let both = adapt(vec![words, decoder()], &target()).unwrap();
    assert_eq!(both.changes, [Change::DecoderDiffers]);
    assert_eq!(both.tensors.len(), 2);
}

#[test]
fn what_no_rule_covers() {
    let adapt = |tensors: Vec<NamedTensor>, target: Target| adapt(tensors, &target).map(|_| ()).unwrap_err();
    let segments = |rows: usize| named("bert.embeddings.token_type_embeddings.weight", &[rows, 1], &vec![0.0; rows]);
    let transform = |rows: usize| named("cls.predictions.transform.dense.bias", &[rows], &vec![0.0; rows]);
    insta::assert_snapshot!(adapt(vec![segments(1)], target()), @r"
    the segment table of the checkpoint has 1 rows, the model 6: only tables of at least two rows grow, and only to six
      help: set `model.type_vocab_size = 6`
    ");
    insta::assert_snapshot!(adapt(vec![segments(2)], Target { type_vocab_size: 8, ..target() }), @r"
    the segment table of the checkpoint has 2 rows, the model 8: only tables of at least two rows grow, and only to six
      help: set `model.type_vocab_size = 6`
    ");
    insta::assert_snapshot!(adapt(vec![transform(4)], Target { task_idx: Some(2), ..target() }), @r"
    the task index is 2, but `cls.predictions.transform.dense.bias` of the checkpoint holds 2 transforms
      help: use an index below 2
    ");
    insta::assert_snapshot!(adapt(vec![transform(4)], Target { transforms: 3, ..target() }), @r"
    `cls.predictions.transform.dense.bias` of the checkpoint holds 2 transforms, the model has 3: one of the two numbers must be 1
      help: use the checkpoint with as many transforms as it was trained with
    ");
    insta::assert_snapshot!(adapt(vec![named("a.gamma", &[1], &[0.0]), named("a.weight", &[1], &[0.0])], target()), @r"
    the checkpoint has two tensors `a.weight` once `gamma` and `beta` are renamed to `weight` and `bias`
      help: remove one of the two, with `vlp convert` or in Python
    ");
    insta::assert_snapshot!(adapt(vec![named("a", &[3], &[0.0])], target()), @r"
    tensor `a` of shape [3] has 1 values
      help: pass the values of the whole tensor
    ");
    let positions = named("bert.embeddings.position_embeddings.weight", &[0, 2], &[]);
    insta::assert_snapshot!(adapt(vec![positions], target()), @r"
    the position table of the checkpoint is empty
      help: the checkpoint is damaged; copy it again
    ");
}

#[test]
fn integers_are_not_weights() {
    let object = dict(&[("ids", tensor(storage("IntStorage", "0", 1), 0, &[1], &[1]))]);
    let state = checkpoint(&legacy(&object, &[("0", 1, vec![0; 4])])).unwrap();
    assert_eq!(state.get("ids").unwrap().element, ElementType::Int(4));
    assert!(state.read_all_f32().unwrap().is_empty());
    assert!(error(checkpoint(&saved(&dict(&[])))).contains("an empty dict"));
}
