//! Winograd's minimal filtering as a rewrite: matrices, detection, rewriting, accuracy.

pub mod cook_toom;
pub mod rational;
