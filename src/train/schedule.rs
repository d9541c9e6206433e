//! Learning-rate factors over the course of training (BertAdam's schedules).

use crate::config::Schedule;

/// Factor on the peak learning rate at the fraction `progress` (0..) of all steps done before this one; `warmup` is the
/// share of steps over which it rises from 0.
///
/// `warmup_linear` falls to 0 at 1 and stays there; `warmup_cosine` is ½(1 + cos πx).
pub fn factor(schedule: Schedule, progress: f64, warmup: f64) -> f64 {
    if progress < warmup {
        return progress / warmup;
    }
    match schedule {
        Schedule::WarmupLinear => ((progress - 1.0) / (warmup - 1.0)).max(0.0),
        Schedule::WarmupConstant => 1.0,
        Schedule::WarmupCosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let at = |x| factor(Schedule::WarmupLinear, x, 0.1);
        assert_eq!([at(0.0), at(0.05), at(0.1), at(1.0), at(1.5)], [0.0, 0.5, 1.0, 0.0, 0.0]);
        assert!((at(0.55) - 0.5).abs() < 1e-12);
        assert_eq!(factor(Schedule::WarmupConstant, 0.7, 0.1), 1.0);
        assert!((factor(Schedule::WarmupCosine, 0.5, 0.1) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_warm_up_of_everything_never_divides_by_zero() {
        assert_eq!(factor(Schedule::WarmupLinear, 0.5, 1.0), 0.5);
        assert_eq!(factor(Schedule::WarmupLinear, 0.5, 0.0), 0.5);
        assert!(!factor(Schedule::WarmupLinear, 1.0, 1.0).is_infinite());
    }
}
