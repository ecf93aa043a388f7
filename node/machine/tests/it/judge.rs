//! A proposer that lies about its block gets nil votes; an honest one gets its block decided.

use serde_bytes::ByteBuf;
use tiltyard_ledger::{BlockContext, execute, query};
use tiltyard_machine::Event;
use tiltyard_proto::block::{Block, Body, Header};
use tiltyard_proto::ids::{BlockHash, CertificateHash, MerkleRoot, ParamsHash, StateRoot, ValidatorsHash};
use tiltyard_proto::transaction::VerifiedTransaction;
use tiltyard_proto::units::{Height, Round, UnixMillis};
use tiltyard_proto::vote::Proposal;
use tiltyard_proto::wire::{BodyFrame, ConsensusFrame, ConsensusMessage, GossipMessage};

use crate::world::{EPOCH_MS, World, account, secret};

/// Makes an honest block a wrong one.
type Lie = fn(&mut Block);

/// The key that the test itself plays.
const LIAR: u8 = 4;

/// Three validators run; returns when the fourth one proposes the next block.
fn liars_turn(seed: u64) -> World {
    let mut world = World::validators(seed, 4);
    for at in 0..3 {
        world.start(at);
    }
    world.run(1_500);
    let is_turn = |world: &World| {
        let (low, high) = (world.height(0), world.height(1).max(world.height(2)));
        let next = Height::new(low + 1);
        let set = world.genesis.validator_set().unwrap();
        let epoch = low / world.genesis.params.epoch.get();
        let drawn = set.proposer(&world.genesis.hash(), epoch, next, Round::ZERO).key;
        low == high && low == world.height(1).min(world.height(2)) && drawn == secret(LIAR).public()
    };
    let until = world.now_ms + 60_000;
    // Not a turn that is half over.
    assert!(world.run_until(until, |world| !is_turn(world)));
    assert!(world.run_until(until, is_turn), "the fourth validator is drawn sooner or later");
    world.run(3);
    world
}

/// Builds the next block as an honest proposer would.
fn honest_block(world: &World, transactions: &[VerifiedTransaction]) -> Block {
    let disk = world.nodes[0].disk.borrow();
    let parent = disk.blocks.last().unwrap();
    let height = parent.block.header.height.next();
    let set = query::set_at(&disk.state, parent.block.header.height).unwrap();
    let builder = secret(LIAR).public();
    let genesis = world.genesis.hash();
    let context =
        BlockContext { height, builder, genesis, parent_certificate: Some((&parent.certificate, &set)) };
    let executed = execute(&disk.state, &context, transactions).unwrap();
    let body = Body {
        parent_certificate: Some(parent.certificate.clone()),
        transactions: transactions.iter().map(|t| t.signed().clone()).collect(),
    };
    let header = Header {
        version: Header::VERSION,
        genesis,
        height,
        time: UnixMillis::new(EPOCH_MS + world.now_ms),
        parent: parent.block.hash(),
        parent_certificate: body.parent_certificate_hash(),
        builder,
        tx_root: body.tx_root(),
        state_root: executed.changes.state_root,
        validators_hash: executed.set.hash(),
        next_validators_hash: executed.next_set.hash(),
        params_hash: executed.params.hash(),
    };
    Block { header, body }
}

/// Offers a block in round 0 to everyone; returns its name.
fn offer(world: &mut World, block: &Block) -> BlockHash {
    let signer = secret(LIAR).signer(world.genesis.hash());
    let (height, hash) = (block.header.height, block.hash());
    let proposer = signer.public();
    let proposal = Proposal { height, round: Round::ZERO, block: hash, lock_round: None, proposer };
    let frame = BodyFrame {
        counter: 0,
        block: ByteBuf::from(block.encode()),
        round: Round::ZERO,
        sender: proposer,
        signature: signer.sign_body(&BodyFrame::payload(height, Round::ZERO, &hash)),
    };
    let message = ConsensusMessage::Proposal(proposal.sign(&signer));
    for to in 0..3 {
        world.gossip(3, to, 1, GossipMessage::Body(frame.clone()));
        let frame = ConsensusFrame { counter: 0, message: message.clone() };
        world.gossip(3, to, 1, GossipMessage::Consensus(frame));
    }
    hash
}

