//! The loader against files made to hurt it.

use proptest::prelude::*;

use super::*;

/// A file of this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<TensorFile, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    TensorFile::read(&path, 1 << 20)
}

fn good() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]}}"#;
    let mut bytes = file(header, 28);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&[0x80, 0x3F, 0x00, 0xC0]);
    bytes
}

#[test]
fn a_whole_file_reads_with_its_shapes_and_types() {
    let file = read(&good()).unwrap();
    assert_eq!(file.values("a").unwrap(), [0.0; 6]);
    assert_eq!(file.values("b").unwrap(), [1.0, -2.0]);
    let schema = |b: usize| [("a".to_owned(), vec![2, 3]), ("b".to_owned(), vec![b])].into_iter().collect();
    file.check_schema(&schema(2)).unwrap();
    assert!(matches!(file.check_schema(&schema(3)), Err(LoadError::WrongShape { .. })));
    let narrow = [("a".to_owned(), vec![2, 3])].into_iter().collect();
    assert!(matches!(file.check_schema(&narrow), Err(LoadError::Unexpected { .. })));
    assert!(matches!(file.values("c"), Err(LoadError::Missing { .. })));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = good();
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "cut at {end} was accepted");
    }
    assert!(read(&[&bytes[..], &[0]].concat()).is_err(), "a byte after the end was accepted");
}

#[test]
fn headers_made_to_hurt_are_refused_by_name() {
    let entry = |at: usize| format!("\"t{at}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let many: Vec<String> = (0..TENSORS_MAX + 2).map(entry).collect();
    assert!(matches!(
        read(&file(&format!("{{{}}}", many.join(",")), 0)),
        Err(LoadError::TooManyTensors { .. })
    ));
    let long = format!("{{\"a\":\"{}\"}}", " ".repeat(1_000_000));
    assert!(matches!(read(&file(&long, 0)), Err(LoadError::HeaderTooLarge { .. })));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(read(&file(&deep, 0)), Err(LoadError::Malformed { .. })));
    for (name, header) in [
        ("huge", r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#),
        (
            "overlap",
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        ),
        ("hole", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#),
        ("outside", r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#),
        ("backward", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#),
        ("negative", r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}"#),
        (
            "twice",
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        ),
        ("array", "[]      "),
        ("text", "{not json"),
    ] {
        let refused = read(&file(header, 8)).unwrap_err();
        assert_eq!(refused.fault(), Fault::Malformed, "{name}: {refused}");
    }
}

#[test]
fn values_that_are_no_numbers_and_other_types_are_refused() {
    let mut bytes = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let refused = read(&bytes).unwrap().values("a").unwrap_err();
    assert!(matches!(refused, LoadError::NotFinite { at: 1, .. }), "{refused}");
    let bytes = file(r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, 8);
    assert!(matches!(read(&bytes).unwrap().values("a"), Err(LoadError::WrongType { .. })));
}

#[test]
fn other_formats_are_recognised_by_their_bytes() {
    for bytes in [
        &b"GGUF\x03\0\0\0\0\0\0\0"[..],
        b"PK\x03\x04\x14\0\0\0\0\0",
        b"\x80\x02}q\0X\x05\0\0\0",
        b"\x93NUMPY\x01\0v\0",
    ] {
        assert!(matches!(read(bytes), Err(LoadError::OtherFormat { .. })), "{bytes:?}");
    }
}

#[test]
fn a_file_over_its_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    // A sparse file: 64 GiB claimed, nothing on disk.
    std::fs::File::create(&path).unwrap().set_len(64 << 30).unwrap();
    assert!(matches!(TensorFile::read(&path, 1 << 30), Err(LoadError::FileTooLarge { .. })));
    assert!(matches!(TensorFile::read(folder.path(), 1 << 30), Err(LoadError::NotAFile { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]
    #[test]
    fn mutated_files_are_read_or_refused_but_never_break(
        edits in proptest::collection::vec((0usize..200, any::<u8>()), 1..6),
    ) {
        let mut bytes = good();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(file) = read(&bytes) {
            for name in ["a", "b"] {
                let _ = file.values(name);
            }
        }
    }
}
