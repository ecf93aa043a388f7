//! Where each block stands: 12 bytes a block, in memory, made by reading the log.

use tiltyard_proto::units::Height;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    segment: u32,
    offset: u32,
    bytes: u32,
}

impl Place {
    /// Segments and records are far below 4 GiB: both are closed and refused long before.
    pub(super) fn new(segment: u32, offset: u64, bytes: usize) -> Self {
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        Self { segment, offset: narrow(offset), bytes: narrow(bytes as u64) }
    }

    /// First byte of the record.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset)
    }

    /// First byte after the record.
    pub(super) fn end(self) -> u64 {
        self.offset().saturating_add(u64::from(self.bytes))
    }
}

/// Every block's place, heights without gap.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: Option<Height>,
    places: Vec<Place>,
    segments: Vec<Height>,
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
        let number = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        self.segments.push(first);
        number
    }

    /// Adds the next block.
    pub(super) fn push(&mut self, height: Height, place: Place) {
        self.first.get_or_insert(height);
        self.places.push(place);
    }

    pub(super) fn place(&self, height: Height) -> Option<Place> {
        let at = height.get().checked_sub(self.first?.get())?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    pub(super) fn segment_first(&self, place: Place) -> Option<Height> {
        self.segments.get(usize::try_from(place.segment).ok()?).copied()
    }
}
