//! A signature is good for one key, one purpose, one network, one payload.

use tiltyard_keys::{
    GenesisHash, KeyError, PublicKey, SecretKey, Signature, SignatureError, Signer, Verifier,
};

type Sign = fn(&Signer, &[u8]) -> Signature;
type Verify = fn(&Verifier, &PublicKey, &[u8], &Signature) -> Result<(), SignatureError>;

const PURPOSES: [(&str, Sign, Verify); 5] = [
    ("transaction", Signer::sign_transaction, Verifier::verify_transaction),
    ("vote", Signer::sign_vote, Verifier::verify_vote),
    ("proposal", Signer::sign_proposal, Verifier::verify_proposal),
    ("body", Signer::sign_body, Verifier::verify_body),
    ("peer", Signer::sign_peer, Verifier::verify_peer),
];

/// Encodings of the eight points of small order, canonical and not (as listed for RFC 8032 implementations).
const WEAK: [&str; 11] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

fn network(n: u8) -> GenesisHash {
    GenesisHash::from_bytes([n; 32])
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

#[test]
fn a_signature_fits_its_own_purpose_and_no_other() {
    let (signer, verifier) = (secret(1).signer(network(7)), Verifier::new(network(7)));
    for (signed_for, sign, _) in PURPOSES {
        let signature = sign(&signer, b"payload");
        for (verified_for, _, verify) in PURPOSES {
            let fits = verify(&verifier, &signer.public(), b"payload", &signature).is_ok();
            assert_eq!(fits, signed_for == verified_for, "{signed_for} as {verified_for}");
        }
    }
}

#[test]
fn a_signature_fits_its_own_network_key_and_payload_only() {
    let signer = secret(1).signer(network(7));
    for (purpose, sign, verify) in PURPOSES {
        let signature = sign(&signer, b"payload");
        let mismatch = |found: Result<(), SignatureError>| {
            assert!(matches!(found, Err(SignatureError::Mismatch { .. })), "{purpose}");
        };
        mismatch(verify(&Verifier::new(network(8)), &signer.public(), b"payload", &signature));
        mismatch(verify(&Verifier::new(network(7)), &secret(2).public(), b"payload", &signature));
        mismatch(verify(&Verifier::new(network(7)), &signer.public(), b"payloae", &signature));
        mismatch(verify(&Verifier::new(network(7)), &signer.public(), b"payload\0", &signature));
    }
}

#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    let (signer, verifier) = (secret(1).signer(network(7)), Verifier::new(network(7)));
    let signature = signer.sign_vote(b"payload");
    for bit in 0..512 {
        let mut bytes = *signature.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let altered = Signature::from_bytes(bytes);
        assert!(verifier.verify_vote(&signer.public(), b"payload", &altered).is_err(), "bit {bit}");
    }
}

#[test]
fn a_second_form_of_a_signature_is_refused() {
    // Adding the group order to s gives the same equation; RFC 8032 demands s below the order.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (signer, verifier) = (secret(1).signer(network(7)), Verifier::new(network(7)));
    let mut bytes = *signer.sign_vote(b"payload").as_bytes();
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "s plus the order still fits 32 bytes");
    assert!(verifier.verify_vote(&signer.public(), b"payload", &Signature::from_bytes(bytes)).is_err());
}

#[test]
fn keys_of_small_order_are_refused_with_any_signature() {
    let verifier = Verifier::new(network(7));
    for text in WEAK {
        let weak: PublicKey = text.parse().expect("hex");
        assert!(weak.validate().is_err(), "{text}");
        for signature in [[0; 64], *secret(1).signer(network(7)).sign_vote(b"payload").as_bytes()] {
            let found = verifier.verify_vote(&weak, b"payload", &Signature::from_bytes(signature));
            assert!(matches!(found, Err(SignatureError::Key(_))), "{text}");
        }
    }
}

#[test]
fn bytes_that_are_no_point_are_named() {
    let bad = (0u8..=255)
        .map(|n| PublicKey::from_bytes([n; 32]))
        .find(|key| matches!(key.validate(), Err(KeyError::NotAPoint { .. })));
    assert!(bad.is_some(), "about half of all strings are no point");
}

#[test]
fn secrets_are_not_printed() {
    let seed_hex = "01".repeat(32);
    let printed = format!("{:?} {:?}", secret(1), secret(1).signer(network(7)));
    assert!(!printed.contains(&seed_hex) && printed.contains(&secret(1).public().short()), "{printed}");
}

#[test]
fn a_key_is_the_one_that_rfc_8032_derives() {
    let seed: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
        0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    let expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(SecretKey::from_seed(&seed).public().to_string(), expected, "test 1 of section 7.1");
}
