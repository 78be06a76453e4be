//! What one request may ask a decoder to hold.

/// Bounds that a decoder keeps, whatever the bytes say. The length of the body is bounded by the
/// server before a decoder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The most input tensors, and the most requested outputs, of one request. Default: 1024.
    pub max_tensors: usize,
    /// The most dimensions of one tensor. Default: 16.
    pub max_rank: usize,
    /// The most memory that the elements of one tensor may take once decoded, in bytes. Default:
    /// 1 GiB. JSON grows when decoded (`0,` is two bytes and an FP64 element eight), so this can be
    /// reached by a body a quarter of the size.
    pub max_tensor_bytes: usize,
    /// The most rows of one request in the contracts of rows. Default: 65,536. Raising it raises what
    /// a short request (`[0,0,...]`) may ask of a model.
    pub max_rows: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        DecodeLimits {
            max_tensors: 1024,
            max_rank: 16,
            max_tensor_bytes: 1 << 30,
            max_rows: 1 << 16,
        }
    }
}
