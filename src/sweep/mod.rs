//! Searches over options of one experiment: what to try next, which trials to stop early, what came of it.
//!
//! Samplers, pruners and importance are those of the crate `optimizer`; here they meet the options of an experiment and a
//! study file that can be replayed. A trial is an ordinary run of an experiment file that is written for it. Nothing is
//! started here, and nothing printed.

mod files;
mod judge;
mod overview;
mod propose;
mod study;
mod summary;

pub use files::{Fixed, best_file, trial_file, trial_name};
pub use judge::{Report, judge, values_of};
pub use overview::{Overview, best_tags};
pub use propose::{combinations, proposal};
pub use study::{Outcome, Study, StudyError, Trial};
pub use summary::{Importance, Row, Summary};
