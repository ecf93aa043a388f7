//! Junk from the network: a verdict for everything, harm by nothing.

use serde_bytes::ByteBuf;
use tiltyard_keys::Signature;
use tiltyard_machine::Event;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Round};
use tiltyard_proto::vote::{Vote, VoteKind};
use tiltyard_proto::wire::{Acceptance, BodyFrame, ConsensusFrame, ConsensusMessage, GossipMessage, Topic};

use crate::world::{World, account, secret};

fn vote(world: &World, seed: u8, height: u64, block: u8) -> ConsensusMessage {
    let vote = Vote {
        kind: VoteKind::Prevote,
        height: Height::new(height),
        round: Round::ZERO,
        block: Some(BlockHash::from_bytes([block; 32])),
        validator: secret(seed).public(),
    };
    ConsensusMessage::Vote(vote.sign(&secret(seed).signer(world.genesis.hash())))
}

fn verdict(world: &mut World, message: GossipMessage) -> Acceptance {
    let before = world.nodes[0].reports.len();
    world.gossip(1, 0, 0, message);
    let now = world.now_ms;
    world.run_until(now + 50, |world| world.nodes[0].reports.len() > before);
    world.nodes[0].reports.last().copied().unwrap()
}

fn quiet() -> World {
    // Only node 0 runs: nothing else reports.
    let mut world = World::validators(40, 4);
    world.start(0);
    world.run(600);
    world
}

fn consensus(message: ConsensusMessage) -> GossipMessage {
    GossipMessage::Consensus(ConsensusFrame { counter: 0, message })
}

#[test]
fn messages_get_the_verdict_they_deserve() {
    let mut world = quiet();
    let good = vote(&world, 2, 1, 7);
    assert_eq!(verdict(&mut world, consensus(good)), Acceptance::Accept);
    let ahead = vote(&world, 2, 3, 7);
    assert_eq!(verdict(&mut world, consensus(ahead)), Acceptance::Accept);
    let stranger = vote(&world, 9, 1, 7);
    assert_eq!(verdict(&mut world, consensus(stranger)), Acceptance::Ignore);
    let far = vote(&world, 2, 400, 7);
    assert_eq!(verdict(&mut world, consensus(far)), Acceptance::Ignore);
    let forged = match vote(&world, 2, 1, 8) {
        ConsensusMessage::Vote(mut signed) => {
            signed.signature = Signature::from_bytes([9; 64]);
            ConsensusMessage::Vote(signed)
        }
        other => other,
    };
    assert_eq!(verdict(&mut world, consensus(forged)), Acceptance::Reject);
    let body = BodyFrame {
        counter: 0,
        block: ByteBuf::from(vec![1, 2, 3]),
        round: Round::ZERO,
        sender: secret(2).public(),
        signature: Signature::from_bytes([0; 64]),
    };
    assert_eq!(verdict(&mut world, GossipMessage::Body(body)), Acceptance::Reject);
}

#[test]
fn a_repeated_message_is_forwarded_four_times_in_ten_seconds() {
    let mut world = quiet();
    let message = vote(&world, 2, 1, 7);
    let mut accepted = 0;
    for counter in 1..=20 {
        let frame = ConsensusFrame { counter, message: message.clone() };
        if verdict(&mut world, GossipMessage::Consensus(frame)) == Acceptance::Accept {
            accepted += 1;
        }
    }
    assert_eq!(accepted, 4);
}

#[test]
fn bad_transactions_are_rejected_and_early_ones_wait() {
    let mut world = quiet();
    let frame = |list: Vec<SignedTransaction>| GossipMessage::Transactions(Topic::Transactions, list);
    let to = account(9).public();
    let good = world.transfer(2, 0, to, 5).into_signed();
    assert_eq!(verdict(&mut world, frame(vec![good.clone()])), Acceptance::Accept);
    let later = world.transfer(2, 3, to, 5).into_signed();
    assert_eq!(verdict(&mut world, frame(vec![later])), Acceptance::Accept);
    let mut forged = good.clone();
    forged.transaction.fee = MicroCredits::new(999_999);
    assert_eq!(verdict(&mut world, frame(vec![forged])), Acceptance::Reject);
    let poor = Transaction {
        version: Transaction::VERSION,
        genesis: world.genesis.hash(),
        sender: account(77).public(),
        nonce: Nonce::ZERO,
        fee: world.genesis.params.fee_min,
        valid_until: Height::new(10),
        action: Action::Transfer { to, amount: MicroCredits::new(1) },
    };
    let poor = poor.sign(&account(77).signer(world.genesis.hash())).into_signed();
    assert_eq!(verdict(&mut world, frame(vec![poor])), Acceptance::Ignore);
    let wrong_topic = GossipMessage::Transactions(Topic::Tasks, vec![good]);
    assert_eq!(verdict(&mut world, wrong_topic), Acceptance::Reject);
}

