//! Tables of published and measured scores, generated from run records.
//!
//! Nothing is measured or trained here, and no number is rounded before [`render`].

pub mod paper;
pub mod render;
pub mod table;
