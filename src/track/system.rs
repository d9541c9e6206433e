//! How busy the machine is: share of processor time and of memory in use, from `/proc`.
//!
//! GPUs are measured in `gpus`.

/// Journal name of the share of processor time in use on the machine, in percent.
pub const PROCESSOR: &str = "system/processor_percent";

/// Journal name of the share of the machine's memory in use, in percent.
pub const MEMORY: &str = "system/memory_percent";

/// Journal name of the machine's memory in use, in MiB.
pub const MEMORY_MB: &str = "system/memory_mb";

/// Processor time of the machine since it was started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    busy: u64,
    all: u64,
}

/// Measures the machine; each measurement covers the time since the one before.
#[derive(Debug, Default)]
pub struct System {
    before: Option<Times>,
}

impl System {
    /// From now on.
    pub fn new() -> Self {
        Self { before: std::fs::read_to_string("/proc/stat").ok().as_deref().and_then(times) }
    }

    /// Names and values; what this machine does not tell is left out.
    pub fn measure(&mut self) -> Vec<(&'static str, f64)> {
        let read = |path| std::fs::read_to_string(path).ok();
        let mut found = Vec::new();
        let times = read("/proc/stat").as_deref().and_then(times);
        if let (Some(before), Some(now)) = (self.before, times) {
            found.extend(share(before, now).map(|share| (PROCESSOR, share)));
        }
        self.before = times;
        if let Some((used, all)) = read("/proc/meminfo").as_deref().and_then(memory) {
            found.push((MEMORY, used / all * 100.0));
            found.push((MEMORY_MB, used / 1024.0));
        }
        found
    }
}

fn share(before: Times, now: Times) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    Some(now.busy.saturating_sub(before.busy) as f64 / all as f64 * 100.0)
}

/// The line `cpu  user nice system idle iowait irq softirq steal …` of `/proc/stat`.
fn times(stat: &str) -> Option<Times> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // Guests' time is in `user` already.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let all = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
    Some(Times { busy: all - idle, all })
}

/// Used and total memory in KiB: what could not be given to a new program counts as used.
fn memory(meminfo: &str) -> Option<(f64, f64)> {
    let field = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let all = field("MemTotal").filter(|all| *all > 0.0)?;
    Some((all - field("MemAvailable")?, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_two_looks() {
        let before = times("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(before, Times { busy: 150, all: 1000 });
        let now = times("cpu  130 0 70 830 70 0 0 0 9 0\n").unwrap();
        assert_eq!(share(before, now), Some(50.0));
        assert_eq!(share(now, now), None);
        assert_eq!(times("intr 1 2"), None);
        assert_eq!(memory("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n"), Some((3072.0, 4096.0)));
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    }

    #[test]
    fn this_machine_is_measured() {
        let names: Vec<&str> = System::new().measure().iter().map(|(name, _)| *name).collect();
        assert!(names.ends_with(&[MEMORY, MEMORY_MB]), "{names:?}");
    }
}
