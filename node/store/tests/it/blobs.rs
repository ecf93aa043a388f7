//! File sets: taken in, fetched in pieces, resumed, found damaged, bounded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tiltyard_proto::manifest::{BlobKind, Manifest};
use tiltyard_store::blob::PIECE_BYTES;
use tiltyard_store::{BlobError, BlobLimits, BlobStore, Source};

use crate::child::{FACT, start};

fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

fn open(folder: &Path) -> BlobStore {
    BlobStore::open(folder, BlobLimits { reserve_bytes: 0, ..BlobLimits::default() }).unwrap()
}

/// Writes files and takes them in.
fn insert(store: &BlobStore, files: &[(&str, &[u8])]) -> Result<Manifest, BlobError> {
    let from = tempfile::tempdir().unwrap();
    let files: Vec<(String, PathBuf)> = files
        .iter()
        .enumerate()
        .map(|(at, (name, bytes))| {
            let path = from.path().join(at.to_string());
            fs::write(&path, bytes).unwrap();
            ((*name).to_owned(), path)
        })
        .collect();
    store.insert(&Source { kind: BlobKind::Dataset, base: None, recipe: None, files: &files })
}

/// A manifest of three files, one of them empty, one of several pieces, and their bytes.
fn big(folder: &Path) -> (Manifest, Vec<Vec<u8>>) {
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    let files = vec![noise(piece * 2 + 123, 1), Vec::new(), noise(77, 2)];
    let manifest =
        insert(&open(folder), &[("a.bin", &files[0]), ("b.bin", &files[1]), ("c.bin", &files[2])]).unwrap();
    (manifest, files)
}

/// Every piece of every file: file, piece, offset, bytes.
fn pieces(files: &[Vec<u8>]) -> Vec<(u32, u32, u64, &[u8])> {
    let mut out = Vec::new();
    for (file, bytes) in (0u32..).zip(files) {
        for (piece, part) in (0u32..).zip(bytes.chunks(usize::try_from(PIECE_BYTES).unwrap())) {
            out.push((file, piece, u64::from(piece) * PIECE_BYTES, part));
        }
    }
    out
}

#[test]
fn inserted_files_come_back_and_a_second_time_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let manifest = insert(&store, &[("b.txt", b"beta"), ("a.txt", b"")]).unwrap();
    let root = manifest.root();
    assert_eq!(insert(&store, &[("a.txt", b""), ("b.txt", b"beta")]).unwrap(), manifest);
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.used_bytes(), 4);
    let again = open(folder.path());
    assert_eq!(again.verify(&root).unwrap(), manifest);
    assert_eq!(fs::read(again.path(&root, "b.txt").unwrap().unwrap()).unwrap(), b"beta");
    assert_eq!(again.path(&root, "c.txt").unwrap(), None);
    let home = folder.path().join(root.to_string());
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(again.remove(&root).unwrap());
    assert!(!again.remove(&root).unwrap());
    assert!(!home.exists() && !again.has(&root) && again.used_bytes() == 0);
}

#[test]
fn names_that_leave_the_folder_and_links_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for name in ["../x", "a/b", ".hidden", "", "UPPER", "x\0y"] {
        let error = insert(&store, &[(name, b"bytes")]).unwrap_err();
        assert!(matches!(error, BlobError::Manifest(_)), "{name:?}: {error}");
    }
    let from = tempfile::tempdir().unwrap();
    let (file, link) = (from.path().join("file"), from.path().join("link"));
    fs::write(&file, b"secret").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [link, from.path().to_path_buf()] {
        let files = [("a.txt".to_owned(), path)];
        let source = Source { kind: BlobKind::Dataset, base: None, recipe: None, files: &files };
        assert!(matches!(store.insert(&source), Err(BlobError::Source { .. })));
    }
    assert_eq!((store.list().len(), store.used_bytes()), (0, 0));
    assert_eq!(fs::read_dir(folder.path().join(".trash")).unwrap().count(), 0);
}

