//! Certificates: strictly more than two thirds, every signature, the exact shape.

use tiltyard_proto::certificate::{Certificate, CertificateError};
use tiltyard_proto::keys::{GenesisHash, PublicKey, Signature, Verifier};
use tiltyard_proto::units::Stake;
use tiltyard_proto::validators::{
    Validator, ValidatorSet, more_than_half, more_than_one_third, more_than_two_thirds,
};

use crate::sample::{certificate, certify, genesis_hash, header, set, validators, vote};

fn verify(certificate: &Certificate, set: &ValidatorSet) -> Result<Stake, CertificateError> {
    certificate.verify(&Verifier::new(genesis_hash()), set)
}

fn weighted(stakes: [u64; 4]) -> ValidatorSet {
    let members: Vec<Validator> = set()
        .members()
        .iter()
        .zip(stakes)
        .map(|(member, stake)| Validator { key: member.key, stake: Stake::new(stake) })
        .collect();
    ValidatorSet::try_from(members).expect("sample keys")
}

#[test]
fn three_of_four_equal_stakes_decide_and_two_do_not() {
    assert_eq!(verify(&certificate(), &set()), Ok(Stake::new(3_000)));
    let two = certify(&header(), 0, &validators(), &[0, 1]);
    let refusal = verify(&two, &set()).expect_err("half is no quorum");
    assert!(matches!(refusal, CertificateError::NoQuorum { signed, .. } if signed == Stake::new(2_000)));
}

#[test]
fn exactly_two_thirds_do_not_decide_and_one_credit_more_does() {
    let two = certify(&header(), 0, &validators(), &[0, 1]);
    assert!(matches!(verify(&two, &weighted([300, 300, 150, 150])), Err(CertificateError::NoQuorum { .. })));
    assert!(verify(&two, &weighted([301, 300, 150, 150])).is_ok());
}

#[test]
fn thresholds_are_strict_and_do_not_overflow() {
    let stake = Stake::new;
    for (part, whole, expected) in [
        (0, 0, (false, false, false)),
        (1, 3, (false, false, false)),
        (2, 6, (false, false, false)),
        (3, 8, (true, false, false)),
        (4, 8, (true, false, false)),
        (5, 8, (true, true, false)),
        (6, 9, (true, true, false)),
        (7, 9, (true, true, true)),
        (u64::MAX, u64::MAX, (true, true, true)),
    ] {
        let (part, whole) = (stake(part), stake(whole));
        let found = (
            more_than_one_third(part, whole),
            more_than_half(part, whole),
            more_than_two_thirds(part, whole),
        );
        assert_eq!(found, expected, "{part} of {whole}");
    }
}

#[test]
fn nobody_counts_twice() {
    let full = certify(&header(), 0, &validators(), &[0]);
    let mut twice = full.clone();
    twice.signatures = vec![full.signatures[0]; 3];
    assert!(matches!(verify(&twice, &set()), Err(CertificateError::Shape { .. })));
    twice.signers = vec![0b111].into();
    assert!(matches!(verify(&twice, &set()), Err(CertificateError::Signature { .. })));
}

#[test]
fn signers_beyond_the_set_are_refused() {
    for signers in [vec![0b1_1011u8], vec![0b1011, 0], vec![]] {
        let mut altered = certificate();
        altered.signers = signers.into();
        assert!(matches!(verify(&altered, &set()), Err(CertificateError::Shape { .. })));
    }
}

#[test]
fn one_bad_signature_spoils_a_quorum_of_good_ones() {
    let mut altered = certify(&header(), 0, &validators(), &[0, 1, 2, 3]);
    altered.signatures[3] = Signature::from_bytes([0; 64]);
    assert!(matches!(verify(&altered, &set()), Err(CertificateError::Signature { .. })));
}

#[test]
fn a_certificate_of_another_round_height_block_or_network_is_refused() {
    let good = certificate();
    let mut round = good.clone();
    round.round = tiltyard_proto::units::Round::new(1);
    let mut height = good.clone();
    height.height = tiltyard_proto::units::Height::new(2);
    let mut block = good.clone();
    block.block = tiltyard_proto::ids::BlockHash::from_bytes([9; 32]);
    for altered in [round, height, block] {
        assert!(matches!(verify(&altered, &set()), Err(CertificateError::Signature { .. })));
    }
    let elsewhere = Verifier::new(GenesisHash::from_bytes([1; 32]));
    assert!(matches!(good.verify(&elsewhere, &set()), Err(CertificateError::Signature { .. })));
}

#[test]
fn prevotes_do_not_make_a_certificate() {
    let header = header();
    let votes: Vec<(PublicKey, Signature)> = validators()
        .iter()
        .map(|secret| {
            let vote = tiltyard_proto::vote::Vote {
                height: header.height,
                round: tiltyard_proto::units::Round::new(0),
                validator: secret.public(),
                ..vote(tiltyard_proto::vote::VoteKind::Prevote, Some(header.hash()))
            };
            (secret.public(), vote.sign(&secret.signer(header.genesis)).signature)
        })
        .collect();
    let round = tiltyard_proto::units::Round::new(0);
    let built = Certificate::build(header.height, round, header.hash(), &set(), &votes);
    assert!(matches!(verify(&built, &set()), Err(CertificateError::Signature { .. })));
}
