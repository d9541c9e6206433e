//! A disk that fills up, and one that turns read-only, under a run: an error that says so, and the checkpoint before it
//! still good. Needs the right to mount a small tmpfs; skips loudly without.

mod demo_runs;

use std::path::Path;
use std::process::Command;

use demo_runs::{Folder, TINY, folders};

/// A file system of its own, unmounted at the end.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_path_buf()))
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_read_only_disk_leaves_the_checkpoint_before() {
    let folder = Folder::new();
    let text = TINY.split("[[paper]]").next().unwrap().replace("splits = [\"test\"]", "splits = []");
    folder.write("tiny.toml", text.replace("epochs = 2", "epochs = 3"));
    let args = ["run", "tiny.toml", "--set", "select.split=\"\"", "--set", "train.keep_checkpoints=9"];
    folder.stdout(&args);
    let newest = |folder: &Folder| folders(&folder.path("runs/tiny")).pop().unwrap();
    let bytes = |run: &Path, name: &str| std::fs::read(run.join("checkpoints/epoch-0003").join(name)).unwrap();
    let names = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let expected = names.map(|name| bytes(&newest(&folder), name));
    let checkpoint: usize = expected.iter().map(Vec::len).sum();
    std::fs::remove_dir_all(folder.path("runs")).unwrap();

    // Room for one and a half checkpoints.
    let size = (checkpoint * 3 / 2).to_string();
    let Some(disk) = Disk::mount(&folder.path("runs"), &size) else {
        eprintln!("SKIPPED: full_disk needs the right to mount a tmpfs (root)");
        return;
    };
    let full = folder.failure(4, &args);
    assert!(full.contains("; cause: disk; last lines of "), "{full}");
    assert!(full.contains("No space left on device"), "{full}");
    assert!(full.contains("help: make room on the disk of the run folder, or make it writable; `vlp run "), "{full}");
    let run = newest(&folder);
    assert_eq!(folders(&run.join("checkpoints")), [run.join("checkpoints/epoch-0001")], "a part is left behind");

    disk.remount(&format!("size={},ro", checkpoint * 10));
    let text = folder.failure(4, &args);
    assert!(text.contains("Read-only file system"), "{text}");
    disk.remount("rw");
    folder.stdout(&args);
    assert!(names.map(|name| bytes(&run, name)) == expected, "the resumed run ends with other bytes");
}
