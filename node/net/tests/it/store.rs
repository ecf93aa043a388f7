//! A small blob store on disk for the tests: counts what it is asked to write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tiltyard_net::{BlobAccess, BlobError, PartialBlob};
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::{BlobRoot, FileHash};
use tiltyard_proto::manifest::{BlobKind, BlobRef, FileEntry, Manifest};
use tiltyard_proto::wire::Peer;

#[derive(Default)]
struct State {
    held: BTreeMap<BlobRoot, Manifest>,
    journal: BTreeMap<BlobRoot, BTreeSet<(u32, u32)>>,
    refused: BTreeSet<Peer>,
}

struct Inner {
    dir: tempfile::TempDir,
    state: Mutex<State>,
    writes: AtomicUsize,
}

/// Clones share the same files.
#[derive(Clone)]
pub(crate) struct Files(Arc<Inner>);

impl Files {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self(Arc::new(Inner { dir, state: Mutex::default(), writes: AtomicUsize::new(0) }))
    }

    /// Adds a complete blob.
    pub(crate) fn add(&self, files: &[(&str, Vec<u8>)]) -> (Manifest, BlobRef) {
        let entries = files
            .iter()
            .map(|(name, bytes)| FileEntry {
                name: (*name).to_owned(),
                bytes: bytes.len() as u64,
                hash: FileHash::from_bytes(plain(bytes)),
            })
            .collect();
        let manifest = Manifest {
            version: Manifest::VERSION,
            kind: BlobKind::Adapter,
            base: None,
            recipe: None,
            files: entries,
        };
        let root = manifest.root();
        fs::create_dir_all(self.folder(&root)).unwrap();
        for (name, bytes) in files {
            fs::write(self.folder(&root).join(name), bytes).unwrap();
        }
        self.0.state.lock().unwrap().held.insert(root, manifest.clone());
        let bytes = manifest.total_bytes().unwrap();
        (manifest, BlobRef { root, bytes })
    }

    pub(crate) fn refuse(&self, peer: &Peer) {
        self.0.state.lock().unwrap().refused.insert(peer.clone());
    }

    pub(crate) fn allow(&self, peer: &Peer) {
        self.0.state.lock().unwrap().refused.remove(peer);
    }

    /// Pieces written so far, repeats included.
    pub(crate) fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    pub(crate) fn read(&self, root: &BlobRoot, name: &str) -> Vec<u8> {
        assert!(self.0.state.lock().unwrap().held.contains_key(root), "the blob is not complete");
        fs::read(self.folder(root).join(name)).unwrap()
    }

    /// Flips a bit of a complete file on disk.
    pub(crate) fn damage(&self, root: &BlobRoot, name: &str, at: usize) {
        let path = self.folder(root).join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn folder(&self, root: &BlobRoot) -> PathBuf {
        self.0.dir.path().join(root.to_string())
    }
}

impl BlobAccess for Files {
    fn manifest(&self, root: &BlobRoot) -> Result<Option<Manifest>, BlobError> {
        Ok(self.0.state.lock().unwrap().held.get(root).cloned())
    }

    fn open(&self, root: &BlobRoot, name: &str) -> Result<Option<File>, BlobError> {
        Ok(File::open(self.folder(root).join(name)).ok())
    }

    fn may_fetch(&self, _root: &BlobRoot, peer: &Peer) -> bool {
        !self.0.state.lock().unwrap().refused.contains(peer)
    }

    fn begin(&self, manifest: &Manifest) -> Result<Arc<dyn PartialBlob>, BlobError> {
        let root = manifest.root();
        fs::create_dir_all(self.folder(&root)).unwrap();
        for entry in &manifest.files {
            let path = self.folder(&root).join(&entry.name);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
            file.set_len(entry.bytes).unwrap();
        }
        Ok(Arc::new(Partial { files: self.clone(), manifest: manifest.clone(), root }))
    }
}

struct Partial {
    files: Files,
    manifest: Manifest,
    root: BlobRoot,
}

impl PartialBlob for Partial {
    fn holds(&self, file: u32, piece: u32) -> bool {
        let state = self.files.0.state.lock().unwrap();
        state.journal.get(&self.root).is_some_and(|pieces| pieces.contains(&(file, piece)))
    }

    fn write(&self, file: u32, piece: u32, offset: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let name = &self.manifest.files[file as usize].name;
        let out = OpenOptions::new().write(true).open(self.files.folder(&self.root).join(name)).unwrap();
        out.write_all_at(bytes, offset).map_err(|source| BlobError::Io { root: self.root, source })?;
        self.files.0.writes.fetch_add(1, Ordering::SeqCst);
        self.files.0.state.lock().unwrap().journal.entry(self.root).or_default().insert((file, piece));
        Ok(())
    }

    fn finish(&self) -> Result<(), BlobError> {
        for entry in &self.manifest.files {
            let bytes = fs::read(self.files.folder(&self.root).join(&entry.name)).unwrap();
            if plain(&bytes) != *entry.hash.as_bytes() {
                let fact = format!("{} does not match", entry.name);
                return Err(BlobError::Storage { root: self.root, fact });
            }
        }
        self.files.0.state.lock().unwrap().held.insert(self.root, self.manifest.clone());
        Ok(())
    }
}
