//! From a kernel to a scheduled kernel.

pub mod access;
pub mod blocks;
pub mod chunks;
pub mod contract;
pub mod grid;
pub mod group;
pub mod heuristic;
pub mod matrix_unit;
mod merge;
pub mod plan;
pub mod rows;
pub mod stored;
pub mod units;