#[test]
fn a_download_continues_after_an_abrupt_end() {
    let source = tempfile::tempdir().unwrap();
    let (manifest, files) = big(source.path());
    let all = pieces(&files);
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path());
        let partial = store.begin(&manifest).unwrap();
        assert!(matches!(store.begin(&manifest), Err(BlobError::Busy { .. })));
        assert!(matches!(store.remove(&manifest.root()), Err(BlobError::Busy { .. })));
        let (file, piece, offset, bytes) = all[1];
        partial.write(file, piece, offset, bytes).unwrap();
        assert!(matches!(partial.finish(), Err(BlobError::Incomplete { missing: 3, .. })));
        // Bytes without a note are what a crash between the two leaves.
        let torn = folder.path().join(".partial").join(manifest.root().to_string()).join("files/c.bin");
        fs::write(&torn, noise(77, 9)).unwrap();
    }
    let store = open(folder.path());
    assert!(!store.has(&manifest.root()));
    assert_eq!(store.used_bytes(), manifest.total_bytes().unwrap());
    let partial = store.begin(&manifest).unwrap();
    let held: Vec<bool> = all.iter().map(|(file, piece, ..)| partial.holds(*file, *piece)).collect();
    assert_eq!(held, [false, true, false, false]);
    assert_eq!(partial.held_bytes(), PIECE_BYTES);
    std::thread::scope(|scope| {
        for (file, piece, offset, bytes) in &all {
            scope.spawn(|| partial.write(*file, *piece, *offset, bytes).unwrap());
        }
    });
    partial.finish().unwrap();
    partial.finish().unwrap();
    assert_eq!(store.verify(&manifest.root()).unwrap(), manifest);
    assert!(matches!(store.begin(&manifest), Err(BlobError::Present { .. })));
    assert_eq!(open(folder.path()).list(), store.list());
}

#[test]
fn pieces_that_do_not_exist_are_refused() {
    let source = tempfile::tempdir().unwrap();
    let (manifest, files) = big(source.path());
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let partial = store.begin(&manifest).unwrap();
    let bad: [(u32, u32, u64, &[u8]); 6] = [
        (3, 0, 0, b"x"),
        (1, 0, 0, b""),
        (1, 0, 0, b"x"),
        (2, 0, 0, &files[2][..76]),
        (2, 0, 1, &files[2]),
        (0, u32::MAX, u64::from(u32::MAX) * PIECE_BYTES, b"x"),
    ];
    for (file, piece, offset, bytes) in bad {
        let error = partial.write(file, piece, offset, bytes).unwrap_err();
        assert!(matches!(error, BlobError::NoSuchPiece { .. }), "{error}");
    }
}

#[test]
fn a_wrong_piece_is_found_before_the_blob_appears_and_can_be_fetched_again() {
    let source = tempfile::tempdir().unwrap();
    let (manifest, files) = big(source.path());
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let partial = store.begin(&manifest).unwrap();
    for (file, piece, offset, bytes) in pieces(&files) {
        let wrong = noise(bytes.len(), 200);
        partial.write(file, piece, offset, if file == 2 { &wrong } else { bytes }).unwrap();
    }
    assert!(matches!(partial.finish(), Err(BlobError::Damaged { .. })));
    assert!(!store.has(&manifest.root()));
    assert!(partial.holds(0, 2) && !partial.holds(2, 0));
    partial.write(2, 0, 0, &files[2]).unwrap();
    partial.finish().unwrap();
    assert!(store.has(&manifest.root()));
}

#[test]
fn a_changed_file_is_found_set_aside_and_can_be_had_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let manifest = insert(&store, &[("a.txt", b"alpha")]).unwrap();
    let root = manifest.root();
    fs::write(store.path(&root, "a.txt").unwrap().unwrap(), b"alphA").unwrap();
    assert!(matches!(store.verify(&root), Err(BlobError::Damaged { .. })));
    assert!(!store.has(&root));
    assert!(matches!(store.verify(&root), Err(BlobError::Unknown { .. })));
    insert(&store, &[("a.txt", b"alpha")]).unwrap();
    store.verify(&root).unwrap();
    // A link in a file's place is not followed, whatever it leads to.
    let path = store.path(&root, "a.txt").unwrap().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(store.verify(&root).is_err());
    assert!(store.open_file(&root, "a.txt").is_err());
}

