//! Winograd's minimal filtering as a rewrite: matrices, detection, rewriting, accuracy.

pub mod rational;