#[test]
fn a_double_vote_is_proven_on_the_ledger_and_punished() {
    let mut world = World::validators(41, 4);
    world.start_all();
    world.run(2_000);
    let height = world.height(0) + 1;
    for block in [7, 8] {
        let message = vote(&world, 4, height, block);
        for to in 0..3 {
            world.gossip(3, to, 1, consensus(message.clone()));
        }
    }
    world.run(4_000);
    world.assert_agreement();
    let culprit = secret(4).public();
    assert!(
        world.nodes[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::Equivocation { validator, .. } if *validator == culprit))
    );
    let disk = world.nodes[0].disk.borrow();
    let record = tiltyard_ledger::query::validator(&disk.state, &culprit).unwrap().unwrap();
    assert_eq!(record.standing, tiltyard_proto::state::Standing::Tombstoned);
}

/// A transfer by an account, altered before it is signed.
fn altered(world: &World, seed: u8, alter: impl Fn(&mut Transaction)) -> SignedTransaction {
    let mut transaction = world.transfer(seed, 0, account(9).public(), 5).into_signed().transaction;
    alter(&mut transaction);
    transaction.sender = account(seed).public();
    transaction.sign(&account(seed).signer(world.genesis.hash())).into_signed()
}

#[test]
fn junk_of_every_kind_leaves_no_trace() {
    let mut world = quiet();
    let kinds = [
        altered(&world, 77, |_| {}),
        altered(&world, 2, |t| t.nonce = Nonce::new(1_000_000)),
        altered(&world, 2, |t| t.fee = MicroCredits::new(1)),
        altered(&world, 2, |t| t.fee = MicroCredits::new(u64::MAX)),
        altered(&world, 2, |t| t.valid_until = Height::new(0)),
        altered(&world, 2, |t| t.valid_until = Height::new(1_000_000)),
    ];
    for round in 0..500u32 {
        for (kind, junk) in kinds.iter().enumerate() {
            let mut junk = junk.clone();
            // Another frame each time, as a flood would be; the state refuses it before its signature is looked at.
            junk.signature = Signature::from_bytes([u8::try_from(round % 251).unwrap(); 64]);
            let frame = GossipMessage::Transactions(Topic::Transactions, vec![junk; 20]);
            assert_eq!(verdict(&mut world, frame), Acceptance::Ignore, "kind {kind}");
        }
    }
    let status = world.nodes[0].machine.as_ref().unwrap().status();
    assert_eq!((status.pending_transactions, status.pending_bytes), (0, 0));
    // 60,000 pieces of junk later the same peer's budget is gone: even a good one waits for it to grow back.
    let good = world.transfer(2, 0, account(9).public(), 5).into_signed();
    let frame = || GossipMessage::Transactions(Topic::Transactions, vec![good.clone()]);
    assert_eq!(verdict(&mut world, frame()), Acceptance::Ignore);
    world.run(1_000);
    assert_eq!(verdict(&mut world, frame()), Acceptance::Accept);
}

#[test]
fn a_frame_with_junk_is_not_forwarded_and_its_good_part_goes_on_once() {
    let mut world = quiet();
    let good = world.transfer(2, 0, account(9).public(), 5).into_signed();
    let junk = altered(&world, 77, |_| {});
    let mixed = GossipMessage::Transactions(Topic::Transactions, vec![junk, good.clone()]);
    assert_eq!(verdict(&mut world, mixed.clone()), Acceptance::Ignore);
    assert_eq!(world.nodes[0].machine.as_ref().unwrap().status().pending_transactions, 1);
    let alone = GossipMessage::Transactions(Topic::Transactions, vec![good]);
    for again in [mixed, alone] {
        assert_eq!(verdict(&mut world, again), Acceptance::Ignore, "what is known goes no further");
    }
}
