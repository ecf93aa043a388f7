#![allow(clippy::unwrap_used, reason = "a test that cannot get its ground ready has failed")]

use tiltyard_keys::GenesisHash;
use tiltyard_proto::ids::{BlockHash, StateRoot};
use tiltyard_proto::units::Height;

use super::*;

fn marker(height: u64) -> Marker {
    Marker {
        genesis: GenesisHash::from_bytes([1; 32]),
        height: Height::new(height),
        block: BlockHash::from_bytes([2; 32]),
        root: StateRoot::from_bytes([3; 32]),
        tree_version: 4,
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_seen() {
    let entries: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"value")), (b"b", None), (b"", Some(b""))];
    let bytes = encode(&marker(7), &entries);
    let layer = decode(&bytes).unwrap();
    assert_eq!(layer.marker, Some(marker(7)));
    let found = layer.sorted();
    assert_eq!(found, vec![(&b""[..], Some(&b""[..])), (b"a", Some(b"value")), (b"b", None)]);
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_none(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        assert!(decode(&bent).is_none(), "byte {at}");
    }
}

#[test]
fn a_file_is_whole_broken_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path()).unwrap(), Redo::Absent));
    write(folder.path(), &marker(7), &[(b"key", Some(b"value"))]).unwrap();
    assert!(matches!(read(folder.path()).unwrap(), Redo::Whole(_)));
    let path = folder.path().join(REDO);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(read(folder.path()).unwrap(), Redo::Broken));
    clear(folder.path()).unwrap();
    assert!(matches!(read(folder.path()).unwrap(), Redo::Absent));
}

#[test]
fn a_write_that_fails_leaves_the_whole_file_from_before() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &marker(7), &[(b"key", Some(b"value"))]).unwrap();
    // Nothing can be written beside it any more.
    fs::create_dir(folder.path().join("redo.fresh")).unwrap();
    write(folder.path(), &marker(8), &[(b"key", None)]).unwrap_err();
    let Redo::Whole(layer) = read(folder.path()).unwrap() else { panic!("it is gone") };
    assert_eq!(layer.marker, Some(marker(7)));
}
