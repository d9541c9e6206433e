//! Pickles, containers and archives, made byte by byte.

/// A pickle of protocol 2 of what `body` leaves on the stack.
pub fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|v| int(*v)).collect::<Vec<_>>())
}

pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &entries[..], b"u"].concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn call(callable: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [callable, tuple(arguments), b"R".to_vec()].concat()
}

/// A storage of the class `torch.<class>` as the zip container names it.
pub fn storage(class: &str, key: &str, length: i64) -> Vec<u8> {
    [tuple(&[text("storage"), global("torch", class), text(key), text("cpu"), int(length)]), b"Q".to_vec()].concat()
}

/// The same as the legacy container names it, with its view.
pub fn viewed(class: &str, key: &str, length: i64, view: Vec<u8>) -> Vec<u8> {
    let parts = [text("storage"), global("torch", class), text(key), text("cuda:0"), int(length), view];
    [tuple(&parts), b"Q".to_vec()].concat()
}

pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let parts = [storage, int(offset), ints(shape), ints(strides), b"\x89".to_vec(), hooks];
    call(global("torch._utils", "_rebuild_tensor_v2"), &parts)
}

/// A row of numbers that fills the storage `key`.
pub fn row(key: &str, length: i64) -> Vec<u8> {
    tensor(storage("FloatStorage", key, length), 0, &[length], &[1])
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The legacy container; a storage is its key, the number of elements that is written before it, and its bytes.
pub fn legacy(object: &[u8], storages: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = pickle(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19");
    file.extend(pickle(&int(1001)));
    file.extend(pickle(&dict(&[("little_endian", b"\x88".to_vec())])));
    file.extend(pickle(object));
    let keys: Vec<u8> = storages.iter().flat_map(|(key, _, _)| text(key)).collect();
    file.extend(pickle(&[b"](", &keys[..], b"e"].concat()));
    for (_, length, bytes) in storages {
        file.extend(length.to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// A legacy container of an object without storages.
pub fn saved(object: &[u8]) -> Vec<u8> {
    legacy(object, &[])
}

/// A sound legacy checkpoint of two tensors of the same storage.
pub fn small_legacy() -> Vec<u8> {
    let object = dict(&[
        ("w", tensor(viewed("FloatStorage", "0", 6, b"N".to_vec()), 0, &[2, 3], &[3, 1])),
        ("t", tensor(viewed("FloatStorage", "0", 6, b"N".to_vec()), 1, &[2, 2], &[1, 3])),
    ]);
    legacy(&object, &[("0", 6, floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))])
}

/// A sound zip checkpoint of one tensor.
pub fn small_zip() -> Vec<u8> {
    let object = pickle(&dict(&[("w", row("0", 3))]));
    zip(&[("m/data.pkl", &object), ("m/byteorder", b"little"), ("m/data/0", &floats(&[1.0, 2.0, 3.0]))])
}

/// A zip archive of uncompressed entries.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let at = file.len() as u32;
        let sizes = [[0; 4], (bytes.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        file.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0");
        file.extend(&sizes);
        file.extend(name_length);
        file.extend([0, 0]);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0");
        directory.extend(&sizes);
        directory.extend(name_length);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = file.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count, count].concat());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// The zip archive with the directory of a zip64 archive.
pub fn zip64(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = zip(entries);
    let end = file.split_off(file.len() - 22);
    let number = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let at = file.len() as u64;
    let count = entries.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend(44u64.to_le_bytes());
    file.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for value in [count, count, number(12), number(16)] {
        file.extend(value.to_le_bytes());
    }
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(at.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([0xff; 12]);
    file.extend([0, 0]);
    file
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A `.npy` file with this dtype.
pub fn npy(dtype: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': (2,), }}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A pickled numpy array; `dtype` is made by [`dtype`], `data` is a value on the stack.
pub fn array(shape: &[i64], dtype: Vec<u8>, data: Vec<u8>) -> Vec<u8> {
    let class = global("numpy", "ndarray");
    let empty = call(global("numpy.core.multiarray", "_reconstruct"), &[class, ints(&[0]), b"U\x01b".to_vec()]);
    let state = tuple(&[int(1), ints(shape), dtype, b"\x89".to_vec(), data]);
    [empty, state, b"b".to_vec()].concat()
}

pub fn dtype(name: &str) -> Vec<u8> {
    let made = call(global("numpy", "dtype"), &[text(name), b"\x89".to_vec(), b"\x88".to_vec()]);
    let none = || b"N".to_vec();
    let state = tuple(&[int(3), text("<"), none(), none(), none(), int(-1), int(-1), int(0)]);
    [made, state, b"b".to_vec()].concat()
}

/// `bytes` of fewer than 256 bytes.
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&[b'C', bytes.len() as u8], bytes].concat()
}
