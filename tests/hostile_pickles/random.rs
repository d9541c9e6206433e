//! Random files and sound files with random changes: they are read or refused, and never panic.
//!
//! The numbers are drawn from a fixed seed, so that every run tries the same files.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vlp::formats::{Array, Pickle, StateDict, Value};

use super::make::{
    array, bytes, call, dict, dtype, floats, global, int, npy, pickle, safetensors, small_legacy, small_zip, text,
};

/// Calls `test` on `cases` values.
fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// Reads the bytes in all ways; whatever can be read is read to the end. Returns how many ways there were.
fn try_all(file: &[u8]) -> usize {
    let path = Path::new("random");
    let mut read = 0;
    if let Ok(state) = StateDict::from_bytes(path, file.to_vec()) {
        read += 1;
        let tensors = state.read_all_f32().unwrap();
        for tensor in &tensors {
            assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>());
            assert!(tensor.values.len() <= file.len());
        }
    }
    if let Ok(array) = Array::from_bytes(path, file.to_vec()) {
        read += 1;
        assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
    }
    let pickles = [Pickle::from_bytes(path, file.to_vec()), Pickle::objects_from_bytes(path, file.to_vec())];
    for pickle in pickles.into_iter().flatten() {
        read += 1;
        walk(pickle.root(), 3);
    }
    read
}

/// Looks at a value and those inside it, `depth` levels down and ten wide.
fn walk(value: Value, depth: usize) {
    let _ = (value.kind(), value.text(), value.int(), value.bool());
    if depth == 0 {
        return;
    }
    value.items().iter().flat_map(|items| items.iter().take(10)).for_each(|item| walk(item, depth - 1));
    for (key, item) in value.dict().iter().flat_map(|entries| entries.iter().take(10)) {
        walk(key, depth - 1);
        walk(item, depth - 1);
    }
    if let Value::Array(array) = value {
        let _ = (array.shape(), array.is_fortran(), array.data());
    }
}

fn sound_files() -> Vec<Vec<u8>> {
    let entry = dict(&[
        ("q", text("what?")),
        ("n", int(3)),
        ("a", call(global("numpy.core.multiarray", "scalar"), &[dtype("i2"), bytes(b"ab")])),
    ]);
    let questions = npy("'|O'", &pickle(&array(&[1], dtype("O8"), [&b"]"[..], &entry, b"a"].concat())));
    let header = r#"{"w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"v":{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}"#;
    vec![
        small_legacy(),
        small_zip(),
        safetensors(header, b"123456"),
        pickle(&array(&[2], dtype("f4"), bytes(&floats(&[1.0, 2.0])))),
        questions,
    ]
}

#[test]
fn sound_files_are_read() {
    for (number, file) in sound_files().iter().enumerate() {
        assert!(try_all(file) > 0, "file {number}");
    }
}

#[test]
fn random_bytes() {
    run(4096, vec(any::<u8>(), 0..300), |file| {
        try_all(&file);
    });
}

#[test]
fn random_pickles() {
    let known =
        b"().012FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x93\x94\x95\x96";
    let operation = prop_oneof![
        8 => proptest::sample::select(known.to_vec()).prop_map(|b| vec![b]),
        2 => any::<u8>().prop_map(|b| vec![b]),
        1 => proptest::sample::select(vec![
            text("storage"), text("0"), int(2), int(-1), bytes(b"abcd"), b"K\x01".to_vec(), b"h\x01".to_vec(), b"q\x01".to_vec(),
            global("collections", "OrderedDict"), global("torch._utils", "_rebuild_tensor_v2"), global("torch", "FloatStorage"),
            global("numpy", "dtype"), global("numpy", "ndarray"), global("numpy.core.multiarray", "_reconstruct"),
            global("numpy.core.multiarray", "scalar"), global("_codecs", "encode"), dtype("f4"), dtype("O"),
        ]),
    ];
    run(8192, vec(operation, 0..60), |operations| {
        try_all(&pickle(&operations.concat()));
    });
}

#[test]
fn changed_bytes() {
    let files = sound_files();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    run(16_384, (0..files.len(), vec(change, 1..6)), |(number, changes)| {
        let mut file = files[number].clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        try_all(&file);
    });
}

#[test]
fn every_single_byte_changed() {
    for file in sound_files() {
        for at in 0..file.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, file[at] ^ 1, file[at].wrapping_add(1)] {
                let mut changed = file.clone();
                changed[at] = byte;
                try_all(&changed);
            }
        }
    }
}

#[test]
fn cut_and_spliced() {
    let files = sound_files();
    for file in &files {
        for end in 0..file.len() {
            try_all(&file[..end]);
        }
    }
    let place = any::<prop::sample::Index>();
    run(8192, (0..files.len(), 0..files.len(), place, any::<prop::sample::Index>()), |(a, b, from, to)| {
        let (a, b) = (&files[a], &files[b]);
        try_all(&[&a[..from.index(a.len())], &b[to.index(b.len())..]].concat());
    });
}
