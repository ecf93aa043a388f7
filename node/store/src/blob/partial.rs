//! A download in progress: pieces are synced before they are noted, so that what is noted is there after a crash.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::{FileEntry, Manifest};

use super::{BlobError, Shared, info, layout};
use crate::append::AppendFile;
use crate::disk;
use crate::error::StoreError;

/// Length of every piece of a file but the last, in bytes.
pub const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A note: place of the file, number of the piece, both big-endian.
const NOTE_BYTES: u32 = 8;

/// Number of pieces of a file; an empty file has none.
fn pieces(entry: &FileEntry) -> u64 {
    entry.bytes.div_ceil(PIECE_BYTES)
}

/// A download in progress. Shared by the threads that write its pieces; while it lives nobody else can begin the same.
#[derive(Debug)]
pub struct Partial {
    shared: Arc<Shared>,
    root: BlobRoot,
    manifest: Manifest,
    home: PathBuf,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    file: AppendFile,
    held: BTreeSet<(u32, u32)>,
    finished: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.shared.room().close(&self.root);
    }
}

fn encode(file: u32, piece: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&file.to_be_bytes());
    out[4..].copy_from_slice(&piece.to_be_bytes());
    out
}

fn decode(note: &[u8]) -> Option<(u32, u32)> {
    let (file, piece) = note.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*file), u32::from_be_bytes(*piece.first_chunk::<4>()?)))
}

