//! Reads one segment from end to end: what is good, what is damaged, how it ends. Never stops at damage.
//!
//! Behind damage it goes on at the next frame whose head matches its check. A record is only taken there if it is a
//! decided block of its height that names its own certificate: bytes inside a transaction may look like a frame.

use std::io;

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::units::Height;

use super::{DECIDED_BYTES_MAX, record_max};
use crate::frame::{self, Found, Frame, Link, Source};

/// A good record: height, offset and length of its frame.
pub(super) type Record = (Height, u64, u64);

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) end: u64,
    /// Height that should stand there; the segment's first for its title.
    pub(super) height: Height,
    pub(super) fact: String,
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// With a whole frame.
    Clean,
    /// With the remains of an append that was cut short.
    Torn,
    /// With damage.
    Damaged,
}

/// What one segment holds.
#[derive(Debug)]
pub(super) struct SegmentScan {
    /// The title's payload, when it is good.
    pub(super) title: Option<Vec<u8>>,
    pub(super) records: Vec<Record>,
    pub(super) spans: Vec<Span>,
    /// Hash of the last frame; `None` when that one is damaged.
    pub(super) link: Option<Link>,
    /// Hash of the last good frame and the first byte after it.
    pub(super) good: Option<(Link, u64)>,
    pub(super) tail: Tail,
}

/// Says whether the segment begins with a whole title.
pub(super) fn has_title<S: Source + ?Sized>(source: &S, length: u64, first: Height) -> io::Result<bool> {
    let found = frame::read(source, 0, length, None, record_max())?;
    Ok(matches!(found, Found::Frame(frame) if frame.head.tag == first.get()))
}

struct Scan<'a, S: ?Sized> {
    source: &'a S,
    length: u64,
    network: &'a GenesisHash,
    first: Height,
    at: u64,
    /// Whether the last bytes passed over were damage.
    resync: bool,
    found: SegmentScan,
}

/// Reads the segment that begins with block `first` and is `length` bytes long; its title must follow `previous` when
/// that is known.
pub(super) fn scan<S: Source + ?Sized>(
    source: &S,
    length: u64,
    network: &GenesisHash,
    first: Height,
    previous: Option<Link>,
) -> io::Result<SegmentScan> {
    let (records, spans) = (Vec::new(), Vec::new());
    let found = SegmentScan { title: None, records, spans, link: previous, good: None, tail: Tail::Clean };
    let mut scan = Scan { source, length, network, first, at: 0, resync: false, found };
    scan.title()?;
    while scan.record()? {}
    Ok(scan.found)
}

impl<S: Source + ?Sized> Scan<'_, S> {
    fn read(&self) -> io::Result<Found> {
        frame::read(self.source, self.at, self.length, self.found.link.as_ref(), record_max())
    }

    fn accept(&mut self, frame: &Frame) {
        self.at = self.at.saturating_add(frame.total_bytes());
        self.found.link = Some(frame.head.hash);
        self.found.good = Some((frame.head.hash, self.at));
        self.resync = false;
    }

    fn title(&mut self) -> io::Result<()> {
        let fact = match self.read()? {
            Found::Frame(frame) if frame.head.tag == self.first.get() => {
                self.accept(&frame);
                self.found.title = Some(frame.payload);
                return Ok(());
            }
            Found::Frame(_) => "the segment's title names another height".to_owned(),
            // A segment gets its name only when its title is whole: no interrupted write leaves this.
            Found::End | Found::Torn => "the segment's title is cut short".to_owned(),
            Found::Damage(fact) => format!("the segment's title: {fact}"),
        };
        self.damage(fact)
    }

    fn expected(&self) -> Height {
        self.found.records.last().map_or(self.first, |(height, _, _)| height.next())
    }

    /// Takes what stands at `at`; false at the end.
    fn record(&mut self) -> io::Result<bool> {
        if self.at >= self.length {
            return Ok(false);
        }
        let fact = match self.read()? {
            Found::Frame(frame) if self.fits(&frame) => {
                let height = Height::new(frame.head.tag);
                self.found.records.push((height, self.at, frame.total_bytes()));
                self.accept(&frame);
                return Ok(true);
            }
            Found::Frame(frame) => format!("block {} stands there", frame.head.tag),
            Found::End => return Ok(false),
            Found::Torn => {
                self.found.tail = Tail::Torn;
                return Ok(false);
            }
            Found::Damage(fact) => fact,
        };
        self.damage(fact)?;
        Ok(true)
    }

    fn fits(&self, frame: &Frame) -> bool {
        let (height, expected) = (frame.head.tag, self.expected().get());
        if !self.resync {
            return height == expected;
        }
        let decided: Option<DecidedBlock> =
            codec::decode("decided block", &frame.payload, DECIDED_BYTES_MAX).ok();
        height >= expected
            && decided.is_some_and(|decided| {
                let header = &decided.block.header;
                header.height.get() == height
                    && header.genesis == *self.network
                    && decided.certificate.block == header.hash()
            })
    }

    /// Notes damage at `at` and goes on behind it.
    fn damage(&mut self, fact: String) -> io::Result<()> {
        let next = match frame::head_at(self.source, self.at, self.length, record_max())? {
            // The head is whole: the next frame begins where it says.
            Some(end) => Some(end),
            None => frame::seek(self.source, self.at.saturating_add(1), self.length)?,
        };
        let end = next.unwrap_or(self.length).min(self.length);
        match self.found.spans.last_mut() {
            // Several tries behind one damage are one damage.
            Some(last) if self.resync => last.end = end,
            Some(_) | None => {
                let (offset, height) = (self.at, self.expected());
                self.found.spans.push(Span { offset, end, height, fact });
            }
        }
        (self.at, self.resync, self.found.link) = (end, true, None);
        if end >= self.length {
            self.found.tail = Tail::Damaged;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
