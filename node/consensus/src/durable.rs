//! Durable before sent, as types: what a validator says is sealed until the journal holds why it says it.
//!
//! A [`Sealed`] message gives its content to nobody but the holder of a [`Durable`], and a journal write that succeeded
//! is what gives one of those. Each carries a number, so that the write of one batch does not open what waits for a
//! later one.
//!
//! ```
//! use tiltyard_consensus::{Durable, JournalWrite, NotDurable, Sealed};
//!
//! fn shell(batch: &JournalWrite, frame: Sealed<Vec<u8>>) -> Result<Vec<u8>, NotDurable> {
//!     let written: Result<Durable, std::io::Error> = batch.perform(|bytes| {
//!         // append the bytes and fsync here
//!         let _ = bytes;
//!         Ok(())
//!     });
//!     frame.open(&written.expect("the disk works"))
//! }
//! ```
//!
//! Sending without the write does not compile: there is no other way to the content,
//!
//! ```compile_fail,E0616
//! fn shell(frame: tiltyard_consensus::Sealed<Vec<u8>>) -> Vec<u8> {
//!     frame.content
//! }
//! ```
//!
//! and no other way to a [`Durable`] of a batch.
//!
//! ```compile_fail,E0423
//! fn shell(frame: tiltyard_consensus::Sealed<Vec<u8>>) -> Vec<u8> {
//!     frame.open(&tiltyard_consensus::Durable(7)).expect("open")
//! }
//! ```

use tiltyard_proto::codec;
use tiltyard_proto::wire::{ConsensusFrame, ConsensusMessage};

/// A batch for the vote journal. Whoever performs the write gets the right to say what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalWrite {
    number: u64,
    bytes: Vec<u8>,
}

impl JournalWrite {
    pub(crate) fn new(number: u64, bytes: Vec<u8>) -> Self {
        Self { number, bytes }
    }

    /// Writes the batch with `write`, which returns when the bytes are on disk.
    ///
    /// # Errors
    /// What `write` returns; then nothing that waits for the batch can be said.
    pub fn perform<E>(&self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<Durable, E> {
        write(&self.bytes)?;
        Ok(Durable(self.number))
    }
}

/// Says that the journal is on disk up to a batch of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(u64);

impl Durable {
    /// What a start from disk has: the journal as it was read back, nothing of this run.
    #[must_use]
    pub const fn at_start() -> Self {
        Self(0)
    }
}

/// Says that something was about to leave before the journal held it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "journal batch {needed} must be on disk before this message leaves, {written} is; stop the node: its shell is faulty"
)]
pub struct NotDurable {
    /// Batch that the message waits for.
    pub needed: u64,
    /// Newest batch on disk.
    pub written: u64,
}

/// Something that this validator says, sealed until the journal is durable up to the batch that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<T> {
    needed: u64,
    content: T,
}

impl<T> Sealed<T> {
    pub(crate) fn new(needed: u64, content: T) -> Self {
        Self { needed, content }
    }

    /// Gives the content away, to be sent.
    ///
    /// # Errors
    /// [`NotDurable`] when the journal is not on disk that far.
    pub fn open(self, written: &Durable) -> Result<T, NotDurable> {
        if written.0 < self.needed {
            return Err(NotDurable { needed: self.needed, written: written.0 });
        }
        Ok(self.content)
    }
}

impl Sealed<ConsensusMessage> {
    /// Makes the frame that carries the message; `counter` lies outside every signature.
    #[must_use]
    pub fn into_frame(self, counter: u64) -> Sealed<Vec<u8>> {
        let frame = ConsensusFrame { counter, message: self.content };
        Sealed { needed: self.needed, content: codec::encode(&frame) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_opens_with_its_batch_and_later_ones_only() {
        let said = Sealed::new(2, "vote");
        let (first, second) = (JournalWrite::new(1, vec![1]), JournalWrite::new(2, vec![2]));
        let written = |batch: &JournalWrite| batch.perform(|_| Ok::<(), ()>(())).unwrap();
        assert_eq!(said.clone().open(&Durable::at_start()), Err(NotDurable { needed: 2, written: 0 }));
        assert_eq!(said.clone().open(&written(&first)), Err(NotDurable { needed: 2, written: 1 }));
        assert_eq!(said.open(&written(&second)), Ok("vote"));
    }

    #[test]
    fn a_write_that_fails_opens_nothing() {
        assert_eq!(JournalWrite::new(1, vec![]).perform(|_| Err("disk full")), Err("disk full"));
    }
}
