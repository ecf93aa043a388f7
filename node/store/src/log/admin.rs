//! Looks at a log that nobody has open: sizes, and every damaged byte. Changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tiltyard_keys::GenesisHash;
use tiltyard_proto::units::Height;

use super::places::path_of;
use super::scan::{check_title, segments};
use super::segment::{self, Tail};
use super::{LogDamage, patches, record_max};
use crate::append::whole_entries;
use crate::disk;
use crate::error::StoreError;
use crate::frame::Link;

/// Sizes of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Number of segments.
    pub segments: u64,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// Bytes of the files that say where blocks stand.
    pub places_bytes: u64,
    /// Bytes of blocks that were had again from peers.
    pub patches_bytes: u64,
    /// Bytes of damaged files and tails that were set aside.
    pub aside_bytes: u64,
}

/// What a full reading finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogVerified {
    pub(crate) bytes: u64,
    pub(crate) blocks: u64,
    pub(crate) first: Option<Height>,
    pub(crate) tip: Option<Height>,
    pub(crate) damage: Vec<LogDamage>,
    /// Heights between first and tip that no good record holds.
    pub(crate) missing: BTreeSet<Height>,
    /// An append that was cut short: where, and how many bytes. The next start cuts it off.
    pub(crate) torn_bytes: u64,
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// Adds up the files of a folder; 0 when there is none.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(list) = fs::read_dir(folder) else { return 0 };
    let sizes = list.flatten().map(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder { folder_bytes(&entry.path()) } else { entry.metadata().map_or(0, |found| found.len()) }
    });
    sizes.sum()
}

/// Measures the log in `folder`.
pub(crate) fn stats(folder: &Path) -> Result<LogStats, StoreError> {
    let mut stats = LogStats {
        patches_bytes: length(&patches::path_of(folder)),
        aside_bytes: folder_bytes(&folder.join("aside")),
        ..LogStats::default()
    };
    if !folder.exists() {
        return Ok(stats);
    }
    for (_, path) in segments(folder)? {
        stats.segments += 1;
        stats.segment_bytes += length(&path);
        stats.places_bytes += length(&path_of(&path));
    }
    Ok(stats)
}

/// Reads the whole log in `folder`.
pub(crate) fn verify(folder: &Path, network: &GenesisHash) -> Result<LogVerified, StoreError> {
    let mut found = LogVerified::default();
    if !folder.exists() {
        return Ok(found);
    }
    let list = segments(folder)?;
    let whole = list.first().is_none_or(|(first, _)| *first == Height::new(1));
    let mut link = whole.then_some(Link::default());
    let count = list.len();
    for (at, (first, path)) in list.into_iter().enumerate() {
        link = verify_segment(&mut found, network, first, &path, link, at.saturating_add(1) == count)?;
    }
    let patched = patches::path_of(folder);
    if patched.exists() {
        for (tag, _) in whole_entries(&patched, record_max())? {
            if found.missing.remove(&Height::new(tag)) {
                found.blocks += 1;
            }
        }
    }
    Ok(found)
}

fn verify_segment(
    found: &mut LogVerified,
    network: &GenesisHash,
    first: Height,
    path: &Path,
    link: Option<Link>,
    is_last: bool,
) -> Result<Option<Link>, StoreError> {
    let read = |e| StoreError::io("read", path, e);
    let file = disk::private().read(true).open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let next = found.tip.map_or(first, |tip| tip.next());
    let link = if next == first { link } else { None };
    let scanned = segment::scan(&file, length, network, first, link).map_err(read)?;
    if let Some(title) = &scanned.title {
        check_title(network, title, path)?;
    }
    found.bytes += length;
    found.first.get_or_insert(first);
    if next < first {
        let fact = format!("no record holds heights {next} to {}", first.get().saturating_sub(1));
        found.damage.push(LogDamage { height: next, path: path.to_path_buf(), offset: 0, end: 0, fact });
    }
    let mut expected = next;
    for (height, _, _) in &scanned.records {
        while expected < *height {
            found.missing.insert(expected);
            expected = expected.next();
        }
        expected = height.next();
        found.tip = Some(*height);
        found.blocks += 1;
    }
    for span in scanned.spans {
        let path = path.to_path_buf();
        let (height, offset, end, fact) = (span.height, span.offset, span.end, span.fact);
        found.damage.push(LogDamage { height, path, offset, end, fact });
    }
    match (scanned.tail, is_last) {
        (Tail::Clean | Tail::Damaged, _) => {}
        (Tail::Torn, true) => found.torn_bytes = length - scanned.good.map_or(0, |(_, end)| end),
        (Tail::Torn, false) => {
            let (path, fact) = (path.to_path_buf(), "a record is cut short".to_owned());
            let offset = scanned.good.map_or(0, |(_, end)| end);
            found.damage.push(LogDamage { height: expected, path, offset, end: length, fact });
        }
    }
    Ok(scanned.link.filter(|_| scanned.tail == Tail::Clean))
}
