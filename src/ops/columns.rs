//! Some columns of a matrix: a product with several matrices at once leaves its results side by side,
//! and ops read theirs where they are.

use crate::graph::TensorId;

/// The columns of a tensor from `at` on, as many as who reads them needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The tensor.
    pub of: TensorId,
    /// The first column.
    pub at: usize,
}

/// A tensor's columns from the first on.
impl From<TensorId> for Columns {
    fn from(of: TensorId) -> Self {
        Self { of, at: 0 }
    }
}
