//! Options of `[launch]` and `[slurm]`: processes, devices, and who starts them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who starts the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// `vlp run` itself, on this machine.
    #[default]
    Local,
    /// Slurm: a batch job per stage.
    Slurm,
}

/// Processes and devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LaunchSettings {
    /// Who starts the processes.
    pub launcher: Launcher,
    /// Processes, one per device; gradients are averaged over them.
    #[schemars(range(min = 1), extend("x-unit" = "processes"))]
    pub world_size: usize,
    /// `auto` (the fastest of this build and machine), `flex` (embedded CPU engine), `tch-cpu` (LibTorch on the CPU), `tch-cuda` (LibTorch on a GPU),
    /// `cuda` (burn's own CUDA engine). The processes of a machine take its GPUs in turn, from 0, or from N on with `tch-cuda:N`.
    #[schemars(
        regex(pattern = r"^(auto|flex|tch-cpu|(tch-)?cuda(:[0-9]{1,3})?)$"),
        extend("x-form" = "auto, flex, tch-cpu, tch-cuda or cuda, the last two also with the number of a GPU (`tch-cuda:1`)")
    )]
    pub device: String,
    /// Compute threads per process; 0 shares the processors of the machine among its processes.
    #[schemars(range(max = 1024), extend("x-unit" = "threads"))]
    pub threads: usize,
    /// Where the processes meet: the machine of rank 0. The embedded engine serves one machine, 127.0.0.1.
    pub master_addr: String,
    /// Port at which they meet; `vlp run` takes any free one for processes on this machine.
    #[schemars(range(min = 1024))]
    pub master_port: u16,
    /// How long a process waits for the others before it gives up.
    #[schemars(range(min = 1, max = 604800), extend("x-unit" = "seconds"))]
    pub timeout_s: u64,
    /// Processes of which none makes progress for so long are stopped and count as failed; 0 waits for ever.
    #[schemars(range(max = 604800), extend("x-unit" = "seconds"))]
    pub hang_timeout_s: u64,
    /// How often a run is started again from its newest checkpoint after a process was killed, hung, or lost the others.
    #[schemars(range(max = 1000), extend("x-unit" = "restarts"))]
    pub max_restarts: usize,
}

impl Default for LaunchSettings {
    fn default() -> Self {
        Self {
            launcher: Launcher::Local,
            world_size: 1,
            device: "auto".into(),
            threads: 0,
            master_addr: "127.0.0.1".into(),
            master_port: 29_500,
            timeout_s: 1800,
            hang_timeout_s: 900,
            max_restarts: 2,
        }
    }
}

impl LaunchSettings {
    /// Processes on one of `nodes` machines.
    pub fn processes_per_machine(&self, nodes: usize) -> usize {
        self.world_size.div_ceil(nodes.max(1))
    }
}

/// The device of the process that is number `local_rank` of its machine: GPUs are taken in turn, from the number that
/// `device` names; other devices are shared.
pub fn device_of_rank(device: &str, local_rank: usize) -> String {
    let (engine, first) = device.split_once(':').unwrap_or((device, "0"));
    match (engine, first.parse::<usize>()) {
        ("tch-cuda" | "cuda", Ok(first)) => format!("{engine}:{}", first + local_rank),
        _ => device.to_owned(),
    }
}

/// The numbers of the GPUs that `processes` of one machine take; none on other devices.
pub fn gpus_of(device: &str, processes: usize) -> Vec<usize> {
    let number = |rank: usize| {
        let device = device_of_rank(device, rank);
        device.split_once(':').and_then(|(_, n)| n.parse().ok())
    };
    (0..processes).filter_map(number).collect()
}

/// How Slurm runs the processes, with `launch.launcher = "slurm"`. Empty texts and zeros leave it to Slurm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SlurmSettings {
    /// Machines; `launch.world_size` is a multiple of it.
    #[schemars(range(min = 1), extend("x-unit" = "machines"))]
    pub nodes: usize,
    /// GPUs per machine.
    pub gpus_per_node: usize,
    /// Time limit of the job, as `--time` takes it, e.g. `08:00:00`.
    pub time: String,
    /// Partition.
    pub partition: String,
    /// Account.
    pub account: String,
    /// Features that the machines must have.
    pub constraint: String,
    /// Put the job back into the queue when it was interrupted before its end.
    pub requeue: bool,
    /// How long before the time limit the processes are asked to save and end.
    #[schemars(range(min = 1, max = 65535), extend("x-unit" = "seconds"))]
    pub signal_s: u64,
    /// `vlp run` waits for the job; otherwise it submits and ends.
    pub wait: bool,
    /// Further options, a line each, e.g. `--mail-type=END`.
    pub extra: Vec<String>,
    /// Shell lines before the processes start, e.g. `module load cuda`.
    pub setup: Vec<String>,
}

impl Default for SlurmSettings {
    fn default() -> Self {
        Self {
            nodes: 1,
            gpus_per_node: 0,
            time: String::new(),
            partition: String::new(),
            account: String::new(),
            constraint: String::new(),
            requeue: true,
            signal_s: 120,
            wait: true,
            extra: Vec::new(),
            setup: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_take_gpus_in_turn() {
        let of = |device, rank| device_of_rank(device, rank);
        assert_eq!([of("tch-cuda", 0), of("tch-cuda", 3), of("cuda:2", 1)], ["tch-cuda:0", "tch-cuda:3", "cuda:3"]);
        assert_eq!([of("auto", 1), of("flex", 1), of("tch-cpu", 1)], ["auto", "flex", "tch-cpu"]);
        assert_eq!([gpus_of("tch-cuda", 3), gpus_of("cuda:2", 2)], [vec![0, 1, 2], vec![2, 3]]);
        assert_eq!([gpus_of("tch-cpu", 2), gpus_of("flex", 1)], [Vec::<usize>::new(), Vec::new()]);
        let launch = LaunchSettings { world_size: 6, ..LaunchSettings::default() };
        assert_eq!([1, 2, 4].map(|nodes| launch.processes_per_machine(nodes)), [6, 3, 2]);
    }
}
