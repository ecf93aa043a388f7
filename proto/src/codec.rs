//! The one door between bytes and types: canonical CBOR (RFC 8949, packed form of SPEC.md §2).
//!
//! Decoding caps the length first, then decodes, then encodes again and requires equal bytes. A value therefore has
//! one encoding, and a hash of bytes is a hash of the value. The decoder goes at most 128 levels deep and reserves at most
//! 1 MiB for a list whose length is only claimed; elements beyond that must be there to be paid for.

use std::io;

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

/// Room that an encoding begins with, in bytes.
const FIRST_BYTES: usize = 256;

/// Encodes a value in its canonical form.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that CBOR cannot carry.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // The encoder writes a few bytes at a time: most values fit without growing.
    let mut out = Vec::with_capacity(FIRST_BYTES);
    let mut serializer = serde_cbor::Serializer::new(&mut out).packed_format();
    value
        .serialize(&mut serializer)
        .expect("wire types hold no maps of unknown length and writing to memory cannot fail");
    out
}

/// Returns the length of a value's encoding, in bytes.
///
/// # Panics
/// Never for the types of this crate, as [`encode`].
#[must_use]
pub fn encoded_len<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut count = Count(0);
    write(value, &mut count).expect("wire types hold no maps of unknown length and counting cannot fail");
    count.0
}

fn write<T: Serialize + ?Sized>(value: &T, out: &mut impl io::Write) -> Result<(), serde_cbor::Error> {
    let mut serializer = serde_cbor::Serializer::new(serde_cbor::ser::IoWrite::new(out)).packed_format();
    value.serialize(&mut serializer)
}

/// Counts what is written.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds what is written against bytes that are there already; an error at the first difference.
struct Compare<'a>(&'a [u8]);

impl io::Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    let mut rest = Compare(bytes);
    if write(&value, &mut rest).is_err() || !rest.0.is_empty() {
        return Err(CodecError::NotCanonical { what });
    }
    Ok(value)
}

/// Cuts a decoder's words, which may quote the input, to 200 characters.
fn cut(words: &str) -> String {
    words.chars().take(200).collect()
}
