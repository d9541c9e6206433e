//! `vlp selftest`: whether the device at hand computes what the reference computed, on a small golden world in the binary.
//!
//! The whole golden set is run by the tests (`tests/golden_*.rs`); this is for the users of a new device or LibTorch.

mod check;
mod decoding;
mod golden;
mod network;

use std::time::Instant;

use burn::tensor::Device;

use self::check::Check;
use self::golden::{GoldenError, World};
use super::context::{Context, Failure, exit};
use super::run::print;
use super::score::output;
use crate::model::device;

/// Compare what this machine computes with the reference: network, losses, gradients, optimiser, decoding.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Device: auto, flex, tch-cpu, tch-cuda[:N], cuda[:N].
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
}

const HEADER: [&str; 5] = ["Check", "Numbers", "Largest difference", "Tolerance", "Verdict"];

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let started = Instant::now();
    let device = device::open(&args.device).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let checks = all(&device).map_err(|e| Failure::new(exit::TRAIN, e))?;
    let rows: Vec<Vec<String>> = checks.iter().map(Check::cells).collect();
    print(&output::table(&HEADER.map(String::from), &rows, 1))?;
    let name = device::resolve(&args.device, 1);
    verdict(&checks, &name)?;
    if !context.quiet {
        eprintln!("`{name}` computes what the reference does ({:.1} s)", started.elapsed().as_secs_f64());
    }
    Ok(exit::OK)
}

fn all(device: &Device) -> Result<Vec<Check>, GoldenError> {
    let world = World::open()?;
    let mut checks = network::checks(&world, device)?;
    checks.extend(decoding::checks(&world, device)?);
    Ok(checks)
}

/// Fails with every complaint.
fn verdict(checks: &[Check], device: &str) -> Result<(), Failure> {
    let complaints: Vec<String> = checks.iter().filter_map(Check::complaint).collect();
    if complaints.is_empty() {
        return Ok(());
    }
    let report = format!(
        "{} of {} checks on the device `{device}` are not what the reference computes\n  {}\n  help: trust no result of \
         this device before it passes; compare with `--device flex`, then look at its LibTorch and its driver",
        complaints.len(),
        checks.len(),
        complaints.join("\n  "),
    );
    Err(Failure::new(exit::TRAIN, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A difference of a hundredth of a percent is enough.
    #[test]
    fn a_difference_fails_with_its_place_and_both_values() {
        let world = World::open().unwrap();
        let device = Device::flex().autodiff();
        let (model, _) = world.model(&device).unwrap();
        let (name, batch, expected) = golden::LOSSES[1];
        let batch = batch.arrays().unwrap();
        let mut expected: network::Expected = expected.json().unwrap();
        let compare =
            |expected: &network::Expected| network::loss(name, &world, &model, &batch, expected, &device).unwrap();
        let sound = compare(&expected);
        assert_eq!(verdict(&sound, "flex").map_err(|f| f.report), Ok(()));

        let found = expected.loss;
        expected.loss *= 1.0001;
        let checks = compare(&expected);
        assert_eq!(checks.iter().map(Check::passed).collect::<Vec<_>>(), [false, true]);
        assert_eq!(checks[0].cells(), ["bi: loss", "1", "1.6e-5", "1.6e-6", "DIFFERS"]);
        let Failure { code, report } = verdict(&checks, "flex").unwrap_err();
        assert_eq!(code, exit::TRAIN);
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!(lines[0], "error: 1 of 2 checks on the device `flex` are not what the reference computes");
        assert!(lines[1].starts_with(&format!("  bi: loss: loss[0] is {}", &found.to_string()[..6])), "{report}");
        assert!(lines[1].ends_with(&format!(" instead of {}", expected.loss)), "{report}");
        assert!(lines[2].starts_with("  help: trust no result of this device"), "{report}");
        assert_eq!(lines.len(), 3);
    }
}
