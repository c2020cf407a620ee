//! ONNX models, written here byte by byte as protobuf: results by definition, files that are wrong, and pictures in tiles.

mod imports;
mod proto;
mod refusals;
mod tiles;
