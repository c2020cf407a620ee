//! C's vector types.

pub(super) use crate::render::clike::{Elem, identifier, int_literal};

/// A C type: a scalar or a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CType {
    pub(super) elem: Elem,
    pub(super) lanes: u32,
}

impl CType {
    pub(super) fn new(elem: Elem, lanes: u32) -> CType {
        CType { elem, lanes }
    }

    pub(super) fn name(self) -> String {
        if self.lanes == 1 { self.elem.name().to_string() } else { format!("{}x{}", self.elem.name(), self.lanes) }
    }

    pub(super) fn bytes(self) -> usize {
        self.elem.bytes() * self.lanes as usize
    }

    pub(super) fn with(self, elem: Elem) -> CType {
        CType { elem, lanes: self.lanes }
    }

    /// The type of a comparison's result.
    pub(super) fn mask(self) -> CType {
        self.with(self.elem.signed())
    }

    pub(super) fn half(self) -> CType {
        CType { elem: self.elem, lanes: self.lanes / 2 }
    }
}
