//! How miners get in, get replaced, and get evicted.

use serde_bytes::ByteBuf;
use tiltyard_ledger::{LedgerEvent, MarketError, query, stamp};
use tiltyard_proto::ids::{BlobRoot, Commitment, TaskId};
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

use crate::race::{BOND, Checkpoint, plain_checkpoint, spec};
use crate::world::{GRANT, World, key, micro, secret};

fn stamped(world: &World, task: TaskId, miner: &str) -> Action {
    let genesis = world.genesis.hash();
    let found = (0u64..).find(|stamp| stamp::is_valid(&genesis, &task, &key(miner), *stamp, 3));
    Action::Commit {
        task,
        commitment: plain_checkpoint(miner).commitment(world, task, miner),
        bond: MicroCredits::ZERO,
        stamp: found,
        reference: false,
    }
}

fn reference(world: &World, task: TaskId, miner: &str) -> Action {
    Action::Commit {
        task,
        commitment: Checkpoint::new(miner, miner, "reference").commitment(world, task, miner),
        bond: MicroCredits::ZERO,
        stamp: None,
        reference: true,
    }
}

fn full_of(places: u8, unbonded: u8) -> (World, TaskId) {
    let mut world = World::new();
    let mut posted = spec(4);
    posted.entrants_max = places;
    posted.unbonded_max = unbonded;
    posted.windows.reveal = tiltyard_proto::units::Blocks::new(8);
    let task = world.open(posted);
    (world, task)
}

#[test]
fn a_volunteer_without_a_single_credit_can_enter_and_reveal() {
    let (mut world, task) = full_of(3, 1);
    let action = stamped(&world, task, "newcomer");
    world.act("newcomer", action);
    world.close_commits(task);
    world.act("newcomer", plain_checkpoint("newcomer").reveal(task));
    let entry = query::entrant(&world.state, &task, &secret("newcomer").public()).expect("readable");
    assert_eq!(entry.expect("entered").bond, MicroCredits::ZERO);
}

#[test]
fn twice_the_lowest_bond_takes_a_place_and_less_does_not() {
    let (mut world, task) = full_of(2, 0);
    world.act("a", plain_checkpoint("a").commit(&world, task, "a", BOND));
    world.act("b", plain_checkpoint("b").commit(&world, task, "b", BOND + 1));
    let low = plain_checkpoint("c").commit(&world, task, "c", 2 * BOND - 1);
    let until = tiltyard_proto::units::Height::new(world.task(task).deadlines.commit.get() - 2);
    assert_eq!(world.refused("c", low), MarketError::Full { needed: micro(2 * BOND), until });
    world.act("c", plain_checkpoint("c").commit(&world, task, "c", 2 * BOND));
    assert_eq!(world.balance("a"), GRANT - 10, "the evicted bond returns");
    assert!(world.events.contains(&LedgerEvent::Evicted { task, miner: key("a"), by: key("c") }));
    world.close_commits(task);
    let evicted = plain_checkpoint("a").reveal(task);
    assert_eq!(world.refused("a", evicted), MarketError::NoCommit { miner: key("a") });
}

#[test]
fn of_equal_bonds_the_newest_yields() {
    let (mut world, task) = full_of(2, 0);
    world.enter(task, "a");
    world.enter(task, "b");
    world.act("c", plain_checkpoint("c").commit(&world, task, "c", 2 * BOND));
    assert!(world.events.contains(&LedgerEvent::Evicted { task, miner: key("b"), by: key("c") }));
}

#[test]
fn nobody_is_evicted_in_the_last_blocks() {
    let (mut world, task) = full_of(1, 0);
    world.enter(task, "a");
    let closes = world.task(task).deadlines.commit.get();
    world.pass(tiltyard_proto::units::Height::new(closes - 2));
    let rich = plain_checkpoint("b").commit(&world, task, "b", 100 * BOND);
    assert!(matches!(world.refused("b", rich), MarketError::Full { .. }));
}

#[test]
fn entrants_without_bond_yield_first_and_cannot_evict() {
    let (mut world, task) = full_of(2, 2);
    world.enter(task, "a");
    let b = stamped(&world, task, "b");
    world.act("b", b);
    let c = stamped(&world, task, "c");
    assert!(matches!(world.refused("c", c), MarketError::Full { .. }));
    world.enter(task, "d");
    assert!(world.events.contains(&LedgerEvent::Evicted { task, miner: key("b"), by: key("d") }));
}

