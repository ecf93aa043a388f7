//! Journal, bodies and roles.

use std::fs;

use proptest::prelude::*;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Height;
use tiltyard_store::StoreError;
use tiltyard_store::bodies::Bodies;
use tiltyard_store::journal::Journal;
use tiltyard_store::roles::Roles;

use crate::chain::Maker;

#[test]
fn a_journal_gives_back_what_came_since_its_last_reset() {
    let folder = tempfile::tempdir().unwrap();
    let network = Maker::new(1).genesis.hash();
    let (mut journal, entries) = Journal::open(folder.path(), &network).unwrap();
    assert!(entries.is_empty());
    journal.append(b"before any reset").unwrap();
    for height in 0..600u32 {
        // Large enough that the file is rewritten several times.
        journal.reset(&[&height.to_be_bytes()[..], &[0; 5_000]].concat()).unwrap();
        journal.append(b"vote").unwrap();
    }
    drop(journal);
    let (_, entries) = Journal::open(folder.path(), &network).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0][..4], 599u32.to_be_bytes());
    assert_eq!(entries[1], b"vote");
    assert!(fs::metadata(folder.path().join(Journal::NAME)).unwrap().len() < 2 << 20);
}

#[test]
fn a_journal_cut_short_loses_only_its_last_entry_and_a_changed_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let network = Maker::new(1).genesis.hash();
    let path = folder.path().join(Journal::NAME);
    let mut lengths = vec![0];
    {
        let (mut journal, _) = Journal::open(folder.path(), &network).unwrap();
        for entry in [&b"one"[..], b"two", b"three"] {
            journal.append(entry).unwrap();
            lengths.push(fs::metadata(&path).unwrap().len());
        }
    }
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (_, entries) = Journal::open(folder.path(), &network).unwrap();
        let complete = lengths.iter().filter(|end| **end <= length as u64).count() - 1;
        assert_eq!(entries.len(), complete, "cut to {length}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let opened = Journal::open(folder.path(), &network);
            assert!(matches!(opened, Err(StoreError::Damaged { .. })), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn bodies_and_roles_keep_what_is_whole_around_a_flipped_bit() {
    let folder = tempfile::tempdir().unwrap();
    let network = Maker::new(1).genesis.hash();
    let name = |byte| BlockHash::from_bytes([byte; 32]);
    {
        let (mut bodies, _, _) = Bodies::open(folder.path(), &network, Height::ZERO).unwrap();
        let (mut roles, _) = Roles::open(folder.path(), &network).unwrap();
        for byte in 1..=5u8 {
            bodies.save(name(byte), Height::new(u64::from(byte)), &[byte; 60]).unwrap();
            roles.save(&[byte; 20], &[byte; 60]).unwrap();
        }
    }
    for file in [Bodies::NAME, Roles::NAME] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let (left, salvage) = if file == Bodies::NAME {
                let (_, kept, salvage) = Bodies::open(folder.path(), &network, Height::ZERO).unwrap();
                assert!(kept.iter().all(|(block, height, bytes)| {
                    let byte = block.as_bytes()[0];
                    height.get() == u64::from(byte) && *bytes == [byte; 60]
                }));
                (kept.len(), salvage)
            } else {
                let (roles, salvage) = Roles::open(folder.path(), &network).unwrap();
                assert!(roles.entries().iter().all(|(key, value)| key[0] == value[0]));
                (roles.entries().len(), salvage)
            };
            let salvage = salvage.unwrap_or_else(|| panic!("byte {at} of {file}"));
            assert_eq!(fs::read(&salvage.kept).unwrap(), bytes, "nothing is dropped");
            assert_eq!(left, 4, "byte {at} of {file}");
            fs::remove_dir_all(folder.path().join("aside")).unwrap();
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_journal_of_another_network_is_not_read_as_ours() {
    let folder = tempfile::tempdir().unwrap();
    Journal::open(folder.path(), &Maker::new(1).genesis.hash()).unwrap().0.append(b"vote").unwrap();
    assert!(Journal::open(folder.path(), &Maker::new(2).genesis.hash()).is_err());
}

#[test]
fn bodies_stay_until_their_height_is_decided() {
    let folder = tempfile::tempdir().unwrap();
    let network = Maker::new(1).genesis.hash();
    let name = |byte| BlockHash::from_bytes([byte; 32]);
    let (mut bodies, _, _) = Bodies::open(folder.path(), &network, Height::ZERO).unwrap();
    bodies.save(name(1), Height::new(5), b"first").unwrap();
    bodies.save(name(2), Height::new(5), b"second").unwrap();
    bodies.save(name(1), Height::new(5), b"first").unwrap();
    bodies.save(name(3), Height::new(6), b"third").unwrap();
    bodies.forget_through(Height::new(4)).unwrap();
    drop(bodies);
    let (_, kept, _) = Bodies::open(folder.path(), &network, Height::new(4)).unwrap();
    assert_eq!(kept.len(), 3);
    let (mut bodies, kept, _) = Bodies::open(folder.path(), &network, Height::new(5)).unwrap();
    assert_eq!(kept, vec![(name(3), Height::new(6), b"third".to_vec())]);
    bodies.forget_through(Height::new(6)).unwrap();
    bodies.save(name(4), Height::new(7), b"fourth").unwrap();
    drop(bodies);
    let (_, kept, _) = Bodies::open(folder.path(), &network, Height::new(6)).unwrap();
    assert_eq!(kept, vec![(name(4), Height::new(7), b"fourth".to_vec())]);
}

#[test]
fn roles_keep_the_newest_value_and_their_file_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let network = Maker::new(1).genesis.hash();
    let (mut roles, _) = Roles::open(folder.path(), &network).unwrap();
    for round in 0..400u32 {
        let value = [&round.to_be_bytes()[..], &[1; 2_000]].concat();
        roles.save(format!("key {}", round % 7).as_bytes(), &value).unwrap();
    }
    roles.save(b"key 3", b"").unwrap();
    roles.save(b"never there", b"").unwrap();
    let kept = roles.entries().clone();
    drop(roles);
    let (again, _) = Roles::open(folder.path(), &network).unwrap();
    assert_eq!(again.entries(), &kept);
    assert_eq!(kept.len(), 6);
    assert!(fs::metadata(folder.path().join(Roles::NAME)).unwrap().len() < 300_000);
    let mut again = again;
    assert!(matches!(again.save(&[0; 600], b"x"), Err(StoreError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn any_file_opens_or_is_refused(
        start in 0usize..400,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        keep in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let network = Maker::new(1).genesis.hash();
        let (mut journal, _) = Journal::open(folder.path(), &network).unwrap();
        for entry in 0..4u8 {
            journal.append(&[entry; 20]).unwrap();
        }
        let path = folder.path().join(Journal::NAME);
        let mut file = fs::read(&path).unwrap();
        let start = start.min(file.len());
        let rest = file.split_off(start);
        file.extend_from_slice(&bytes);
        if keep {
            file.extend_from_slice(rest.get(bytes.len()..).unwrap_or_default());
        }
        fs::write(&path, &file).unwrap();
        // Whatever is read back is a beginning of what was written.
        if let Ok((_, entries)) = Journal::open(folder.path(), &network) {
            for (at, entry) in (0u8..).zip(entries) {
                prop_assert_eq!(entry, vec![at; 20]);
            }
        }
    }
}
