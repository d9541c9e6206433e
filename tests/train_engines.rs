//! The engines of a build with LibTorch agree with each other.
#![cfg(feature = "tch")]

mod demo_runs;

use demo_runs::{Folder, folders};
use vlp::track::{LOSS, What};

#[test]
fn the_devices_agree_over_twenty_steps() {
    let folder = Folder::new();
    let mut curves: Vec<Vec<f64>> = Vec::new();
    for device in ["flex", "tch-cpu"] {
        folder.stdout(&["run", "tiny.toml", "--device", device, "--set", "evaluate.splits=[]", "--set", "paper=[]"]);
        let run = folders(&folder.path("runs/tiny")).pop().unwrap();
        let entries = vlp::track::read(&run.join("journal.jsonl")).unwrap();
        let of = |what: &What| match what {
            What::Metric { name, value, .. } if name == LOSS => Some(*value),
            _ => None,
        };
        curves.push(entries.iter().filter_map(|entry| of(&entry.what)).collect());
    }
    assert_eq!(curves[0].len(), 20);
    for (step, (flex, tch)) in curves[0].iter().zip(&curves[1]).enumerate() {
        assert!((flex - tch).abs() <= 1e-4, "step {step}: flex {flex}, tch-cpu {tch}");
    }
    let (first, last) = (curves[0][0], curves[0][19]);
    assert!(last < first - 0.5, "the loss falls from {first} to {last}");
}
