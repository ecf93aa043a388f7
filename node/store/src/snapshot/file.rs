//! One snapshot's file: frames of the form that the log has, each linked to the one before it.
//!
//! | tag | payload |
//! |---|---|
//! | 0 | `tiltyard snapshot 1 ` ‖ network ‖ the decided block whose state it is; always first |
//! | 1 | the cut |
//! | 2 + i | chunk i |
//!
//! A cut may come before or after the chunks. A tail that was cut short is dropped; the chunks before it stay.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::ids::StateRoot;
use tiltyard_proto::limits::{SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_CHUNKS_MAX};
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut};
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Found, Frame, Link};
use crate::log::DECIDED_BYTES_MAX;

const HEAD: u64 = 0;
const CUT: u64 = 1;
const CHUNK: u64 = 2;
const ORIGIN: Link = [0; 32];
const CUT_BYTES_MAX: usize = SNAPSHOT_CHUNKS_MAX * 48;
/// Appended bytes are synced whenever so many are not.
const SYNC_BYTES: u64 = 8 << 20;

const TITLE: &[u8] = b"tiltyard snapshot 1 ";

fn record_max() -> u32 {
    u32::try_from(CUT_BYTES_MAX.max(DECIDED_BYTES_MAX.saturating_add(64))).unwrap_or(u32::MAX)
}

/// A snapshot's file, whole or growing.
#[derive(Debug)]
pub(crate) struct Snapshot {
    path: PathBuf,
    file: File,
    decided: DecidedBlock,
    cut: Option<SnapshotCut>,
    /// Where each chunk's frame begins, by its place in the cut.
    places: Vec<Option<u64>>,
    end: u64,
    unsynced: u64,
    link: Link,
}

