//! Ids as people see them: exact hex, short forms, clear refusals.

use tiltyard_keys::{HexError, PublicKey, SecretKey, Signature};

#[test]
fn an_id_survives_its_text() {
    let key = SecretKey::from_seed(&[1; 32]).public();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(key.short(), key.to_string()[..8]);
}

#[test]
fn texts_of_another_length_or_with_other_digits_are_refused() {
    let good = "ab".repeat(32);
    let bad = [
        String::new(),
        good[1..].to_owned(),
        format!("{good}00"),
        good.replacen('a', "g", 1),
        good.replacen("ab", "é", 1),
    ];
    for text in bad {
        let refusal = text.parse::<PublicKey>().expect_err("refused");
        assert_eq!(refusal, HexError { name: "PublicKey", expected: 64, text });
    }
}

#[test]
fn long_texts_are_cut_in_the_refusal() {
    let refusal = "z".repeat(1_000_000).parse::<Signature>().expect_err("refused");
    assert_eq!(refusal.text.len(), 80);
}
