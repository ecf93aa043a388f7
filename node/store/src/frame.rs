//! The one frame of every append-only file: it tells a torn tail from damage.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `TYf1` |
//! | 4 | payload length, big-endian |
//! | 8 | tag, big-endian (a height, or the kind of entry) |
//! | 32 | hash of the frame before it, the file's seed for the first |
//! | 32 | hash of this frame: BLAKE3 derive-key over tag ‖ length ‖ previous ‖ payload |
//! | 8 | check: first bytes of BLAKE3 over the 80 bytes before it |
//! | n | payload |
//!
//! An append that was cut short leaves a file that ends inside its last frame, or, after a power cut, a tail of zeros
//! from a sector boundary on. Both are *torn*: nobody was told that the frame is there. Everything else that does not
//! fit is *damage*, and never dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a frame before its payload.
pub(crate) const HEAD_BYTES: usize = 88;

const MAGIC: [u8; 4] = *b"TYf1";
const CONTEXT: &str = "tiltyard/store/frame/v1";
/// Smallest unit that a disk writes whole.
const SECTOR_BYTES: u64 = 512;
/// Fewer zeros than this at the end may be the payload's own.
const ZERO_RUN_BYTES_MIN: u64 = 16;

/// Links a frame to the one before it.
pub(crate) type Link = [u8; 32];

/// Bytes that frames are read from: a file, or a copy of one in memory.
pub(crate) trait Source {
    /// Fills `buffer` from `offset`; an error when there are fewer bytes.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for [u8] {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = from.saturating_add(buffer.len());
        let found = self.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

/// The part of a frame before its payload, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: u32,
    pub(crate) tag: u64,
    pub(crate) previous: Link,
    pub(crate) hash: Link,
}

/// A frame as read, payload checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Returns the frame's whole length in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        (HEAD_BYTES as u64).saturating_add(u64::from(self.head.length))
    }
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole frame that fits the one before it.
    Frame(Frame),
    /// Nothing: the file ends here.
    End,
    /// The remains of an append that was cut short.
    Torn,
    /// Bytes that no interrupted append leaves.
    Damage(String),
}

fn hash(tag: u64, length: u32, previous: &Link, payload: &[u8]) -> Link {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&tag.to_be_bytes());
    hasher.update(&length.to_be_bytes());
    hasher.update(previous);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// Encodes a frame and returns it with its hash. The caller has bounded the payload below 4 GiB.
pub(crate) fn encode(tag: u64, previous: &Link, payload: &[u8]) -> (Vec<u8>, Link) {
    let length = u32::try_from(payload.len()).expect("callers bound payloads far below 4 GiB");
    let hash = hash(tag, length, previous, payload);
    let mut out = Vec::with_capacity(HEAD_BYTES.saturating_add(payload.len()));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(previous);
    out.extend_from_slice(&hash);
    let check = *blake3::hash(&out).as_bytes();
    out.extend_from_slice(&check[..8]);
    out.extend_from_slice(payload);
    (out, hash)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at.saturating_add(N)) {
        out.copy_from_slice(found);
    }
    out
}

fn decode_head(bytes: &[u8; HEAD_BYTES]) -> Option<Head> {
    let check: [u8; 8] = part(bytes, 80);
    let expected = *blake3::hash(&bytes[..80]).as_bytes();
    if part::<4>(bytes, 0) != MAGIC || expected[..8] != check {
        return None;
    }
    Some(Head {
        length: u32::from_be_bytes(part(bytes, 4)),
        tag: u64::from_be_bytes(part(bytes, 8)),
        previous: part(bytes, 16),
        hash: part(bytes, 48),
    })
}

/// Says whether everything from the first sector boundary after `from` up to the file's end is zero, and there is any
/// such byte; `from` itself counts when the whole rest is zero.
fn ends_in_zeros<S: Source + ?Sized>(file: &S, from: u64, end: u64) -> io::Result<bool> {
    let boundary = from.div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
    for start in [from, boundary] {
        if start.saturating_add(ZERO_RUN_BYTES_MIN) <= end && is_zero(file, start, end)? {
            return Ok(true);
        }
    }
    // A long frame may have several good sectors before the zeros begin: look back from the end.
    let last = end.saturating_sub(1) / SECTOR_BYTES * SECTOR_BYTES;
    Ok(last > from && end.saturating_sub(last) >= ZERO_RUN_BYTES_MIN && is_zero(file, last, end)?)
}

