//! Where blocks and proofs come from.

use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::receipt::Receipt;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::Height;

use crate::error::SourceError;

/// Answers a light client; believed in nothing.
pub trait Source {
    /// Returns the genesis document.
    ///
    /// # Errors
    /// [`SourceError`] when there is no usable answer.
    fn genesis(&self) -> Result<Genesis, SourceError>;

    /// Returns the block at `height`, or the newest one.
    ///
    /// # Errors
    /// [`SourceError`] when there is no usable answer.
    fn block(&self, height: Option<Height>) -> Result<LightBlock, SourceError>;

    /// Returns a receipt of a state entry, or of its absence, at the newest height.
    ///
    /// # Errors
    /// [`SourceError`] when there is no usable answer.
    fn state(&self, key: &StateKey) -> Result<Receipt, SourceError>;
}
