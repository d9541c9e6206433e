//! Where a demo world may be written, and that the same seed gives the same bytes.

use std::fs;
use std::path::Path;

use vlp::data::demo_world::{MARKER, Outcome, WorldOptions, write};

use super::{FULL, files};

/// The error of writing to `root`, with the name of the test's folder taken out.
fn refusal(root: &Path, options: WorldOptions) -> String {
    write(root, options).unwrap_err().to_string().replace(&root.display().to_string(), "DIR")
}

#[test]
fn same_seed_same_bytes_other_seed_other_world() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    write(&a, FULL).unwrap();
    write(&b, FULL).unwrap();
    write(&c, WorldOptions { seed: 8, ..FULL }).unwrap();
    let (a, b, c) = (files(&a), files(&b), files(&c));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let different: Vec<&String> = a.keys().filter(|name| a[*name] != b[*name]).collect();
    assert_eq!(different, Vec::<&String>::new());
    let name = "COCO/annotations/dataset_coco.json";
    assert_ne!(a[name], c[name]);
    for constant in ["vocab.txt", "VQA/answers_vqa.txt"] {
        assert_eq!(a[constant], c[constant]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "temporary folders are gone");
}

#[test]
fn an_equal_world_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Outcome::Written(first) = write(folder.path(), FULL).unwrap() else { panic!("written") };
    let before = fs::metadata(folder.path().join(MARKER)).unwrap().modified().unwrap();
    assert_eq!(write(folder.path(), FULL).unwrap(), Outcome::UpToDate(first));
    assert_eq!(fs::metadata(folder.path().join(MARKER)).unwrap().modified().unwrap(), before);

    let expected = "DIR holds another demo world: found version 2, seed 7, full size, expected version 2, seed 8, full size\n  \
                    help: delete that folder, or name another one with --out";
    assert_eq!(refusal(folder.path(), WorldOptions { seed: 8, full_size: true }), expected);

    let size = fs::metadata(folder.path().join("vocab.txt")).unwrap().len();
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n").unwrap();
    let damaged = |found: &str| {
        format!(
            "DIR/vocab.txt was changed after `vlp data demo` wrote it: expected {size} bytes, found {found}\n  \
             help: delete the folder DIR and run the command again"
        )
    };
    assert_eq!(refusal(folder.path(), FULL), damaged("6 bytes"));
    fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    assert_eq!(refusal(folder.path(), FULL), damaged("no file"));
    fs::write(folder.path().join(MARKER), "{}").unwrap();
    let expected = "DIR/demo_world.json is not a marker file of a demo world: `full_size` is not true or false\n  \
                    help: delete that folder, or name another one with --out";
    assert_eq!(refusal(folder.path(), FULL), expected);
}

#[test]
fn other_folders_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
    let expected = "DIR is not empty and is not a demo world (it holds `thesis.tex`)\n  \
                    help: name a new or empty folder with --out";
    assert_eq!(refusal(folder.path(), FULL), expected);
    let expected =
        "DIR cannot be the folder of a demo world: it is a file\n  help: name a new or empty folder with --out";
    assert_eq!(refusal(&folder.path().join("thesis.tex"), FULL), expected);
    let found: Vec<_> = files(folder.path()).into_iter().collect();
    assert_eq!(found, [("thesis.tex".to_string(), b"years of work".to_vec())]);
}