fn is_zero<S: Source + ?Sized>(file: &S, from: u64, end: u64) -> io::Result<bool> {
    let mut buffer = [0u8; 4096];
    let mut at = from;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..want];
        file.fill(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at = at.saturating_add(want as u64);
    }
    Ok(true)
}

/// Reads the frame at `offset` of a file that is `end` bytes long; with `previous`, it must follow that frame. Takes no
/// memory beyond `payload_max` and the bytes that are really there.
pub(crate) fn read<S: Source + ?Sized>(
    file: &S,
    offset: u64,
    end: u64,
    previous: Option<&Link>,
    payload_max: u32,
) -> io::Result<Found> {
    let left = end.saturating_sub(offset);
    if left == 0 {
        return Ok(Found::End);
    }
    if left < HEAD_BYTES as u64 {
        let mut bytes = vec![0u8; usize::try_from(left).unwrap_or(0)];
        file.fill(&mut bytes, offset)?;
        // A short tail is only torn if it is the beginning of a frame (or zeros): else it is what remains of others.
        let seen = bytes.len().min(MAGIC.len());
        let begins = bytes[..seen] == MAGIC[..seen] || bytes.iter().all(|byte| *byte == 0);
        return Ok(if begins { Found::Torn } else { Found::Damage("bytes that begin no frame".to_owned()) });
    }
    let mut bytes = [0u8; HEAD_BYTES];
    file.fill(&mut bytes, offset)?;
    let Some(head) = decode_head(&bytes) else {
        return Ok(if ends_in_zeros(file, offset, end)? {
            Found::Torn
        } else {
            Found::Damage("frame head does not match its check".to_owned())
        });
    };
    if head.length > payload_max {
        let fact = format!("frame claims {} bytes, {payload_max} are allowed", head.length);
        return Ok(Found::Damage(fact));
    }
    if previous.is_some_and(|link| *link != head.previous) {
        return Ok(Found::Damage("frame does not follow the one before it".to_owned()));
    }
    let body = offset.saturating_add(HEAD_BYTES as u64);
    if body.saturating_add(u64::from(head.length)) > end {
        return Ok(Found::Torn);
    }
    let mut payload = vec![0u8; head.length as usize];
    file.fill(&mut payload, body)?;
    if hash(head.tag, head.length, &head.previous, &payload) == head.hash {
        return Ok(Found::Frame(Frame { head, payload }));
    }
    let frame_end = body.saturating_add(u64::from(head.length));
    if frame_end == end && ends_in_zeros(file, body, end)? {
        return Ok(Found::Torn);
    }
    Ok(Found::Damage("payload does not match its hash".to_owned()))
}

/// How many bytes are looked at together when a frame is looked for.
const SEEK_BYTES: usize = 64 * 1024;

/// Looks for the first frame at or after `from` whose head matches its check, in a file of `end` bytes. That bytes
/// which are no head match by chance is as likely as guessing 64 bits.
pub(crate) fn seek<S: Source + ?Sized>(file: &S, from: u64, end: u64) -> io::Result<Option<u64>> {
    let mut at = from;
    let mut buffer = vec![0u8; SEEK_BYTES];
    while end.saturating_sub(at) >= HEAD_BYTES as u64 {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(SEEK_BYTES);
        let window = &mut buffer[..want];
        file.fill(window, at)?;
        let last = want - HEAD_BYTES;
        for start in 0..=last {
            if window[start..].starts_with(&MAGIC)
                && decode_head(&part::<HEAD_BYTES>(window, start)).is_some()
            {
                return Ok(Some(at.saturating_add(start as u64)));
            }
        }
        at = at.saturating_add(last as u64).saturating_add(1);
    }
    Ok(None)
}

/// Returns where the frame at `offset` ends, when its head is whole and what it claims is there.
pub(crate) fn head_at<S: Source + ?Sized>(
    file: &S,
    offset: u64,
    end: u64,
    payload_max: u32,
) -> io::Result<Option<u64>> {
    let body = offset.saturating_add(HEAD_BYTES as u64);
    if body > end {
        return Ok(None);
    }
    let mut bytes = [0u8; HEAD_BYTES];
    file.fill(&mut bytes, offset)?;
    let head = decode_head(&bytes).filter(|head| head.length <= payload_max);
    let after = head.map(|head| body.saturating_add(u64::from(head.length)));
    Ok(after.filter(|after| *after <= end))
}
