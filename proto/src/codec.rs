//! The one door between bytes and types: canonical CBOR (RFC 8949, packed form of SPEC.md §2).
//!
//! Decoding caps the length first, then decodes, then encodes again and requires equal bytes. A value therefore has
//! one encoding, and a hash of bytes is a hash of the value. The decoder goes at most 128 levels deep and reserves at most
//! 1 MiB for a list whose length is only claimed; elements beyond that must be there to be paid for.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says why bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than the type may be; nothing was decoded.
    #[error("{what} has {length} bytes, more than the {max} allowed; the sender must split or shorten it")]
    TooLong {
        /// Name of the type.
        what: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not the CBOR of this type.
    #[error("{what} is not decodable: {fact}; the sender speaks another version or sent garbage")]
    Malformed {
        /// Name of the type.
        what: &'static str,
        /// The decoder's words.
        fact: String,
    },
    /// Decodable, but not in the one canonical form.
    #[error("{what} is not in canonical form; the sender must encode it as SPEC.md section 2 says")]
    NotCanonical {
        /// Name of the type.
        what: &'static str,
    },
}

/// Encodes a value in its canonical form.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that CBOR cannot carry.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = serde_cbor::Serializer::new(&mut out).packed_format();
    value
        .serialize(&mut serializer)
        .expect("wire types hold no maps of unknown length and writing to memory cannot fail");
    out
}

/// Decodes a value from its canonical form, refusing more than `max` bytes unread.
///
/// # Errors
/// [`CodecError`] when the bytes are too long, malformed or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { what, length: bytes.len(), max });
    }
    let value: T = serde_cbor::from_slice(bytes)
        .map_err(|error| CodecError::Malformed { what, fact: cut(&error.to_string()) })?;
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical { what });
    }
    Ok(value)
}

/// Cuts a decoder's words, which may quote the input, to 200 characters.
fn cut(words: &str) -> String {
    words.chars().take(200).collect()
}
