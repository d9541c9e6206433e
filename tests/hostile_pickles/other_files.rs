//! Files that people hold for a checkpoint by mistake: the error says what they look like and what to do.

use std::path::Path;

use super::make::{array, bytes, dtype, floats, int, npy, pickle, text};
use super::{array_error, checkpoint_error, error, objects_error};
use insta::assert_snapshot;
use vlp::formats::{FormatError, StateDict, open};

fn named(name: &str, bytes: &[u8]) -> String {
    error(StateDict::from_bytes(Path::new(name), bytes.to_vec()))
}

#[test]
fn an_empty_file() {
    assert_snapshot!(checkpoint_error(b""), @r"
    `hostile.bin` is empty, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: the download or the copy did not succeed; fetch the file again
    ");
}

#[test]
fn a_web_page() {
    assert_snapshot!(checkpoint_error(b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded"), @r"
    `hostile.bin` is a web page, probably an error or log-in page that was saved in place of the file, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: open it in a browser to see what went wrong, then download the file itself
    ");
}

#[test]
fn a_message_of_a_server() {
    assert_snapshot!(checkpoint_error(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>"), @r"
    `hostile.bin` is an XML document, probably an error message of the server it was downloaded from, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: read it to see what went wrong, then download the file again
    ");
}

#[test]
fn a_pointer_of_git_lfs() {
    assert_snapshot!(checkpoint_error(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 435779157\n"), @r"
    `hostile.bin` is a git-lfs pointer, not the file it points to, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: the real file is fetched by `git lfs pull --include 'hostile.bin'` in its repository
    ");
}

#[test]
fn compressed_with_gzip() {
    assert_snapshot!(named("bert-base-cased.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0"), @r"
    `bert-base-cased.tar.gz` is compressed with gzip, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: unpack it first (`tar xzf 'bert-base-cased.tar.gz'`, or `gunzip`) and name the file inside, e.g. pytorch_model.bin
    ");
}

#[test]
fn compressed_with_xz() {
    assert_snapshot!(checkpoint_error(b"\xfd7zXZ\0\0\0"), @r"
    `hostile.bin` is compressed with xz, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: unpack it first and name the file inside
    ");
}

#[test]
fn a_tar_archive() {
    let mut file = vec![b'b'; 600];
    file[257..262].copy_from_slice(b"ustar");
    assert_snapshot!(named("bert.tar", &file), @r"
    `bert.tar` is a tar archive, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: unpack it first (`tar xf 'bert.tar'`) and name the file inside, e.g. pytorch_model.bin
    ");
}

#[test]
fn the_index_of_tensorflow() {
    assert_snapshot!(checkpoint_error(b"\0\0\x01\x02\0\0\0\0\0\0\0\0\x57\xfb\x80\x8b\x24\x75\x47\xdb"), @r"
    `hostile.bin` is part of a TensorFlow checkpoint, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: convert it to PyTorch first, with the converter of the `transformers` package (`BertForPreTraining.from_pretrained(…, from_tf=True)`, then `torch.save(model.state_dict(), …)`)
    ");
}

#[test]
fn the_numbers_of_tensorflow() {
    assert_snapshot!(named("bert_model.ckpt.data-00000-of-00001", &floats(&[0.5, 0.25, 0.125])), @r"
    `bert_model.ckpt.data-00000-of-00001` is part of a TensorFlow checkpoint, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: convert it to PyTorch first, with the converter of the `transformers` package (`BertForPreTraining.from_pretrained(…, from_tf=True)`, then `torch.save(model.state_dict(), …)`)
    ");
}

#[test]
fn an_hdf5_file() {
    assert_snapshot!(checkpoint_error(b"\x89HDF\r\n\x1a\n\0\0\0\0"), @r"
    `hostile.bin` is an HDF5 file (region features, or Keras weights), expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name a file of the expected format
    ");
}

#[test]
fn an_array_file() {
    assert_snapshot!(checkpoint_error(&npy("'<f4'", &floats(&[1.0, 2.0]))), @r"
    `hostile.bin` is a numpy array file, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name a file of the expected format
    ");
}

#[test]
fn a_configuration() {
    assert_snapshot!(checkpoint_error(b"{\n \"hidden_size\": 768\n}\n"), @r"
    `hostile.bin` is JSON text, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name the data itself, not the configuration beside it
    ");
}

#[test]
fn nothing_that_is_known() {
    assert_snapshot!(checkpoint_error(&[0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5]), @r"
    `hostile.bin` is in no format that is known here (first bytes de ad be ef 01 02 03 04), expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: check that it is the right file and complete
    ");
}

#[test]
fn a_plain_pickle() {
    assert_snapshot!(checkpoint_error(&pickle(&array(&[1], dtype("f4"), bytes(&floats(&[1.0]))))), @r"
    `hostile.bin` is a plain pickle of a numpy array, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name a file that was written by `torch.save`
    ");
}

#[test]
fn a_plain_number() {
    assert_snapshot!(checkpoint_error(&pickle(&int(7))), @r"
    `hostile.bin` is a plain pickle of an int, expected a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors
      help: name a file that was written by `torch.save`
    ");
}

#[test]
fn no_file() {
    assert_snapshot!(error(open(Path::new("no/such/file.bin"))), @r"
    cannot read `no/such/file.bin`: No such file or directory (os error 2)
      help: check the path and its permissions
    ");
}

#[test]
fn a_folder() {
    let error = open(Path::new(".")).unwrap_err();
    assert!(matches!(&error, FormatError::Read { source, .. } if source.kind() == std::io::ErrorKind::IsADirectory));
    assert_snapshot!(error, @r"
    cannot read `.`: is a directory
      help: check the path and its permissions
    ");
}

#[test]
fn a_checkpoint_as_weights_of_the_detector() {
    assert_snapshot!(array_error(&super::make::small_zip()), @r"
    `fc7_w.pkl` is a zip archive, expected a pickled numpy array
      help: name a file of the expected format
    ");
}

#[test]
fn weights_of_the_detector_of_another_type() {
    assert_snapshot!(array_error(&pickle(&array(&[2], dtype("i4"), bytes(&[0; 8])))), @r"
    `fc7_w.pkl` holds a numpy array of i32, expected a numpy array of floating-point numbers
      help: pickle the array itself: pickle.dump(numpy.array(weights, 'f4'), open('fc7_w.pkl', 'wb'), 2)
    ");
}

#[test]
fn weights_of_the_detector_that_are_text() {
    assert_snapshot!(array_error(&pickle(&array(&[1], dtype("S3"), bytes(b"abc")))), @r"
    `fc7_w.pkl` holds a numpy array of texts, expected a numpy array of floating-point numbers
      help: pickle the array itself: pickle.dump(numpy.array(weights, 'f4'), open('fc7_w.pkl', 'wb'), 2)
    ");
}

#[test]
fn weights_of_the_detector_in_a_dict() {
    assert_snapshot!(array_error(&pickle(b"}")), @r"
    `fc7_w.pkl` holds a pickle of a dict, expected a numpy array of floating-point numbers
      help: pickle the array itself: pickle.dump(numpy.array(weights, 'f4'), open('fc7_w.pkl', 'wb'), 2)
    ");
}

#[test]
fn questions_that_are_numbers() {
    assert_snapshot!(objects_error(&npy("'<f4'", &floats(&[1.0, 2.0]))), @r"
    `imdb.npy` holds numbers or texts (dtype `<f4`), expected pickled Python objects (dtype `|O`)
      help: name the file of questions, e.g. imdb_train2014.npy
    ");
}

#[test]
fn questions_that_are_records() {
    assert_snapshot!(objects_error(&npy("[('a', '<f4')]", b"")), @r"
    `imdb.npy` holds a structured array, or a header that is not numpy's, expected pickled Python objects (dtype `|O`)
      help: name the file of questions, e.g. imdb_train2014.npy
    ");
}

#[test]
fn questions_that_are_json() {
    assert_snapshot!(objects_error(b"[{\"question\": 1}]"), @r"
    `imdb.npy` is JSON text, expected a numpy file (.npy) of Python objects
      help: name the data itself, not the configuration beside it
    ");
}

#[test]
fn questions_cut_short() {
    assert_snapshot!(objects_error(&npy("'|O'", b"")[..20]), @r"
    `imdb.npy`: byte 10: the header of the numpy file is cut short
      help: the file is cut short or damaged; copy it again and compare its size and checksum
    ");
}

#[test]
fn questions_that_are_no_array() {
    assert_snapshot!(objects_error(&npy("'|O'", &pickle(&text("what?")))), @r"
    `imdb.npy` holds a pickle of a str, expected pickled Python objects (dtype `|O`)
      help: name the file of questions, e.g. imdb_train2014.npy
    ");
}

#[test]
fn questions_with_a_function() {
    assert_snapshot!(objects_error(&npy("'|O'", &pickle(b"cbuiltins\nexec\n"))), @r#"
    `imdb.npy`: byte 69: the pickle asks for `builtins.exec`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, json, numpy; a = numpy.load(sys.argv[1], allow_pickle=True, encoding='latin1'); numpy.save(sys.argv[2], numpy.array(json.loads(json.dumps(list(a), default=str)), object))" 'imdb.npy' plain.npy
    "#);
}
