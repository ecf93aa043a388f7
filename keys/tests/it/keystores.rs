//! Keystores open with their password, whole, or not at all.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tiltyard_keys::{Entropy, Keystore, KeystoreError, Lock, SecretKey};

const ENTROPY: Entropy = Entropy { salt: [3; 16], nonce: [4; 24] };
const PASSWORD: &str = "correct horse";

fn secret() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn locked() -> Keystore {
    Keystore::seal(&secret(), Lock::Password(PASSWORD), &ENTROPY).expect("a long password")
}

fn open_form() -> Keystore {
    Keystore::seal(&secret(), Lock::OpenForTestnet, &ENTROPY).expect("no password needed")
}

fn read(text: &str) -> Result<Keystore, KeystoreError> {
    Keystore::parse(text.as_bytes())
}

#[test]
fn a_key_survives_its_keystore() {
    for (store, password) in [(locked(), Some(PASSWORD)), (open_form(), None)] {
        let again = read(store.as_text()).expect("its own text");
        assert_eq!(again, store);
        assert_eq!(again.public(), secret().public());
        assert_eq!(again.is_encrypted(), password.is_some());
        assert_eq!(*again.open(password).expect("the right password").seed(), *secret().seed());
    }
}

#[test]
fn the_encrypted_form_does_not_hold_the_seed() {
    assert!(!locked().as_text().contains(&"09".repeat(32)));
    assert!(open_form().as_text().contains(&"09".repeat(32)), "the open form does, and says so");
    assert!(open_form().as_text().lines().any(|line| line == "open"));
}

#[test]
fn a_wrong_or_missing_password_is_told_apart() {
    let key = secret().public();
    assert_eq!(locked().open(Some("wrong horse")).expect_err("wrong"), KeystoreError::WrongPassword { key });
    assert_eq!(locked().open(None).expect_err("missing"), KeystoreError::PasswordNeeded { key });
}

#[test]
fn short_passwords_protect_nothing() {
    let refusal = Keystore::seal(&secret(), Lock::Password("1234567"), &ENTROPY).expect_err("short");
    assert_eq!(refusal, KeystoreError::PasswordTooShort { length: 7 });
}

#[test]
fn every_altered_character_of_an_open_keystore_is_refused() {
    let text = open_form().as_text().to_owned();
    for at in 0..text.len() {
        for replacement in *b"0fAg \n" {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == replacement {
                continue;
            }
            bytes[at] = replacement;
            let opened = Keystore::parse(&bytes).and_then(|store| store.open(None));
            assert!(opened.is_err(), "byte {at} as {replacement:#x}");
        }
    }
}

#[test]
fn altered_parts_of_an_encrypted_keystore_are_refused() {
    let text = locked().as_text().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let alter = |line: usize, from: usize| {
        let mut altered: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let old = altered[line].remove(from);
        altered[line].insert(from, if old == '0' { '1' } else { '0' });
        altered.join("\n") + "\n"
    };
    let salt = lines[2].len() - 48 - 1 - 32;
    let nonce = lines[2].len() - 48;
    for (what, altered) in [
        ("magic", alter(0, 3)),
        ("public key", alter(1, 5)),
        ("memory", alter(2, 10)),
        ("salt", alter(2, salt)),
        ("nonce", alter(2, nonce)),
        ("payload", alter(3, 0)),
        ("tag", alter(3, lines[3].len() - 1)),
        ("no payload", lines[..3].join("\n")),
        ("trailing line", format!("{text}more\n")),
        ("trailing word", text.replacen(lines[2], &format!("{} more", lines[2]), 1)),
    ] {
        let opened = read(&altered).and_then(|store| store.open(Some(PASSWORD)));
        assert!(opened.is_err(), "{what}");
    }
}

#[test]
fn a_hostile_cost_is_refused_before_it_is_paid() {
    let text = locked().as_text().to_owned();
    for cost in ["4294967295 2 1", "19456 4294967295 1", "19456 2 4294967295", "0 0 0", "-1 2 1", "1e9 2 1"] {
        let hostile = text.replacen("19456 2 1", cost, 1);
        let opened = read(&hostile).and_then(|store| store.open(Some(PASSWORD)));
        assert!(matches!(opened, Err(KeystoreError::Malformed { .. })), "{cost}");
    }
}

#[test]
fn a_secret_under_another_public_key_is_named() {
    let other = SecretKey::from_seed(&[8; 32]).public();
    let text = open_form().as_text().replacen(&secret().public().to_string(), &other.to_string(), 1);
    let refusal = read(&text).expect("well formed").open(None).expect_err("swapped");
    assert_eq!(refusal, KeystoreError::KeyMismatch { claimed: other, held: secret().public() });
}

#[test]
fn a_lost_last_line_end_does_no_harm() {
    assert!(read(locked().as_text().trim_end()).and_then(|store| store.open(Some(PASSWORD))).is_ok());
}

#[test]
fn large_files_are_refused_unread() {
    assert!(matches!(Keystore::parse(&[b'a'; 4_097]), Err(KeystoreError::Malformed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Keystore::parse(&bytes).is_err());
    }
}
