//! Plain data about machines.

/// What the compiler knows about a machine. Sizes are in bytes unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name, as `--target` and explanations give it.
    pub name: String,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
    /// Vector registers that code may use.
    pub vector_registers: usize,
    /// First-level data cache of one core.
    pub l1: usize,
    /// Second-level cache of one core.
    pub l2: usize,
    /// Last-level cache.
    pub l3: usize,
}

impl Target {
    /// A CPU with vectors of `vector_bytes` bytes: 64 for AVX-512, 32 for AVX2, 16 for SSE and NEON.
    pub fn cpu(vector_bytes: usize) -> Target {
        Target {
            name: "cpu".to_string(),
            vector_bytes,
            vector_registers: if vector_bytes >= 64 { 32 } else { 16 },
            l1: 32 << 10,
            l2: 1 << 20,
            l3: 32 << 20,
        }
    }

    /// Lanes of a vector of elements of `size` bytes.
    pub fn lanes(&self, size: usize) -> i64 {
        (self.vector_bytes / size.max(1)).max(1) as i64
    }
}
