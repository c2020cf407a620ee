//! From a kernel to a scheduled kernel.

pub mod access;
pub mod heuristic;
pub mod plan;
