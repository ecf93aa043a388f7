//! The places of a closed segment's blocks, in a file beside it, so that opening need not read the segment.
//!
//! Made from the segment and made again when it is absent or does not match its check. It says nothing of the blocks'
//! bytes: those are checked whenever a block is read, and all of them by a full scan.
//!
//! | bytes | field |
//! |---|---|
//! | 32 | network |
//! | 8 | first height |
//! | 8 | length of the segment |
//! | 1 ‖ 32 | whether the link of its last frame is known, and the link |
//! | 4 | number of blocks |
//! | n × 8 | offset and length of each record, 4 bytes each; both 0 for a missing one |
//! | 32 | check: BLAKE3 derive-key over all of the above |

use std::fs;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::units::Height;

use super::index::Place;
use crate::disk;
use crate::error::StoreError;
use crate::frame::Link;

const CONTEXT: &str = "tiltyard/store/places/v1";
const HEAD_BYTES: usize = 32 + 8 + 8 + 1 + 32 + 4;

/// Where a closed segment's blocks stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) network: GenesisHash,
    pub(super) first: Height,
    /// Length of the segment, in bytes.
    pub(super) length: u64,
    /// Hash of the segment's last frame; `None` when that frame is damaged.
    pub(super) link: Option<Link>,
    /// Offset and length of each record; (0, 0) for a missing one.
    pub(super) records: Vec<(u64, u64)>,
}

/// Name of the file beside a segment.
pub(super) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("places")
}

fn check(body: &[u8]) -> [u8; 32] {
    blake3::derive_key(CONTEXT, body)
}

impl Places {
    pub(super) fn records_of(places: &[Place]) -> Vec<(u64, u64)> {
        places.iter().map(|place| (place.offset(), place.bytes())).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + 8 * self.records.len() + 32);
        out.extend_from_slice(self.network.as_bytes());
        out.extend_from_slice(&self.first.get().to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.push(u8::from(self.link.is_some()));
        out.extend_from_slice(&self.link.unwrap_or_default());
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&narrow(self.records.len() as u64));
        for (offset, bytes) in &self.records {
            out.extend_from_slice(&narrow(*offset));
            out.extend_from_slice(&narrow(*bytes));
        }
        let check = check(&out);
        out.extend_from_slice(&check);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, given) = bytes.split_last_chunk::<32>()?;
        if check(body) != *given {
            return None;
        }
        let (network, rest) = body.split_first_chunk::<32>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (known, rest) = rest.split_first_chunk::<1>()?;
        let (link, rest) = rest.split_first_chunk::<32>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let wide = |four: &[u8]| four.first_chunk::<4>().map(|four| u64::from(u32::from_be_bytes(*four)));
        let records: Option<Vec<(u64, u64)>> =
            rest.chunks(8).map(|pair| Some((wide(pair)?, wide(pair.get(4..)?)?))).collect();
        let records = records?;
        (records.len() == usize::try_from(u32::from_be_bytes(*count)).ok()?).then_some(Self {
            network: GenesisHash::from_bytes(*network),
            first: Height::new(u64::from_be_bytes(*first)),
            length: u64::from_be_bytes(*length),
            link: (*known == [1]).then_some(*link),
            records,
        })
    }

    /// Reads the file beside `segment`; `None` when it is absent, damaged, or of another segment.
    pub(super) fn read(segment: &Path, network: &GenesisHash, first: Height, length: u64) -> Option<Self> {
        let found = Self::decode(&fs::read(path_of(segment)).ok()?)?;
        let fits = found.network == *network && found.first == first && found.length == length;
        fits.then_some(found)
    }

    /// Writes the file beside `segment`.
    pub(super) fn write(&self, segment: &Path) -> Result<(), StoreError> {
        let path = path_of(segment);
        disk::replace(&path, &self.encode()).map_err(|e| StoreError::io("write", &path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_any_flipped_bit_makes_them_unknown() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let segment = folder.path().join("00000000000000000007.log");
        let network = GenesisHash::from_bytes([3; 32]);
        let first = Height::new(7);
        let records = vec![(120, 500), (0, 0), (1_400, 77)];
        let places = Places { network, first, length: 1_477, link: Some([9; 32]), records };
        places.write(&segment).expect("a temporary folder can be written to");
        let read = || Places::read(&segment, &network, first, 1_477);
        assert_eq!(read(), Some(places));
        let whole = fs::read(path_of(&segment)).expect("just written");
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            fs::write(path_of(&segment), &bytes).expect("written");
            assert_eq!(read(), None, "bit {at}");
        }
        fs::write(path_of(&segment), &whole).expect("written");
        assert_eq!(Places::read(&segment, &network, first, 1_478), None);
    }
}
