//! Reads a whole log at start: every byte is checked, a torn tail is cut off, damage is an error.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiltyard_keys::GenesisHash;
use tiltyard_proto::units::Height;

use super::index::{Index, Place};
use super::{Head, record_max, segment_name, segment_title};
use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Found, Link};

/// What a scan leaves.
pub(super) struct Scanned {
    pub(super) index: Index,
    pub(super) head: Option<Head>,
    pub(super) link: Link,
}

/// Link of a log's very first segment.
const ORIGIN: Link = [0; 32];

/// Lists segments by first height; other names are none of ours and left alone.
fn segments(folder: &Path) -> Result<Vec<(Height, PathBuf)>, StoreError> {
    let wrap = |e| StoreError::io("list", folder, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(first) = name.strip_suffix(".log").and_then(|digits| digits.parse().ok()) else { continue };
        let first = Height::new(first);
        if segment_name(first) == name {
            found.push((first, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

struct Scan<'a> {
    network: &'a GenesisHash,
    acknowledged: Option<Height>,
    index: Index,
    link: Option<Link>,
}

/// Reads every segment in `folder`; `acknowledged` is a lower bound of what must be there.
pub(super) fn scan(
    folder: &Path,
    network: &GenesisHash,
    acknowledged: Option<Height>,
) -> Result<Scanned, StoreError> {
    let list = segments(folder)?;
    let mut scan = Scan { network, acknowledged, index: Index::default(), link: None };
    let mut head = None;
    let count = list.len();
    for (at, (first, path)) in list.into_iter().enumerate() {
        head = Some(scan.segment(first, path, at.saturating_add(1) == count)?);
    }
    let tip = scan.index.tip();
    if let Some(wanted) = acknowledged
        && tip.is_none_or(|tip| tip < wanted)
    {
        let height = tip.map_or(wanted, |tip| tip.saturating_add(Height::new(1)));
        let path = head.as_ref().map_or_else(|| folder.to_path_buf(), |head| head.path.clone());
        let offset = head.as_ref().map_or(0, |head| head.end);
        let fact = format!("blocks up to {wanted} were acknowledged and are gone");
        return Err(StoreError::DamagedBlock { height, path, offset, fact });
    }
    Ok(Scanned { index: scan.index, head, link: scan.link.unwrap_or(ORIGIN) })
}

impl Scan<'_> {
    fn next_height(&self, first: Height) -> Height {
        self.index.tip().map_or(first, |tip| tip.saturating_add(Height::new(1)))
    }

    fn segment(&mut self, first: Height, path: PathBuf, is_last: bool) -> Result<Head, StoreError> {
        let file = disk::private()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| StoreError::io("open segment", &path, e))?;
        let end = file.metadata().map_err(|e| StoreError::io("inspect", &path, e))?.len();
        if self.next_height(first) != first {
            let (height, fact) = (self.next_height(first), format!("the next segment starts at {first}"));
            return Err(StoreError::DamagedBlock { height, path, offset: 0, fact });
        }
        let number = self.index.push_segment(first);
        let mut at = self.title(&file, first, &path, end)?;
        loop {
            let found = frame::read(&file, at, end, self.link.as_ref(), record_max())
                .map_err(|e| StoreError::io("read", &path, e))?;
            let height = self.next_height(first);
            let fact = match found {
                Found::Frame(frame) if frame.head.tag == height.get() => {
                    let bytes = usize::try_from(frame.total_bytes()).unwrap_or(usize::MAX);
                    self.index.push(height, Place::new(number, at, bytes));
                    at = at.saturating_add(frame.total_bytes());
                    self.link = Some(frame.head.hash);
                    continue;
                }
                Found::End => break,
                Found::Torn if is_last && self.acknowledged.is_none_or(|tip| tip < height) => {
                    tracing::warn!(path = %path.display(), %height, cut_bytes = end - at, "torn block cut off");
                    file.set_len(at)
                        .and_then(|()| file.sync_all())
                        .map_err(|e| StoreError::io("cut the torn tail of", &path, e))?;
                    break;
                }
                Found::Torn => "an acknowledged record is cut short".to_owned(),
                Found::Frame(frame) => format!("block {} stands there", frame.head.tag),
                Found::Damage(fact) => fact,
            };
            return Err(StoreError::DamagedBlock { height, path, offset: at, fact });
        }
        let link = self.link.unwrap_or(ORIGIN);
        Ok(Head { file: Arc::new(file), path, segment: number, end: at, link })
    }

    /// Reads a segment's title and returns where its records begin.
    fn title(&mut self, file: &File, first: Height, path: &Path, end: u64) -> Result<u64, StoreError> {
        let found = frame::read(file, 0, end, self.link.as_ref(), record_max())
            .map_err(|e| StoreError::io("read", path, e))?;
        let fact = match found {
            Found::Frame(frame) if frame.head.tag == first.get() => {
                let total = frame.total_bytes();
                self.link = Some(frame.head.hash);
                self.check_title(&frame.payload, path)?;
                return Ok(total);
            }
            Found::Frame(_) => "the segment's title names another height".to_owned(),
            // A segment gets its name only when its title is whole: no interrupted write leaves this.
            Found::End | Found::Torn => "the segment's title is cut short".to_owned(),
            Found::Damage(fact) => fact,
        };
        Err(StoreError::DamagedBlock { height: first, path: path.to_path_buf(), offset: 0, fact })
    }

    fn check_title(&self, title: &[u8], path: &Path) -> Result<(), StoreError> {
        let expected = segment_title(self.network);
        if title == expected {
            return Ok(());
        }
        let same_form = title.len() == expected.len()
            && title.get(..expected.len() - GenesisHash::LEN)
                == expected.get(..expected.len() - GenesisHash::LEN);
        if let (true, Some(found)) = (same_form, title.last_chunk::<32>()) {
            return Err(StoreError::Foreign {
                path: path.to_path_buf(),
                found: GenesisHash::from_bytes(*found),
                expected: *self.network,
            });
        }
        let fact = "the segment was written in a form that this program does not know".to_owned();
        Err(StoreError::Damaged { path: path.to_path_buf(), offset: 0, fact })
    }
}