impl Partial {
    pub(super) fn begin(shared: &Arc<Shared>, manifest: &Manifest) -> Result<Self, BlobError> {
        manifest.check()?;
        let (root, bytes) = (manifest.root(), manifest.total_bytes()?);
        {
            let mut room = shared.room();
            if room.has(&root) {
                return Err(BlobError::Present { root });
            }
            if !room.open(root) {
                return Err(BlobError::Busy { root });
            }
            if !room.is_promised(&root) {
                if let Err(error) = shared.check_room(&room, bytes) {
                    room.close(&root);
                    return Err(error);
                }
                room.promise(root, bytes);
            }
        }
        // From here on `close` must happen: either by the value's drop or right here.
        let home = shared.partial_home(&root);
        match prepare(&home, manifest, &root) {
            Ok(notes) => Ok(Self {
                shared: Arc::clone(shared),
                root,
                manifest: manifest.clone(),
                home,
                notes: Mutex::new(notes),
            }),
            Err(error) => {
                shared.room().close(&root);
                Err(error)
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the blob's manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Says whether a piece is kept already.
    #[must_use]
    pub fn holds(&self, file: u32, piece: u32) -> bool {
        self.notes().held.contains(&(file, piece))
    }

    /// Returns the bytes kept so far.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let notes = self.notes();
        notes.held.iter().fold(0u64, |sum, (file, piece)| sum.saturating_add(self.piece_bytes(*file, *piece)))
    }

    fn entry(&self, file: u32) -> Option<&FileEntry> {
        self.manifest.files.get(usize::try_from(file).ok()?)
    }

    /// Length of a piece; 0 when there is none such.
    fn piece_bytes(&self, file: u32, piece: u32) -> u64 {
        let start = u64::from(piece).saturating_mul(PIECE_BYTES);
        self.entry(file).map_or(0, |entry| entry.bytes.saturating_sub(start).min(PIECE_BYTES))
    }

    /// Keeps a piece that the caller has verified: its bytes are synced, then it is noted, synced too.
    ///
    /// # Errors
    /// [`BlobError::NoSuchPiece`] when the manifest has no such piece, or what the system says; the piece is then not
    /// kept.
    pub fn write(&self, file: u32, piece: u32, offset: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let fits = !bytes.is_empty()
            && offset == u64::from(piece).saturating_mul(PIECE_BYTES)
            && self.piece_bytes(file, piece) == bytes.len() as u64;
        let Some(entry) = self.entry(file).filter(|_| fits) else {
            return Err(BlobError::NoSuchPiece { root: self.root, file, piece, offset, bytes: bytes.len() });
        };
        if self.holds(file, piece) {
            return Ok(());
        }
        let path = layout::file(&self.home, &entry.name);
        let open = disk::private().write(true).open(&path).map_err(|e| BlobError::io("open", &path, e))?;
        open.write_all_at(bytes, offset).map_err(|e| BlobError::io("write", &path, e))?;
        open.sync_data().map_err(|e| BlobError::io("sync", &path, e))?;
        let mut notes = self.notes();
        notes.file.append(0, &encode(file, piece))?;
        notes.held.insert((file, piece));
        Ok(())
    }

    /// Completes the blob: reads every file again, checks it against the manifest, makes the blob available. Once done,
    /// doing it again changes nothing.
    ///
    /// # Errors
    /// [`BlobError::Incomplete`] when pieces are missing, [`BlobError::Damaged`] when a file does not fit (its pieces
    /// are then forgotten and can be fetched again), or what the system says.
    pub fn finish(&self) -> Result<(), BlobError> {
        let mut notes = self.notes();
        if notes.finished {
            return Ok(());
        }
        let wanted = self.manifest.files.iter().fold(0u64, |sum, entry| sum.saturating_add(pieces(entry)));
        let missing = wanted.saturating_sub(notes.held.len() as u64);
        if missing > 0 {
            return Err(BlobError::Incomplete { root: self.root, missing });
        }
        for (at, entry) in self.manifest.files.iter().enumerate() {
            if let Some(fact) = layout::misfit(&self.home, entry)? {
                let file = u32::try_from(at).unwrap_or(u32::MAX);
                notes.forget(file)?;
                return Err(BlobError::Damaged { root: self.root, name: entry.name.clone(), fact });
            }
        }
        layout::sync(&self.home)?;
        let mut room = self.shared.room();
        if room.has(&self.root) {
            // Somebody inserted the same files meanwhile.
            fs::remove_dir_all(&self.home).map_err(|e| BlobError::io("remove", &self.home, e))?;
        } else {
            layout::shift(&self.home, &self.shared.home(&self.root))?;
        }
        room.keep(info(self.root, &self.manifest)?);
        drop(room);
        notes.finished = true;
        // The notes have done their work; left behind they would only take room.
        let path = self.shared.home(&self.root).join(layout::PIECES);
        disk::remove_if_there(&path).map_err(|e| BlobError::io("remove", &path, e))
    }
}

impl Notes {
    /// Forgets the pieces of one file.
    fn forget(&mut self, file: u32) -> Result<(), BlobError> {
        self.held.retain(|(at, _)| *at != file);
        let notes: Vec<[u8; 8]> = self.held.iter().map(|(file, piece)| encode(*file, *piece)).collect();
        Ok(self.file.rewrite(notes.iter().map(|note| (0, &note[..])))?)
    }
}

/// Makes or continues the folder of a download.
fn prepare(home: &Path, manifest: &Manifest, root: &BlobRoot) -> Result<Notes, BlobError> {
    layout::make(home)?;
    let path = home.join(layout::MANIFEST);
    if !path.exists() {
        disk::replace(&path, &manifest.encode()).map_err(|e| BlobError::io("write", &path, e))?;
    }
    let path = home.join(layout::PIECES);
    let opened = match AppendFile::open(&path, "pieces", root.as_bytes(), NOTE_BYTES) {
        Err(StoreError::Damaged { fact, .. }) => {
            // Without trustworthy notes every piece is fetched again; the files' bytes are then overwritten.
            tracing::warn!(%root, %fact, "notes of an interrupted download dropped");
            fs::remove_file(&path).map_err(|e| BlobError::io("remove", &path, e))?;
            AppendFile::open(&path, "pieces", root.as_bytes(), NOTE_BYTES)
        }
        other => other,
    };
    let (file, noted) = opened?;
    let mut held: BTreeSet<(u32, u32)> = noted.iter().filter_map(|(_, note)| decode(note)).collect();
    for (at, entry) in manifest.files.iter().enumerate() {
        let path = layout::file(home, &entry.name);
        let fresh = !path.exists();
        let open: File = disk::private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| BlobError::io("create", &path, e))?;
        if fresh || layout::length(&open, &path)? != entry.bytes {
            open.set_len(entry.bytes).map_err(|e| BlobError::io("size", &path, e))?;
            open.sync_all().map_err(|e| BlobError::io("sync", &path, e))?;
        }
        if fresh {
            let file = u32::try_from(at).unwrap_or(u32::MAX);
            held.retain(|(noted, _)| *noted != file);
        }
        held.retain(|(noted, piece)| {
            usize::try_from(*noted).ok() != Some(at) || u64::from(*piece) < pieces(entry)
        });
    }
    held.retain(|(file, _)| usize::try_from(*file).is_ok_and(|file| file < manifest.files.len()));
    layout::sync(home)?;
    Ok(Notes { file, held, finished: false })
}
