//! Sealed evaluation sets: XChaCha20-Poly1305 in 64 KiB chunks (SPEC.md §19).
//!
//! Form: `prefix (19 bytes) ‖ chunk 0 ‖ chunk 1 ‖ …`; each chunk is up to 64 KiB of plaintext and a 16-byte tag. The
//! nonce of a chunk is `prefix ‖ index (4 bytes, big-endian) ‖ 1 for the last chunk, else 0`: the STREAM construction
//! of Hoang, Reyhanitabar, Rogaway and Vizár (CRYPTO 2015), so that cut, swapped or repeated chunks do not open. The
//! prefix is derived from key and plaintext: sealing needs no randomness and one key never repeats a nonce on other
//! content. Every chunk but the last is full; the empty plaintext is one empty chunk.

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::hash::{context, derive};
use crate::ids::SealKey;

/// Plaintext bytes of a full chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of the authentication tag of a chunk.
pub const TAG_BYTES: usize = 16;
/// Bytes before the first chunk.
pub const PREFIX_BYTES: usize = 19;
/// Largest plaintext, in bytes, whatever the caller allows.
pub const PLAINTEXT_BYTES_MAX: u64 = 1 << 30;
/// Name of the one file of an evaluation set.
pub const FILE_NAME: &str = "evaluation.sealed";

/// Says why sealed bytes do not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The plaintext would be larger than allowed; nothing was decrypted.
    #[error("sealed set holds {bytes} bytes, at most {max} are allowed; post a smaller set")]
    TooLarge {
        /// Plaintext bytes that the sealed length implies.
        bytes: u64,
        /// Plaintext bytes allowed.
        max: u64,
    },
    /// No sealing has this length.
    #[error("no sealed set has {bytes} bytes; it was cut or padded, fetch it again")]
    Length {
        /// Bytes given.
        bytes: u64,
    },
    /// A chunk does not open: another key, or changed, cut, swapped or repeated bytes.
    #[error(
        "chunk {chunk} of the sealed set does not open; the key is another one or the bytes were altered"
    )]
    Chunk {
        /// Position of the chunk, from 0.
        chunk: u32,
    },
}

/// Returns the length of a sealed set, in bytes, from that of its plaintext.
#[must_use]
pub const fn sealed_bytes(plaintext_bytes: u64) -> u64 {
    let full = plaintext_bytes.div_ceil(CHUNK_BYTES as u64);
    let chunks = if full == 0 { 1 } else { full };
    plaintext_bytes
        .saturating_add(chunks.saturating_mul(TAG_BYTES as u64))
        .saturating_add(PREFIX_BYTES as u64)
}

/// Returns the length of the plaintext, in bytes, from that of a sealed set; `None` when no sealing has that length.
#[must_use]
pub const fn plaintext_bytes(sealed: u64) -> Option<u64> {
    let Some(body) = sealed.checked_sub(PREFIX_BYTES as u64) else {
        return None;
    };
    let chunks = body.div_ceil((CHUNK_BYTES as u64).saturating_add(TAG_BYTES as u64));
    let Some(plain) = body.checked_sub(chunks.saturating_mul(TAG_BYTES as u64)) else {
        return None;
    };
    if sealed_bytes(plain) == sealed { Some(plain) } else { None }
}

/// Seals `plaintext` under `key`; the same two always give the same bytes.
///
/// Sets above [`PLAINTEXT_BYTES_MAX`] are sealed too, but nobody opens them: check the size before.
#[must_use]
pub fn seal(key: &SealKey, plaintext: &[u8]) -> Vec<u8> {
    let digest = derive(context::SEAL_NONCE, &[key.as_bytes(), plaintext]);
    let mut prefix = [0u8; PREFIX_BYTES];
    prefix.copy_from_slice(digest.split_at(PREFIX_BYTES).0);
    let cipher = cipher(key);
    let mut out = prefix.to_vec();
    let empty: &[u8] = &[];
    let mut chunks = plaintext.chunks(CHUNK_BYTES);
    let mut next = chunks.next().or(Some(empty));
    let mut index = 0u32;
    while let Some(chunk) = next {
        next = chunks.next();
        let sealed = cipher
            .encrypt(&nonce(&prefix, index, next.is_none()), chunk)
            .expect("a chunk is far below the cipher's limit");
        out.extend_from_slice(&sealed);
        index = index.saturating_add(1);
    }
    out
}

/// Opens a sealed set, giving at most `plaintext_max` bytes.
///
/// Memory is bounded by the length of `sealed`, which is checked before anything is decrypted.
///
/// # Errors
/// [`SealError`] when the length is wrong or too large, the key is another one, or any byte was changed.
pub fn open(key: &SealKey, sealed: &[u8], plaintext_max: u64) -> Result<Vec<u8>, SealError> {
    let length = SealError::Length { bytes: sealed.len() as u64 };
    let bytes = plaintext_bytes(sealed.len() as u64).ok_or(length)?;
    let max = plaintext_max.min(PLAINTEXT_BYTES_MAX);
    if bytes > max {
        return Err(SealError::TooLarge { bytes, max });
    }
    let (prefix, body) = sealed.split_first_chunk::<PREFIX_BYTES>().ok_or(length)?;
    let cipher = cipher(key);
    let mut out = Vec::with_capacity(usize::try_from(bytes).map_err(|_| length)?);
    let mut chunks = body.chunks(CHUNK_BYTES.saturating_add(TAG_BYTES));
    let mut next = chunks.next();
    let mut index = 0u32;
    while let Some(chunk) = next {
        next = chunks.next();
        let plain = cipher
            .decrypt(&nonce(prefix, index, next.is_none()), chunk)
            .map_err(|_| SealError::Chunk { chunk: index })?;
        out.extend_from_slice(&plain);
        index = index.saturating_add(1);
    }
    Ok(out)
}

fn cipher(key: &SealKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key.as_bytes()).into())
}

fn nonce(prefix: &[u8; PREFIX_BYTES], index: u32, last: bool) -> XNonce {
    let mut out = [0u8; 24];
    let (head, tail) = out.split_at_mut(PREFIX_BYTES);
    head.copy_from_slice(prefix);
    let (counter, flag) = tail.split_at_mut(4);
    counter.copy_from_slice(&index.to_be_bytes());
    flag.fill(u8::from(last));
    XNonce::from(out)
}
