//! Winograd's minimal filtering as a rewrite: matrices, detection, rewriting, accuracy.

pub mod accuracy;
pub mod cook_toom;
pub mod points;
pub mod rational;
