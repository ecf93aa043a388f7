//! The redo file: a layer as it is about to be written into the database, so that a crash in the middle is mended by
//! writing it again.
//!
//! ```text
//! marker ‖ entries × (1 ‖ key length (4) ‖ key ‖ value length (4) ‖ value, or 0 ‖ key length (4) ‖ key) ‖ hash (32)
//! ```
//!
//! The hash is BLAKE3 derive-key over all before it; lengths are big-endian. Nothing is written into the database before
//! the file is durable, and the file goes only after the database is.

use std::fs;
use std::path::Path;

use super::Marker;
use super::layer::Layer;
use crate::disk;
use crate::error::StoreError;

/// Name of the file in the index's folder.
pub(super) const REDO: &str = "redo";
const CONTEXT: &str = "tiltyard/store/redo/v1";
const HASH_BYTES: usize = 32;
/// A file beyond this was not written by this program.
const BYTES_MAX: u64 = 1 << 30;

/// What a start finds.
pub(super) enum Redo {
    /// No file.
    Absent,
    /// It is damaged.
    Broken,
    /// A whole layer.
    Whole(Box<Layer>),
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB").to_be_bytes()
}

fn encode(marker: &Marker, entries: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut out = marker.encode();
    for (key, value) in entries {
        out.push(u8::from(value.is_some()));
        out.extend_from_slice(&length(key));
        out.extend_from_slice(key);
        if let Some(value) = value {
            out.extend_from_slice(&length(value));
            out.extend_from_slice(value);
        }
    }
    let hash = blake3::derive_key(CONTEXT, &out);
    out.extend_from_slice(&hash);
    out
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 4)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
    take(rest, usize::try_from(length).ok()?)
}

fn decode(bytes: &[u8]) -> Option<Layer> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    if blake3::derive_key(CONTEXT, body) != hash {
        return None;
    }
    let mut rest = body;
    let mut layer = Layer::default();
    layer.marker = Some(Marker::decode(take(&mut rest, Marker::LEN)?)?);
    while let Some((tag, left)) = rest.split_first() {
        rest = left;
        let key = take_part(&mut rest)?.to_vec();
        let value = match tag {
            0 => None,
            1 => Some(take_part(&mut rest)?.to_vec()),
            _ => return None,
        };
        layer.set(key, value);
    }
    Some(layer)
}

/// Writes a layer into the redo file; it is durable when this returns. A whole file from before stands until then: the
/// database may hold half of it.
pub(super) fn write(
    folder: &Path,
    marker: &Marker,
    entries: &[(&[u8], Option<&[u8]>)],
) -> Result<(), StoreError> {
    let path = folder.join(REDO);
    disk::replace(&path, &encode(marker, entries)).map_err(|e| StoreError::io("write", &path, e))
}

/// Empties the redo file: the database holds it all, durably. Its return after a crash does no harm.
pub(super) fn clear(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(REDO);
    let file = disk::private().write(true).open(&path).map_err(|e| StoreError::io("open", &path, e))?;
    file.set_len(0).map_err(|e| StoreError::io("empty", &path, e))
}

/// Reads the redo file.
pub(super) fn read(folder: &Path) -> Result<Redo, StoreError> {
    let path = folder.join(REDO);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() == 0 => return Ok(Redo::Absent),
        Ok(found) if found.len() > BYTES_MAX => return Ok(Redo::Broken),
        Ok(_) => fs::read(&path).map_err(|e| StoreError::io("read", &path, e))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Redo::Absent),
        Err(error) => return Err(StoreError::io("inspect", &path, error)),
    };
    Ok(decode(&bytes).map_or(Redo::Broken, |layer| Redo::Whole(Box::new(layer))))
}

#[cfg(test)]
#[path = "redo_tests.rs"]
mod tests;
