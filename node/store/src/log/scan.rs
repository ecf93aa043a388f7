//! Opens a log: places of closed segments from the files beside them, the open segment read whole, damage noted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiltyard_keys::GenesisHash;
use tiltyard_proto::units::Height;

use super::index::{Index, Place};
use super::places::Places;
use super::segment::{self, SegmentScan, Tail};
use super::{Head, LogDamage, LogReport, ScanDepth, segment_name, segment_title};
use crate::aside;
use crate::disk;
use crate::error::StoreError;
use crate::frame::Link;

/// What opening leaves.
pub(super) struct Scanned {
    pub(super) index: Index,
    pub(super) head: Option<Head>,
    pub(super) link: Link,
    pub(super) report: LogReport,
}

/// Link of a log's very first segment.
const ORIGIN: Link = [0; 32];
/// A hole wider than this is not a hole, but a file of something else.
const HOLE_BLOCKS_MAX: u64 = 10_000_000;

/// Lists segments by first height; other names are none of ours and left alone.
pub(super) fn segments(folder: &Path) -> Result<Vec<(Height, PathBuf)>, StoreError> {
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
    depth: ScanDepth,
    index: Index,
    /// Hash of the frame before the next one, when it is known.
    link: Option<Link>,
    report: LogReport,
}

/// Opens every segment in `folder`; `acknowledged` is a lower bound of what must be there.
pub(super) fn scan(
    folder: &Path,
    network: &GenesisHash,
    acknowledged: Option<Height>,
    depth: ScanDepth,
) -> Result<Scanned, StoreError> {
    let mut list = segments(folder)?;
    let (index, report) = (Index::default(), LogReport::default());
    // A log that was pruned begins in the middle: what its first frame links to is gone.
    let whole = list.first().is_none_or(|(first, _)| *first == Height::new(1));
    let link = whole.then_some(ORIGIN);
    let mut scan = Scan { network, acknowledged, depth, index, link, report };
    let mut head = None;
    let last = scan.last_usable(&mut list)?;
    for (first, path) in list {
        scan.closed(first, path)?;
    }
    if let Some((first, path)) = last {
        head = Some(scan.open(first, path)?);
    }
    let tip = scan.index.tip();
    if let Some(wanted) = acknowledged
        && tip.is_none_or(|tip| tip < wanted)
    {
        let from = tip.map_or(Height::new(1), |tip| tip.next());
        scan.report.lost = Some((from, wanted));
    }
    let link = head.as_ref().map_or(ORIGIN, |head| head.link);
    Ok(Scanned { index: scan.index, head, link, report: scan.report })
}

