//! Pickles that ask for more than data. Nothing is run: every name outside the list is refused, and named.

use super::make::{call, dict, dtype, global, pickle, row, saved, storage, text, tuple, zip};
use super::{array_error, checkpoint_error};
use insta::assert_snapshot;

fn system() -> Vec<u8> {
    call(global("posix", "system"), &[text("echo pwned > /dev/null")])
}

#[test]
fn a_function_of_the_system() {
    assert_snapshot!(checkpoint_error(&saved(&system())), @r#"
    `hostile.bin`: byte 55: the pickle asks for `posix.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn the_same_in_the_zip_container() {
    assert_snapshot!(checkpoint_error(&zip(&[("archive/data.pkl", &pickle(&system()))])), @r#"
    `hostile.bin`: byte 48: the pickle asks for `posix.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn the_same_where_the_magic_number_should_be() {
    assert_snapshot!(checkpoint_error(&pickle(&system())), @r#"
    `hostile.bin`: byte 2: the pickle asks for `posix.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn the_same_in_text_form() {
    assert_snapshot!(checkpoint_error(b"cos\nsystem\n(S'ls'\ntR."), @r#"
    `hostile.bin`: byte 0: the pickle asks for `os.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn the_same_among_the_weights_of_the_detector() {
    assert_snapshot!(array_error(&pickle(&system())), @r#"
    `fc7_w.pkl`: byte 2: the pickle asks for `posix.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, pickle, numpy; a = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1'); pickle.dump(numpy.array(a, 'f4'), open(sys.argv[2], 'wb'), 2)" 'fc7_w.pkl' plain.pkl
    "#);
}

#[test]
fn a_name_from_the_stack() {
    assert_snapshot!(checkpoint_error(&saved(b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x031+1\x85R")), @r#"
    `hostile.bin`: byte 71: the pickle asks for `builtins.eval`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_function_in_a_later_pickle() {
    let mut file = saved(b"}");
    file.truncate(file.len() - pickle(b"](e").len());
    file.extend(pickle(&system()));
    assert_snapshot!(checkpoint_error(&file), @r#"
    `hostile.bin`: byte 59: the pickle asks for `posix.system`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn settings_of_a_training_script() {
    let namespace = [global("argparse", "Namespace"), b")\x81}b".to_vec()].concat();
    assert_snapshot!(checkpoint_error(&saved(&dict(&[("model", dict(&[("w", row("0", 1))])), ("args", namespace)]))), @r#"
    `hostile.bin`: byte 243: the pickle asks for `argparse.Namespace`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_whole_model_instead_of_its_weights() {
    assert_snapshot!(checkpoint_error(&saved(&[global("pytorch_pretrained_bert.modeling", "BertModel"), b")\x81".to_vec()].concat())), @r#"
    `hostile.bin`: byte 55: the pickle asks for `pytorch_pretrained_bert.modeling.BertModel`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_pickle_inside_the_pickle() {
    assert_snapshot!(checkpoint_error(&saved(&call(global("torch.storage", "_load_from_bytes"), &[text("x")]))), @r#"
    `hostile.bin`: byte 55: the pickle asks for `torch.storage._load_from_bytes`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_class_made_by_inst() {
    assert_snapshot!(checkpoint_error(&saved(b"(S'ls'\nisubprocess\nPopen\n")), @r#"
    `hostile.bin`: byte 62: the pickle asks for an object (INST) of `subprocess.Popen`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_class_made_by_obj() {
    assert_snapshot!(checkpoint_error(&saved(b"(ccollections\nOrderedDict\no")), @r#"
    `hostile.bin`: byte 81: the pickle asks for an object (OBJ), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_class_made_by_newobj() {
    assert_snapshot!(checkpoint_error(&saved(b"ctorch\nFloatStorage\n)\x81")), @r#"
    `hostile.bin`: byte 76: the pickle asks for an object (NEWOBJ) of torch.FloatStorage, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_class_made_by_newobj_ex() {
    assert_snapshot!(checkpoint_error(&saved(b"ccollections\nOrderedDict\n)}\x92")), @r#"
    `hostile.bin`: byte 82: the pickle asks for an object (NEWOBJ_EX), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_storage_class_called() {
    assert_snapshot!(checkpoint_error(&saved(&call(global("torch", "FloatStorage"), &[text("9")]))), @r#"
    `hostile.bin`: byte 83: the pickle asks for a call of torch.FloatStorage, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_value_called() {
    assert_snapshot!(checkpoint_error(&saved(&call(text("os.system"), &[text("ls")]))), @r#"
    `hostile.bin`: byte 78: the pickle asks for a call of a str, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn the_state_of_a_value_changed() {
    assert_snapshot!(checkpoint_error(&saved(b"}}b")), @r#"
    `hostile.bin`: byte 57: the pickle asks for a change of the state (BUILD) of a dict, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn an_extension_code() {
    assert_snapshot!(checkpoint_error(&saved(b"\x82\x01")), @r#"
    `hostile.bin`: byte 55: the pickle asks for an extension code (EXT1), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_set() {
    assert_snapshot!(checkpoint_error(&saved(b"\x8f(K\x01\x90")), @r#"
    `hostile.bin`: byte 55: the pickle asks for a set (EMPTY_SET), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_buffer_outside_the_file() {
    assert_snapshot!(checkpoint_error(&saved(b"\x97")), @r#"
    `hostile.bin`: byte 55: the pickle asks for a buffer outside the file (NEXT_BUFFER), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_persistent_id_in_text_form() {
    assert_snapshot!(checkpoint_error(&saved(b"Pstorage\n")), @r#"
    `hostile.bin`: byte 55: the pickle asks for a persistent id in text form (PERSID), which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_persistent_module() {
    let id = tuple(&[text("module"), global("collections", "OrderedDict"), text("file.py"), text("import os")]);
    assert_snapshot!(checkpoint_error(&saved(&[id, b"Q".to_vec()].concat())), @r#"
    `hostile.bin`: byte 119: the pickle asks for the persistent object `module`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn another_codec() {
    assert_snapshot!(checkpoint_error(&saved(&call(global("_codecs", "encode"), &[text("x"), text("zip")]))), @r#"
    `hostile.bin`: byte 87: the pickle asks for _codecs.encode to `zip`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_name_with_control_characters() {
    assert_snapshot!(checkpoint_error(&saved(&global("os\x1b[2J\u{202e}", "sys\ttem"))), @r#"
    `hostile.bin`: byte 55: the pickle asks for `os\u{1b}[2J\u{202e}.sys\ttem`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_very_long_name() {
    assert_snapshot!(checkpoint_error(&saved(&global(&"very".repeat(100_000), "long"))), @r#"
    `hostile.bin`: byte 55: the pickle asks for `veryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryvery…`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}

#[test]
fn a_structured_dtype() {
    assert_snapshot!(array_error(&pickle(&dtype("V8"))), @r#"
    `fc7_w.pkl`: byte 26: the pickle asks for the numpy dtype `V8`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, pickle, numpy; a = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1'); pickle.dump(numpy.array(a, 'f4'), open(sys.argv[2], 'wb'), 2)" 'fc7_w.pkl' plain.pkl
    "#);
}

#[test]
fn a_class_like_one_of_the_list() {
    assert_snapshot!(checkpoint_error(&saved(&storage("FloatStorage.__init__", "0", 1))), @r#"
    `hostile.bin`: byte 68: the pickle asks for `torch.FloatStorage.__init__`, which is not among the constructors of tensors, arrays and plain values that are read here
      help: Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it with plain values: python3 -c "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])" 'hostile.bin' plain.bin
    "#);
}
