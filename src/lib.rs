//! Reproduces, runs and improves the experiments of "Unified Vision-Language Pre-Training for Image Captioning and VQA"
//! (Zhou et al., AAAI 2020).
//!
//! The modules in reading order: what an experiment is, what it reads, the network, how it is trained and decoded, how
//! its captions are scored, and how runs are launched, recorded and tabulated. ARCHITECTURE.md tells who may import whom.
#![deny(missing_docs)]

pub mod config;

pub mod data;

pub mod formats;

pub mod model;

pub mod decode;

pub mod metrics;

pub mod distributed;

pub mod track;

pub mod train;

pub mod evaluate;

pub mod launch;

pub mod pipeline;

pub mod sweep;

pub mod results;

pub mod cli;