#[test]
fn places_without_bond_are_limited() {
    let (mut world, task) = full_of(4, 1);
    let b = stamped(&world, task, "b");
    world.act("b", b);
    let c = stamped(&world, task, "c");
    assert_eq!(world.refused("c", c), MarketError::UnbondedFull { max: 1 });
}

#[test]
fn a_stamp_without_enough_work_is_refused() {
    let (mut world, task) = full_of(4, 4);
    let Action::Commit { commitment, .. } = stamped(&world, task, "b") else { unreachable!() };
    let genesis = world.genesis.hash();
    let idle = (0u64..).find(|stamp| stamp::work_bits(&genesis, &task, &key("b"), *stamp) == 2);
    let action = Action::Commit { task, commitment, bond: micro(0), stamp: idle, reference: false };
    assert_eq!(world.refused("b", action), MarketError::StampInvalid { bits: 2, needed: 3 });
}

#[test]
fn one_reference_enters_without_bond_and_is_never_evicted() {
    let (mut world, task) = full_of(1, 0);
    let d = reference(&world, task, "d");
    world.act("d", d);
    let e = reference(&world, task, "e");
    assert_eq!(world.refused("e", e), MarketError::ReferenceTaken { miner: key("d") });
    let rich = plain_checkpoint("b").commit(&world, task, "b", 100 * BOND);
    assert!(matches!(world.refused("b", rich), MarketError::Full { .. }));
}

#[test]
fn the_reference_must_reveal_the_reference_recipe() {
    let (mut world, task) = full_of(2, 0);
    let commitment = plain_checkpoint("d").commitment(&world, task, "d");
    world.act("d", Action::Commit { task, commitment, bond: micro(0), stamp: None, reference: true });
    world.close_commits(task);
    assert_eq!(
        world.phase(task),
        tiltyard_proto::state::Phase::Refunded(tiltyard_proto::state::RefundCause::NoCommits),
        "a reference alone is no race"
    );
    let (mut world, task) = full_of(2, 0);
    world.enter(task, "a");
    let commitment = plain_checkpoint("d").commitment(&world, task, "d");
    world.act("d", Action::Commit { task, commitment, bond: micro(0), stamp: None, reference: true });
    world.close_commits(task);
    let reveal = plain_checkpoint("d").reveal(task);
    assert_eq!(world.refused("d", reveal), MarketError::NotTheReference);
}

#[test]
fn a_task_without_reference_takes_none() {
    let mut world = World::new();
    let mut posted = spec(4);
    posted.reference = None;
    let task = world.open(posted);
    let d = reference(&world, task, "d");
    assert_eq!(world.refused("d", d), MarketError::NoReference);
}

#[test]
fn a_replaced_commit_loses_its_priority_and_swaps_its_bond() {
    let (mut world, task) = full_of(3, 0);
    world.enter(task, "a");
    let first = query::entrant(&world.state, &task, &key("a")).expect("readable").expect("in");
    let other = Checkpoint::new("a", "better weights", "a");
    let again = plain_checkpoint("a").commit(&world, task, "a", BOND);
    assert_eq!(world.refused("a", again), MarketError::CommitUnchanged);
    let lower = Action::Commit {
        task,
        commitment: other.commitment(&world, task, "a"),
        bond: micro(BOND),
        stamp: None,
        reference: false,
    };
    world.act("a", other.commit(&world, task, "a", 3 * BOND));
    let second = query::entrant(&world.state, &task, &key("a")).expect("readable").expect("in");
    assert!(second.committed_at > first.committed_at);
    assert_eq!(world.balance("a"), GRANT - 3 * BOND - 3 * 10);
    let Action::Commit { commitment, .. } = lower else { unreachable!() };
    assert_eq!(commitment, second.commitment);
    let less = plain_checkpoint("a").commit(&world, task, "a", BOND);
    assert_eq!(world.refused("a", less), MarketError::CommitSort);
}

#[test]
fn a_stamp_pays_for_the_first_commit_only() {
    let (mut world, task) = full_of(3, 2);
    let first = stamped(&world, task, "a");
    world.act("a", first.clone());
    let Action::Commit { task, stamp, .. } = first else { unreachable!() };
    let other = Checkpoint::new("a", "better weights", "a").commitment(&world, task, "a");
    let free = Action::Commit { task, commitment: other, bond: micro(0), stamp, reference: false };
    let signed = world.sign_with("a", world.nonce("a"), MicroCredits::ZERO, free.clone());
    assert!(world.apply(&[signed]).is_err());
    let paid = world.sign_with("a", world.nonce("a"), micro(10), free);
    assert_eq!(world.apply(&[paid]).expect("valid"), vec![Ok(())]);
}

