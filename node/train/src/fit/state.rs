//! A run's saved state: parameters, optimizer moments and position, in one checked file.
//!
//! ```text
//! "TYSTATE2" | BLAKE3 of the rest, 32 | header length, u32 LE | header, CBOR |
//! f32 LE: every parameter, every first moment, every second moment, then every average
//! when the header says that there are averages
//! ```
//! Written to a temporary name, synced and renamed; a torn or flipped file is refused.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tiltyard_proto::codec::{self, CodecError};

use crate::safe::{LoadError, read_bytes};

const MAGIC: &[u8; 8] = b"TYSTATE2";
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Identifies what the state belongs to: a hash over settings and data.
    pub(crate) run: [u8; 32],
    /// Steps taken by this run.
    pub(crate) step: u64,
    /// Tokens trained on by this run.
    pub(crate) tokens: u64,
    /// Elements of each parameter.
    pub(crate) sizes: Vec<u64>,
    /// Whether the averages of the parameters follow.
    pub(crate) averaged: bool,
}

/// Everything a run needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) position: Position,
    pub(crate) parameters: Vec<Vec<f32>>,
    pub(crate) first: Vec<Vec<f32>>,
    pub(crate) second: Vec<Vec<f32>>,
    /// Empty unless the run averages its weights.
    pub(crate) averages: Vec<Vec<f32>>,
}

/// Says why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Not a state file, or damaged.
    #[error("state file is damaged: {fact}; it is ignored and the run starts again")]
    Damaged {
        /// What is wrong.
        fact: &'static str,
    },
    /// The header is not readable.
    #[error(transparent)]
    Header(#[from] CodecError),
}

impl State {
    /// Returns the file's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let header = codec::encode(&self.position);
        let mut rest = Vec::new();
        rest.extend_from_slice(&(header.len() as u32).to_le_bytes());
        rest.extend_from_slice(&header);
        for values in self.parameters.iter().chain(&self.first).chain(&self.second).chain(&self.averages) {
            for value in values {
                rest.extend_from_slice(&value.to_le_bytes());
            }
        }
        let mut bytes = Vec::with_capacity(rest.len() + 40);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(blake3::hash(&rest).as_bytes());
        bytes.extend_from_slice(&rest);
        bytes
    }

    /// Reads a state file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`StateError`] when it is absent, damaged or not a state file.
    pub(crate) fn read(path: &Path, limit: u64) -> Result<Self, StateError> {
        Self::from_bytes(&read_bytes(path, limit)?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let damaged = |fact| StateError::Damaged { fact };
        let rest = bytes.strip_prefix(MAGIC).ok_or(damaged("wrong first bytes"))?;
        let (sum, rest) = rest.split_first_chunk::<32>().ok_or(damaged("too short"))?;
        if blake3::hash(rest).as_bytes() != sum {
            return Err(damaged("checksum differs"));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(damaged("too short"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (header, values) = rest.split_at_checked(length).ok_or(damaged("too short"))?;
        let position: Position = codec::decode("run state", header, HEADER_BYTES_MAX)?;
        let total = position.sizes.iter().try_fold(0u64, |sum, &size| sum.checked_add(size));
        if total.and_then(|total| total.checked_mul(if position.averaged { 16 } else { 12 }))
            != Some(values.len() as u64)
        {
            return Err(damaged("sizes differ"));
        }
        let mut numbers = values.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
        let mut take = || -> Vec<Vec<f32>> {
            let sizes = position.sizes.iter();
            sizes.map(|&size| numbers.by_ref().take(size as usize).collect()).collect()
        };
        let (parameters, first, second) = (take(), take(), take());
        let averages = if position.averaged { take() } else { Vec::new() };
        Ok(Self { position, parameters, first, second, averages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let values = |start: f32| vec![vec![start, start + 0.5], vec![start * 2.0]];
        State {
            position: Position { run: [7; 32], step: 5, tokens: 99, sizes: vec![2, 1], averaged: true },
            parameters: values(1.0),
            first: values(-3.0),
            second: values(0.25),
            averages: values(7.0),
        }
    }

    #[test]
    fn a_state_comes_back_bit_for_bit() {
        assert_eq!(State::from_bytes(&state().to_bytes()).expect("whole"), state());
    }

    #[test]
    fn every_flipped_or_missing_byte_is_refused() {
        let bytes = state().to_bytes();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(State::from_bytes(&flipped).is_err(), "flip at {at} was accepted");
            assert!(State::from_bytes(&bytes[..at]).is_err(), "cut at {at} was accepted");
        }
    }
}
