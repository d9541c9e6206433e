//! Tables of published and measured scores, comparisons and reports of runs, generated from run records.
//!
//! Nothing is measured or trained here, and no number is rounded before it is rendered.

pub mod compare;
pub mod items;
pub mod paper;
pub mod render;
pub mod report;
pub mod table;
