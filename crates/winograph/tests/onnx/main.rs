//! ONNX models, written here byte by byte as protobuf: results by definition, files that are wrong or ask for too much, and pictures in tiles.

mod imports;
mod proto;
mod refusals;
mod tiles;
mod work;
