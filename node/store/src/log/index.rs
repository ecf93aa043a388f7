//! Where each block stands: 12 bytes a block, in memory.

use std::collections::BTreeSet;

use tiltyard_proto::units::Height;

/// Number that stands for the file of refetched blocks instead of a segment.
const PATCHES: u32 = u32::MAX;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    segment: u32,
    offset: u32,
    bytes: u32,
}

impl Place {
    /// A block that should be there and is not.
    pub(super) const MISSING: Self = Self { segment: 0, offset: 0, bytes: 0 };

    /// Segments and records are far below 4 GiB: both are closed and refused long before.
    pub(super) fn new(segment: u32, offset: u64, bytes: u64) -> Self {
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        Self { segment, offset: narrow(offset), bytes: narrow(bytes) }
    }

    /// A block in the file of refetched ones.
    pub(super) fn patched(offset: u64, bytes: u64) -> Self {
        Self::new(PATCHES, offset, bytes)
    }

    pub(super) fn is_missing(self) -> bool {
        self.bytes == 0
    }

    /// First byte of the record.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset)
    }

    /// Length of the record.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.bytes)
    }

    /// First byte after the record.
    pub(super) fn end(self) -> u64 {
        self.offset().saturating_add(u64::from(self.bytes))
    }
}

/// In which file a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// The segment that begins at this height.
    Segment(Height),
    /// The file of refetched blocks.
    Patches,
}

/// Every block's place, heights in a row; those that are damaged are known as missing.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: Option<Height>,
    places: Vec<Place>,
    segments: Vec<Height>,
    /// Segments that were removed: numbers in places count them.
    gone: u32,
    missing: BTreeSet<Height>,
}

impl Index {
    pub(super) fn first(&self) -> Option<Height> {
        self.first
    }

    pub(super) fn tip(&self) -> Option<Height> {
        let last = (self.places.len() as u64).checked_sub(1)?;
        self.first.map(|first| first.saturating_add(Height::new(last)))
    }

    /// Adds a segment that starts at `first` and returns its number.
    pub(super) fn push_segment(&mut self, first: Height) -> u32 {
        let number = u32::try_from(self.segments.len()).unwrap_or(PATCHES - 1).saturating_add(self.gone);
        self.segments.push(first);
        number
    }

    /// First heights of the segments, oldest first.
    pub(super) fn segments(&self) -> &[Height] {
        &self.segments
    }

    /// Adds the next block.
    pub(super) fn push(&mut self, height: Height, place: Place) {
        self.first.get_or_insert(height);
        self.places.push(place);
        if place.is_missing() {
            self.missing.insert(height);
        }
    }

    fn at(&self, height: Height) -> Option<usize> {
        usize::try_from(height.get().checked_sub(self.first?.get())?).ok()
    }

    /// Returns where a block stands; `None` when it is not kept or missing.
    pub(super) fn place(&self, height: Height) -> Option<Place> {
        self.places.get(self.at(height)?).copied().filter(|place| !place.is_missing())
    }

    /// Changes where a block stands.
    pub(super) fn set(&mut self, height: Height, place: Place) {
        let Some(at) = self.at(height) else { return };
        let Some(known) = self.places.get_mut(at) else { return };
        *known = place;
        if place.is_missing() {
            self.missing.insert(height);
        } else {
            self.missing.remove(&height);
        }
    }

    pub(super) fn is_missing(&self, height: Height) -> bool {
        self.missing.contains(&height)
    }

    /// Number of blocks that are missing.
    pub(super) fn missing_count(&self) -> u64 {
        self.missing.len() as u64
    }

    /// Returns the missing heights, lowest first.
    pub(super) fn missing(&self) -> impl Iterator<Item = Height> + '_ {
        self.missing.iter().copied()
    }

    /// Returns the first and last height of the highest run of missing blocks below the tip.
    pub(super) fn highest_run(&self) -> Option<(Height, Height)> {
        let tip = self.tip()?;
        let last = self.missing.range(..tip).next_back().copied()?;
        let mut from = last;
        while let Some(lower) = from.previous().filter(|lower| self.missing.contains(lower)) {
            from = lower;
        }
        Some((from, last))
    }

    pub(super) fn home(&self, place: Place) -> Option<Home> {
        if place.segment == PATCHES {
            return Some(Home::Patches);
        }
        self.first_of(place.segment).map(Home::Segment)
    }

    /// Returns the first height of the segment with this number.
    pub(super) fn first_of(&self, number: u32) -> Option<Height> {
        self.segments.get(usize::try_from(number.checked_sub(self.gone)?).ok()?).copied()
    }

    /// Forgets the oldest segment when another one follows it and begins at or below `horizon`; returns its first
    /// height.
    pub(super) fn drop_oldest(&mut self, horizon: Height) -> Option<Height> {
        let [oldest, next, ..] = self.segments.as_slice() else { return None };
        let (oldest, next) = (*oldest, *next);
        if next > horizon {
            return None;
        }
        let blocks = usize::try_from(next.get().saturating_sub(self.first?.get())).ok()?;
        self.places.drain(..blocks.min(self.places.len()));
        self.segments.remove(0);
        self.gone = self.gone.saturating_add(1);
        self.first = Some(next);
        self.missing = self.missing.split_off(&next);
        Some(oldest)
    }

    /// Returns the places of one segment's heights, from its first up to the next segment's or the tip; patched ones
    /// count as missing.
    pub(super) fn of_segment(&self, first: Height) -> Vec<Place> {
        let next = self.segments.iter().find(|other| **other > first);
        let end = next.copied().or_else(|| self.tip().map(|tip| tip.next()));
        let (Some(from), Some(end)) = (self.at(first), end.and_then(|end| self.at(end))) else {
            return Vec::new();
        };
        let places = self.places.get(from..end.min(self.places.len())).unwrap_or_default();
        let patched = |place: &Place| place.segment == PATCHES;
        places.iter().map(|place| if patched(place) { Place::MISSING } else { *place }).collect()
    }
}
