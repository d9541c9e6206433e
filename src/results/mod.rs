//! Tables of published and measured scores, comparisons and reports of runs, generated from run records.
//!
//! Nothing is measured or trained here, and no number is rounded before it is rendered.

pub mod compare;
pub mod paper;
pub mod per_image;
pub mod render;
pub mod report;
pub mod table;