impl Scan<'_> {
    fn next_height(&self, first: Height) -> Height {
        self.index.tip().map_or(first, |tip| tip.next())
    }

    /// Takes the newest segment from the list, setting aside those that hold nothing which can be read.
    fn last_usable(
        &mut self,
        list: &mut Vec<(Height, PathBuf)>,
    ) -> Result<Option<(Height, PathBuf)>, StoreError> {
        while let Some((first, path)) = list.pop() {
            let (file, length) = Self::open_file(&path)?;
            let read = |e| StoreError::io("read", &path, e);
            if segment::has_title(&file, length, first).map_err(read)? {
                return Ok(Some((first, path)));
            }
            let found = segment::scan(&file, length, self.network, first, None).map_err(read)?;
            if !found.records.is_empty() {
                return Ok(Some((first, path)));
            }
            let kept = aside::move_file(&path)?;
            tracing::warn!(path = %path.display(), kept = %kept.display(), "unreadable segment set aside");
            self.note(&found, &path);
            self.report.aside.push(kept);
        }
        Ok(None)
    }

    /// Makes room for the heights that no segment holds; refuses segments that overlap.
    fn bridge(&mut self, first: Height, path: &Path) -> Result<(), StoreError> {
        let next = self.next_height(first);
        let wide = first.get().checked_sub(next.get()).filter(|hole| *hole <= HOLE_BLOCKS_MAX);
        if wide.is_none() {
            let fact = format!("the next segment starts at {first}");
            return Err(StoreError::DamagedBlock { height: next, path: path.to_path_buf(), offset: 0, fact });
        }
        if next < first && self.link.is_some() {
            let fact = format!("no segment holds the blocks before {first}");
            self.report.damage.push(LogDamage {
                height: next,
                path: path.to_path_buf(),
                offset: 0,
                end: 0,
                fact,
            });
        }
        self.push_missing(first, first);
        Ok(())
    }

    /// Marks the heights up to `end` as missing; an empty log begins with `first`.
    fn push_missing(&mut self, first: Height, end: Height) {
        let mut next = self.next_height(first);
        while next < end {
            self.index.push(next, Place::MISSING);
            next = next.next();
        }
    }

    fn open_file(path: &Path) -> Result<(File, u64), StoreError> {
        let file = disk::private()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| StoreError::io("open segment", path, e))?;
        let length = file.metadata().map_err(|e| StoreError::io("inspect", path, e))?.len();
        Ok((file, length))
    }

    /// A segment that another one follows.
    fn closed(&mut self, first: Height, path: PathBuf) -> Result<(), StoreError> {
        let (file, length) = Self::open_file(&path)?;
        self.bridge(first, &path)?;
        let number = self.index.push_segment(first);
        let known = match self.depth {
            ScanDepth::Quick => Places::read(&path, self.network, first, length),
            ScanDepth::Full => None,
        };
        if let Some(known) = known {
            for (offset, bytes) in &known.records {
                let height = self.next_height(first);
                let place = if *bytes == 0 { Place::MISSING } else { Place::new(number, *offset, *bytes) };
                self.index.push(height, place);
            }
            self.link = known.link;
            return Ok(());
        }
        let found = self.read_segment(&file, length, first, &path)?;
        self.take(&found, first, number, &path)?;
        let known_link = if found.tail == Tail::Clean { found.link } else { None };
        if found.tail == Tail::Torn {
            let offset = found.good.map_or(0, |(_, end)| end);
            let (height, fact) = (self.next_height(first), "a record is cut short".to_owned());
            self.report.damage.push(LogDamage { height, path: path.clone(), offset, end: length, fact });
        }
        self.link = known_link;
        let records = Places::records_of(&self.index.of_segment(first));
        Places { network: *self.network, first, length, link: known_link, records }.write(&path)
    }

    /// The newest segment: its tail may be torn.
    fn open(&mut self, first: Height, path: PathBuf) -> Result<Head, StoreError> {
        let (file, length) = Self::open_file(&path)?;
        let found = self.read_segment(&file, length, first, &path)?;
        self.bridge(first, &path)?;
        let number = self.index.push_segment(first);
        self.take(&found, first, number, &path)?;
        let (link, end) = found.good.unwrap_or((ORIGIN, 0));
        let height = self.next_height(first);
        let told = self.acknowledged.is_some_and(|tip| tip >= height);
        match found.tail {
            Tail::Clean => {}
            Tail::Torn if !told => {
                tracing::warn!(path = %path.display(), %height, cut_bytes = length - end, "torn block cut off");
                self.report.torn_bytes = length - end;
                cut(&file, &path, end)?;
            }
            Tail::Torn | Tail::Damaged => {
                let kept = aside::copy_bytes(&path, &file, end, length)?;
                tracing::warn!(path = %path.display(), %height, kept = %kept.display(), "damaged end of the log set aside");
                if found.tail == Tail::Torn {
                    let fact = "an acknowledged record is cut short".to_owned();
                    let path = path.clone();
                    self.report.damage.push(LogDamage { height, path, offset: end, end: length, fact });
                }
                self.report.aside.push(kept);
                cut(&file, &path, end)?;
            }
        }
        Ok(Head { file: Arc::new(file), path, segment: number, end, link })
    }

    fn read_segment(
        &self,
        file: &File,
        length: u64,
        first: Height,
        path: &Path,
    ) -> Result<SegmentScan, StoreError> {
        let link = if self.next_height(first) == first { self.link } else { None };
        let found = segment::scan(file, length, self.network, first, link)
            .map_err(|e| StoreError::io("read", path, e))?;
        if let Some(title) = &found.title {
            check_title(self.network, title, path)?;
        }
        Ok(found)
    }

    fn note(&mut self, found: &SegmentScan, path: &Path) {
        for span in &found.spans {
            let (offset, end, height, fact) = (span.offset, span.end, span.height, span.fact.clone());
            self.report.damage.push(LogDamage { height, path: path.to_path_buf(), offset, end, fact });
        }
    }

    /// Takes what a scan found into the index.
    fn take(
        &mut self,
        found: &SegmentScan,
        first: Height,
        number: u32,
        path: &Path,
    ) -> Result<(), StoreError> {
        self.note(found, path);
        for (height, offset, bytes) in &found.records {
            if height.get().saturating_sub(self.next_height(first).get()) > HOLE_BLOCKS_MAX {
                let (path, fact) = (path.to_path_buf(), "a record far above its place".to_owned());
                return Err(StoreError::DamagedBlock { height: *height, path, offset: *offset, fact });
            }
            self.push_missing(first, *height);
            self.index.push(*height, Place::new(number, *offset, *bytes));
        }
        self.link = found.link;
        Ok(())
    }
}

/// Cuts a segment after `end`, durably.
pub(super) fn cut(file: &File, path: &Path, end: u64) -> Result<(), StoreError> {
    file.set_len(end).and_then(|()| file.sync_all()).map_err(|e| StoreError::io("cut the tail of", path, e))
}

/// Refuses a segment of another network or form.
pub(super) fn check_title(network: &GenesisHash, title: &[u8], path: &Path) -> Result<(), StoreError> {
    let expected = segment_title(network);
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
            expected: *network,
        });
    }
    let fact = "the segment was written in a form that this program does not know".to_owned();
    Err(StoreError::Damaged { path: path.to_path_buf(), offset: 0, fact })
}
