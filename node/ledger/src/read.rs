//! What the ledger needs from a store: newest values and tree nodes.

/// Reads the state after the last applied block.
///
/// An implementation must answer from one consistent state for as long as it is borrowed.
pub trait StateRead {
    /// Returns the newest value under the bytes of a state key.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot tell; the node must stop.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Returns the bytes of a tree node under the bytes of its node key.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot tell; the node must stop.
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Returns the number of tree versions written so far minus one; `None` before genesis was written.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot tell; the node must stop.
    fn tree_version(&self) -> Result<Option<u64>, ReadError>;
}

/// Says that the store failed or holds what it should not: the node must stop and rebuild its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state cannot be read: {fact}; stop the node and rebuild the state from the block log")]
pub struct ReadError {
    /// What was found.
    pub fact: String,
}

impl ReadError {
    /// Wraps a fact.
    #[must_use]
    pub fn new(fact: impl Into<String>) -> Self {
        Self { fact: fact.into() }
    }
}