#[test]
fn sizes_are_capped() {
    let folder = tempfile::tempdir().unwrap();
    let limits = BlobLimits { total_bytes_max: 100, blob_bytes_max: 60, reserve_bytes: 0 };
    let store = BlobStore::open(folder.path(), limits).unwrap();
    assert!(matches!(insert(&store, &[("a", &[1; 61])]), Err(BlobError::TooLarge { bytes: 61, max: 60 })));
    insert(&store, &[("a", &[1; 60])]).unwrap();
    assert!(matches!(insert(&store, &[("a", &[2; 41])]), Err(BlobError::CapReached { used: 60, .. })));
    let other = tempfile::tempdir().unwrap();
    let manifest = insert(&open(other.path()), &[("a", &[3; 30])]).unwrap();
    let partial = store.begin(&manifest).unwrap();
    assert_eq!(store.used_bytes(), 90);
    drop(partial);
    assert!(store.remove(&manifest.root()).unwrap());
    assert_eq!(store.used_bytes(), 60);
    let limits = BlobLimits { reserve_bytes: u64::MAX, ..limits };
    let greedy = BlobStore::open(other.path(), BlobLimits { total_bytes_max: u64::MAX, ..limits }).unwrap();
    assert!(matches!(insert(&greedy, &[("a", &[4; 3])]), Err(BlobError::NoSpace { .. })));
}

/// Where a child finds what it is to fetch: the parent's own store.
const FROM: &str = "from";
const TO: &str = "to";

/// Fetches piece by piece from a store beside, and tells of each piece that is kept.
pub(crate) fn fetch(folder: &Path) {
    let from = open(&folder.join(FROM));
    let root = from.list()[0].root;
    let manifest = from.manifest(&root).unwrap().unwrap();
    let files: Vec<Vec<u8>> = manifest
        .files
        .iter()
        .map(|file| fs::read(from.path(&root, &file.name).unwrap().unwrap()).unwrap())
        .collect();
    let store = open(&folder.join(TO));
    let partial = store.begin(&manifest).unwrap();
    for (file, piece, offset, bytes) in pieces(&files) {
        if !partial.holds(file, piece) {
            partial.write(file, piece, offset, bytes).unwrap();
            println!("{FACT}{file} {piece}");
        }
    }
    println!("{FACT}all");
    partial.finish().unwrap();
    println!("{FACT}done");
}

#[test]
fn a_download_survives_kill_9_and_fetches_no_kept_piece_again() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, files) = big(&folder.path().join(FROM));
    let mut told: Vec<String> = Vec::new();
    for round in 0..10 {
        let (mut child, mut facts) = start("fetch", folder.path(), None);
        let first = facts.next();
        if round < 6 {
            child.kill().unwrap();
        }
        let facts: Vec<String> = first.into_iter().chain(facts).collect();
        child.wait().unwrap();
        for fact in facts.iter().filter(|fact| fact.contains(' ')) {
            assert!(!told.contains(fact), "piece {fact} was kept and fetched again");
            told.push(fact.clone());
        }
        if facts.last().is_some_and(|fact| fact == "done") {
            break;
        }
        let store = open(&folder.path().join(TO));
        if store.has(&manifest.root()) {
            break;
        }
        let partial = store.begin(&manifest).unwrap();
        for fact in &told {
            let (file, piece) = fact.split_once(' ').unwrap();
            assert!(
                partial.holds(file.parse().unwrap(), piece.parse().unwrap()),
                "piece {fact} was told and is lost"
            );
        }
    }
    assert!(told.len() <= pieces(&files).len());
    assert_eq!(open(&folder.path().join(TO)).verify(&manifest.root()).unwrap(), manifest);
}