fn decided(world: &World, height: Height) -> Option<BlockHash> {
    let at = usize::try_from(height.get() - 1).unwrap();
    world.nodes[0].disk.borrow().blocks.get(at).map(|decided| decided.block.hash())
}

#[test]
fn an_honest_block_is_decided_in_its_round() {
    let mut world = liars_turn(900);
    let to = account(9).public();
    let block = honest_block(&world, &[world.transfer(1, 0, to, 5)]);
    let hash = offer(&mut world, &block);
    world.run(1_000);
    assert_eq!(decided(&world, block.header.height), Some(hash));
    let balance = query::account(&world.nodes[0].disk.borrow().state, &to).unwrap().balance;
    assert_eq!(balance.get(), 5);
    world.assert_agreement();
}

#[test]
fn a_block_with_any_wrong_field_is_refused_and_another_one_decided() {
    let lies: [(&str, Lie); 12] = [
        ("version", |block| block.header.version = 2),
        ("parent", |block| block.header.parent = BlockHash::from_bytes([1; 32])),
        ("time", |block| block.header.time = UnixMillis::new(1)),
        ("builder", |block| block.header.builder = account(1).public()),
        ("validators_hash", |block| block.header.validators_hash = ValidatorsHash::from_bytes([1; 32])),
        ("params_hash", |block| block.header.params_hash = ParamsHash::from_bytes([1; 32])),
        ("tx_root", |block| block.header.tx_root = MerkleRoot::from_bytes([1; 32])),
        ("state_root", |block| block.header.state_root = StateRoot::from_bytes([1; 32])),
        ("next_validators_hash", |block| {
            block.header.next_validators_hash = ValidatorsHash::from_bytes([1; 32]);
        }),
        ("parent_certificate", |block| {
            block.header.parent_certificate = CertificateHash::from_bytes([1; 32]);
        }),
        ("certificate", |block| {
            if let Some(certificate) = &mut block.body.parent_certificate {
                certificate.signatures.pop();
            }
            block.header.parent_certificate = block.body.parent_certificate_hash();
        }),
        ("it is missing", |block| {
            block.body.parent_certificate = None;
            block.header.parent_certificate = block.body.parent_certificate_hash();
        }),
    ];
    for (at, (word, lie)) in (0u64..).zip(lies) {
        let mut world = liars_turn(910 + at);
        let mut block = honest_block(&world, &[]);
        lie(&mut block);
        refused(&mut world, &block, word);
    }
}

#[test]
fn a_block_with_a_transaction_that_may_not_be_in_it_is_refused() {
    let mut world = liars_turn(930);
    let mut block = honest_block(&world, &[]);
    let replayed = world.transfer(1, 7, account(9).public(), 5);
    block.body.transactions = vec![replayed.signed().clone()];
    block.header.tx_root = block.body.tx_root();
    refused(&mut world, &block, "nonce");

    let mut world = liars_turn(931);
    let mut block = honest_block(&world, &[]);
    let mut forged = world.transfer(1, 0, account(9).public(), 5).into_signed();
    forged.transaction.valid_until = Height::new(77);
    block.body.transactions = vec![forged];
    block.header.tx_root = block.body.tx_root();
    refused(&mut world, &block, "signature");
}

fn refused(world: &mut World, block: &Block, word: &str) {
    let hash = offer(world, block);
    world.run(3_000);
    let fact = world.nodes[0].events.iter().find_map(|event| match event {
        Event::BlockRefused { block, fact, .. } if *block == hash => Some(fact.clone()),
        _ => None,
    });
    let fact = fact.unwrap_or_else(|| panic!("{word}: the block was not refused"));
    assert!(fact.contains(word), "{word}: {fact}");
    let instead = decided(world, block.header.height);
    assert!(instead.is_some_and(|other| other != hash), "{word}: {instead:?}");
    world.assert_agreement();
}

#[test]
fn a_block_from_the_future_is_valid_but_gets_no_vote_in_its_round() {
    let mut world = liars_turn(940);
    let mut block = honest_block(&world, &[]);
    block.header.time = UnixMillis::new(EPOCH_MS + world.now_ms + 11_000);
    let hash = offer(&mut world, &block);
    world.run(3_000);
    let events = &world.nodes[0].events;
    assert!(!events.iter().any(|event| matches!(event, Event::BlockRefused { .. })));
    assert!(decided(&world, block.header.height).is_some_and(|other| other != hash));
    world.assert_agreement();
}