impl Snapshot {
    /// Makes the file anew.
    pub(crate) fn create(
        path: &Path,
        network: &GenesisHash,
        decided: &DecidedBlock,
    ) -> Result<Self, StoreError> {
        let file = disk::private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|e| StoreError::io("create", path, e))?;
        let mut this = Self {
            path: path.to_path_buf(),
            file,
            decided: decided.clone(),
            cut: None,
            places: Vec::new(),
            end: 0,
            unsynced: 0,
            link: ORIGIN,
        };
        let head = [TITLE, network.as_bytes(), &codec::encode(decided)].concat();
        this.append(HEAD, &head)?;
        Ok(this)
    }

    /// Reads and checks a whole file; a torn tail is cut off.
    pub(crate) fn open(path: &Path, network: &GenesisHash) -> Result<Self, StoreError> {
        let file =
            disk::private().read(true).write(true).open(path).map_err(|e| StoreError::io("open", path, e))?;
        let length = file.metadata().map_err(|e| StoreError::io("inspect", path, e))?.len();
        let damaged = |offset, fact: &str| StoreError::Damaged {
            path: path.to_path_buf(),
            offset,
            fact: fact.to_owned(),
        };
        let mut this: Option<Self> = None;
        let (mut at, mut link) = (0, ORIGIN);
        loop {
            let found = frame::read(&file, at, length, Some(&link), record_max())
                .map_err(|e| StoreError::io("read", path, e))?;
            let frame = match found {
                Found::Frame(frame) => frame,
                Found::End => break,
                Found::Torn => {
                    tracing::warn!(path = %path.display(), offset = at, "torn tail of a snapshot cut off");
                    file.set_len(at).map_err(|e| StoreError::io("cut the torn tail of", path, e))?;
                    break;
                }
                Found::Damage(fact) => return Err(damaged(at, &fact)),
            };
            let end = at.saturating_add(frame.total_bytes());
            link = frame.head.hash;
            match &mut this {
                None => {
                    let decided = read_head(&frame, path, network)?;
                    let file = file.try_clone().map_err(|e| StoreError::io("open", path, e))?;
                    let (path, places) = (path.to_path_buf(), Vec::new());
                    this = Some(Self { path, file, decided, cut: None, places, end, unsynced: 0, link });
                }
                Some(this) => this.note(at, &frame).map_err(|fact| damaged(at, fact))?,
            }
            at = end;
        }
        let Some(mut this) = this else { return Err(damaged(0, "it has no head")) };
        (this.end, this.link) = (at, link);
        Ok(this)
    }

    fn note(&mut self, at: u64, frame: &Frame) -> Result<(), &'static str> {
        match frame.head.tag {
            HEAD => Err("a second head"),
            CUT => {
                let cut: SnapshotCut = codec::decode("snapshot cut", &frame.payload, CUT_BYTES_MAX)
                    .map_err(|_| "a cut that is none")?;
                cut.verify(&self.root()).map_err(|_| "a cut that does not lead to the state root")?;
                self.cut = Some(cut);
                Ok(())
            }
            tag => {
                let index = usize::try_from(tag.saturating_sub(CHUNK)).unwrap_or(usize::MAX);
                if index >= SNAPSHOT_CHUNKS_MAX {
                    return Err("a chunk beyond the last");
                }
                self.place(index, at);
                Ok(())
            }
        }
    }

    fn place(&mut self, index: usize, at: u64) {
        if self.places.len() <= index {
            self.places.resize(index.saturating_add(1), None);
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(at);
        }
    }

    fn append(&mut self, tag: u64, payload: &[u8]) -> Result<u64, StoreError> {
        let (bytes, link) = frame::encode(tag, &self.link, payload);
        let at = self.end;
        self.file.write_all_at(&bytes, at).map_err(|e| StoreError::io("append to", &self.path, e))?;
        self.end = at.saturating_add(bytes.len() as u64);
        self.link = link;
        self.unsynced = self.unsynced.saturating_add(bytes.len() as u64);
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(at)
    }

    /// Appends the cut, which must lead to the head's state root.
    pub(crate) fn write_cut(&mut self, cut: &SnapshotCut) -> Result<(), StoreError> {
        self.append(CUT, &codec::encode(cut))?;
        self.cut = Some(cut.clone());
        Ok(())
    }

    /// Appends a chunk's canonical bytes; durable after [`Self::sync`], at the latest 8 MiB later.
    pub(crate) fn write_chunk(&mut self, index: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.append(CHUNK.saturating_add(u64::from(index)), bytes)?;
        self.place(index as usize, at);
        Ok(())
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.unsynced = 0;
        self.file.sync_all().map_err(|e| StoreError::io("sync", &self.path, e))
    }

    /// The same file under another name.
    pub(crate) fn at(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn decided(&self) -> &DecidedBlock {
        &self.decided
    }

    pub(crate) fn height(&self) -> Height {
        self.decided.block.header.height
    }

    pub(crate) fn root(&self) -> StateRoot {
        self.decided.block.header.state_root
    }

    pub(crate) fn cut(&self) -> Option<&SnapshotCut> {
        self.cut.as_ref()
    }

    /// Returns the chunks that are there, ascending.
    pub(crate) fn have(&self) -> Vec<u32> {
        (0u32..).zip(&self.places).filter(|(_, place)| place.is_some()).map(|(index, _)| index).collect()
    }

    /// Says whether the cut and every chunk are there.
    pub(crate) fn is_complete(&self) -> bool {
        let count = self.cut.as_ref().map_or(usize::MAX, |cut| cut.chunks.len());
        self.places.len() == count && self.places.iter().all(Option::is_some)
    }

    /// Reads a chunk; `None` when it is not there.
    pub(crate) fn chunk(&self, index: u32) -> Result<Option<SnapshotChunk>, StoreError> {
        let Some(offset) = self.places.get(index as usize).copied().flatten() else { return Ok(None) };
        let damaged = |fact: String| StoreError::Damaged { path: self.path.clone(), offset, fact };
        let found = frame::read(&self.file, offset, self.end, None, record_max())
            .map_err(|e| StoreError::io("read", &self.path, e))?;
        match found {
            Found::Frame(frame) if frame.head.tag == CHUNK.saturating_add(u64::from(index)) => {
                codec::decode("snapshot chunk", &frame.payload, SNAPSHOT_CHUNK_BYTES_MAX)
                    .map(Some)
                    .map_err(|error| damaged(error.to_string()))
            }
            Found::Frame(_) => Err(damaged("another record stands there".to_owned())),
            Found::Damage(fact) => Err(damaged(fact)),
            Found::End | Found::Torn => Err(damaged("its record is cut short".to_owned())),
        }
    }
}

fn read_head(frame: &Frame, path: &Path, network: &GenesisHash) -> Result<DecidedBlock, StoreError> {
    let damaged =
        |fact: &str| StoreError::Damaged { path: path.to_path_buf(), offset: 0, fact: fact.to_owned() };
    let rest = frame.payload.strip_prefix(TITLE).filter(|_| frame.head.tag == HEAD);
    let (found, rest) = rest
        .and_then(|rest| rest.split_first_chunk::<{ GenesisHash::LEN }>())
        .ok_or_else(|| damaged("it does not begin as a snapshot of this program"))?;
    let found = GenesisHash::from_bytes(*found);
    if found != *network {
        let (path, expected) = (path.to_path_buf(), *network);
        return Err(StoreError::Foreign { path, found, expected });
    }
    codec::decode("decided block", rest, DECIDED_BYTES_MAX).map_err(|error| damaged(&error.to_string()))
}