#[test]
fn a_requester_cannot_win_its_own_pot() {
    let (mut world, task) = full_of(3, 0);
    let own = plain_checkpoint("r").commit(&world, task, "r", BOND);
    assert_eq!(world.refused("r", own), MarketError::RequesterEnters);
    let r = reference(&world, task, "r");
    world.act("r", r);
}

#[test]
fn a_commit_is_bonded_or_stamped_or_the_reference() {
    let (mut world, task) = full_of(3, 3);
    for (bond, stamp, reference) in
        [(0, None, false), (BOND, Some(1), false), (BOND, None, true), (0, Some(1), true)]
    {
        let commitment = Commitment::from_bytes([1; 32]);
        let action = Action::Commit { task, commitment, bond: micro(bond), stamp, reference };
        assert_eq!(world.refused("a", action), MarketError::CommitForm);
    }
    let low = plain_checkpoint("a").commit(&world, task, "a", BOND - 1);
    let error = MarketError::BondTooLow { bond: micro(BOND - 1), needed: micro(BOND) };
    assert_eq!(world.refused("a", low), error);
    let dear = plain_checkpoint("a").commit(&world, task, "a", 2 * GRANT);
    assert!(matches!(world.refused("a", dear), MarketError::Balance { .. }));
}

#[test]
fn only_the_committers_own_checkpoint_opens_its_commit() {
    let (mut world, task) = full_of(3, 0);
    world.enter(task, "a");
    // b saw a's commitment and re-published it under its own key.
    let stolen = plain_checkpoint("a").commitment(&world, task, "a");
    world.act(
        "b",
        Action::Commit { task, commitment: stolen, bond: micro(BOND), stamp: None, reference: false },
    );
    world.close_commits(task);
    world.act("a", plain_checkpoint("a").reveal(task));
    let theft = plain_checkpoint("a").reveal(task);
    assert_eq!(world.refused("b", theft), MarketError::NotTheCommit);
    let again = plain_checkpoint("a").reveal(task);
    assert_eq!(world.refused("a", again), MarketError::AlreadyRevealed);
    let nobody = plain_checkpoint("c").reveal(task);
    assert_eq!(world.refused("c", nobody), MarketError::NoCommit { miner: key("c") });
}

/// Commits a changed checkpoint and returns what its reveal breaks.
fn reveal_of(change: impl Fn(&mut Checkpoint)) -> MarketError {
    let (mut world, task) = full_of(3, 0);
    let mut checkpoint = plain_checkpoint("a");
    change(&mut checkpoint);
    world.act("a", checkpoint.commit(&world, task, "a", BOND));
    world.close_commits(task);
    world.refused("a", checkpoint.reveal(task))
}

#[test]
fn a_reveal_must_fit_the_task() {
    let kind = reveal_of(|checkpoint| checkpoint.manifest.kind = BlobKind::Dataset);
    assert_eq!(kind, MarketError::CheckpointKind);
    let weights = reveal_of(|checkpoint| checkpoint.manifest.kind = BlobKind::Model);
    assert_eq!(weights, MarketError::CheckpointKind);
    let other = BlobRoot::from_bytes([9; 32]);
    let base = reveal_of(|checkpoint| checkpoint.manifest.base = Some(other));
    assert!(matches!(base, MarketError::WrongBase { found: Some(found), .. } if found == other));
    let large = reveal_of(|checkpoint| checkpoint.manifest.files[1].bytes = 10_000);
    assert_eq!(large, MarketError::CheckpointTooLarge { bytes: 10_500, max: 10_000 });
    let recipe = reveal_of(|checkpoint| checkpoint.recipe.steps += 1);
    assert_eq!(recipe, MarketError::RecipeMismatch);
    let version = reveal_of(|checkpoint| checkpoint.recipe.version = 2);
    assert!(matches!(version, MarketError::Recipe(_)));
}

#[test]
fn a_reveal_of_garbage_is_refused() {
    let (mut world, task) = full_of(3, 0);
    world.enter(task, "a");
    world.close_commits(task);
    let Action::Reveal { salt, recipe, .. } = plain_checkpoint("a").reveal(task) else { unreachable!() };
    let garbage = Action::Reveal { task, manifest: ByteBuf::from(vec![0xff; 40]), salt, recipe };
    assert!(matches!(world.refused("a", garbage), MarketError::Manifest(_)));
}
