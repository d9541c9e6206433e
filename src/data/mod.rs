//! Everything between the disk and the network: annotations, region files, words, masking, batches, loading.
//!
//! Plain vectors come out; tensors are made by the caller, and nothing here knows the network or the optimiser.

pub mod error;

mod annotation_file;

pub mod karpathy;

pub mod vqa_imdb;

pub mod region_store;

pub mod positions;

pub mod tokenizer;

pub mod random;

pub mod sample;

pub mod batch;

pub mod loader;

pub mod fingerprint;

pub mod verify;

pub mod demo_world;

pub use error::DataError;
