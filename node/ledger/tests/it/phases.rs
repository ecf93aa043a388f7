//! Every way a task can end early, and every deadline.

use serde_bytes::ByteBuf;
use tiltyard_ledger::{LedgerEvent, MarketError, query};
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::{SealKey, TaskId};
use tiltyard_proto::state::{BondFate, KeyDefault, Phase, Reason, RefundCause, StateKey, Verdict};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, Stake};

use crate::race::{BOND, POT, open_action, plain_checkpoint, row, seal_key, spec};
use crate::world::{GRANT, JUDGES, World, key, params, raw};

fn verdict(world: &World, task: TaskId) -> Verdict {
    query::verdict(&world.state, &task).expect("readable").expect("the task is over")
}

fn reason(world: &World, task: TaskId, miner: &str) -> (Reason, BondFate) {
    let found = query::entrant_verdict(&world.state, &task, &key(miner)).expect("readable");
    let found = found.expect("the entrant has a verdict");
    (found.reason, found.bond)
}

const FEE: u64 = 10;

#[test]
fn more_than_two_thirds_of_the_stake_must_accept() {
    for (stakes, accepting, opens) in [
        ([100, 100, 100, 100], vec!["v1", "v2", "v3"], true),
        ([100, 100, 100, 100], vec!["v1", "v2"], false),
        ([100, 100, 50, 50], vec!["v1", "v2"], false),
        ([100, 101, 50, 50], vec!["v1", "v2"], true),
    ] {
        let mut world = World::with(stakes, params());
        let task = world.post(spec(4));
        let all: Vec<_> = accepting.iter().map(|judge| (*judge, Action::Accept { task })).collect();
        world.block(&all);
        let open = world.task(task).deadlines.open;
        world.pass(open);
        if opens {
            assert_eq!(world.phase(task), Phase::Committing);
            assert_eq!(query::committee(&world.state, &task).expect("readable").len(), 4);
        } else {
            assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NotAccepted));
            assert_eq!(world.balance("r"), GRANT - FEE);
        }
    }
}

#[test]
fn a_cancelled_task_returns_its_pot() {
    let mut world = World::new();
    let task = world.post(spec(4));
    world.act("r", Action::Cancel { task });
    assert_eq!(verdict(&world, task).phase, Phase::Refunded(RefundCause::Cancelled));
    assert_eq!(world.balance("r"), GRANT - 2 * FEE);
    world.advance(5);
    assert_eq!(query::live_tasks(&world.state).expect("readable"), vec![]);
}

#[test]
fn without_commits_the_pot_returns() {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.close_commits(task);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NoCommits));
    assert_eq!(world.balance("r"), GRANT - FEE);
}

#[test]
fn who_does_not_reveal_loses_its_bond() {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.enter(task, "a");
    world.enter(task, "b");
    world.close_commits(task);
    world.act("b", plain_checkpoint("b").reveal(task));
    let burned = world.burned();
    world.close_reveals(task);
    assert_eq!(world.phase(task), Phase::Holding);
    assert_eq!(world.burned(), burned + BOND);
    assert_eq!(reason(&world, task, "a"), (Reason::NotRevealed, BondFate::Burned(query_bond())));
    assert_eq!(world.task(task).entrants, vec![key("b")]);
}

const fn query_bond() -> tiltyard_proto::units::MicroCredits {
    tiltyard_proto::units::MicroCredits::new(BOND)
}

#[test]
fn when_nobody_reveals_the_pot_returns_and_the_bonds_burn() {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.enter(task, "a");
    world.close_commits(task);
    world.close_reveals(task);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NoEntrants));
    assert_eq!(world.balance("r"), GRANT - FEE);
    assert_eq!(world.balance("a"), GRANT - FEE - BOND);
    assert_eq!(verdict(&world, task).entrants, vec![key("a")]);
}

fn held_by(judges: &[&str], stakes: [u64; 4]) -> (World, TaskId) {
    let mut world = World::with(stakes, params());
    let task = world.open(spec(4));
    world.enter(task, "a");
    world.close_commits(task);
    world.act("a", plain_checkpoint("a").reveal(task));
    world.close_reveals(task);
    if !judges.is_empty() {
        world.hold(task, judges);
    }
    world.close_held(task);
    (world, task)
}

#[test]
fn bytes_that_less_than_a_third_could_get_cost_the_bond() {
    let (world, task) = held_by(&["v1"], [100, 100, 100, 100]);
    let (held, total) = (Stake::new(100), Stake::new(400));
    let burned = BondFate::Burned(query_bond());
    assert_eq!(reason(&world, task, "a"), (Reason::NotHeld { held, total }, burned));
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NoEntrants));
}

#[test]
fn bytes_that_exactly_a_third_or_two_thirds_could_get_are_out_with_the_bond_back() {
    for judges in [&["v1"][..], &["v1", "v2", "v3"]] {
        let (world, task) = held_by(judges, [100, 50, 50, 100]);
        let (found, bond) = reason(&world, task, "a");
        assert!(matches!(found, Reason::HeldByTooFew { .. }), "{found:?}");
        assert_eq!(bond, BondFate::Returned(query_bond()));
        assert_eq!(world.balance("a"), GRANT - FEE);
    }
}

#[test]
fn bytes_that_more_than_two_thirds_hold_stand() {
    let (world, task) = held_by(&["v1", "v2", "v3"], [100; 4]);
    assert_eq!(world.phase(task), Phase::KeyOpening);
}

#[test]
fn a_key_that_is_never_opened_burns_the_pot_but_pays_who_held() {
    let (mut world, task) = held_by(&["v1", "v2", "v3"], [100; 4]);
    let before = world.balance("v1");
    let at = world.task(task).deadlines.key;
    world.pass(at);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::KeyDefault(KeyDefault::Absent)));
    assert_eq!(world.balance("r"), GRANT - FEE - POT);
    assert_eq!(world.balance("a"), GRANT - FEE, "the bond returns");
    assert_eq!(world.balance("v1"), before + 2_500);
    assert_eq!(world.balance("v4"), 0);
    assert_eq!(verdict(&world, task).burned.get(), POT - 7_500);
}

#[test]
fn a_key_opened_early_by_anyone_ends_the_task_at_once() {
    for who in ["r", "x"] {
        let mut world = World::new();
        let task = world.open(spec(4));
        world.enter(task, "a");
        world.act(who, Action::OpenKey { task, key: seal_key() });
        assert_eq!(world.phase(task), Phase::Refunded(RefundCause::KeyDefault(KeyDefault::Early)));
        assert_eq!(verdict(&world, task).burned.get(), POT);
        assert_eq!(world.balance("a"), GRANT - FEE);
        world.advance(10);
    }
}

#[test]
fn nobody_can_frame_a_requester_with_a_wrong_key() {
    let wrong = SealKey::from_bytes([8; 32]);
    let (mut world, task) = held_by(&JUDGES, [100; 4]);
    assert_eq!(world.refused("x", Action::OpenKey { task, key: wrong }), MarketError::WrongKey);
    assert_eq!(world.task(task).key_default, None);
    world.act("r", Action::OpenKey { task, key: wrong });
    assert_eq!(world.task(task).key_default, Some(KeyDefault::Wrong));
    assert_eq!(world.task(task).key, None);
    world.pass(world.task(task).deadlines.key);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::KeyDefault(KeyDefault::Wrong)));
}

#[test]
fn the_right_key_in_time_makes_a_wrong_one_good() {
    let (mut world, task) = held_by(&JUDGES, [100; 4]);
    world.act("r", Action::OpenKey { task, key: SealKey::from_bytes([8; 32]) });
    world.open_key(task);
    assert_eq!(world.phase(task), Phase::ScoreCommitting);
    assert_eq!(world.task(task).key_default, None);
}

#[test]
fn too_few_sealed_scores_are_no_verdict() {
    let (mut world, task) = held_by(&JUDGES, [100; 4]);
    world.open_key(task);
    let rows = vec![row("9000 9000 9000 9000"), row("4000 4000 4000 4000")];
    world.seal(task, &[("v1", rows.clone()), ("v2", rows)]);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NotJudged));
    assert_eq!(world.balance("r"), GRANT - 2 * FEE + FEE, "the opening was free");
    assert_eq!(world.balance("a"), GRANT - FEE);
}

#[test]
fn a_judge_that_opens_all_but_one_row_counts_for_none() {
    let (mut world, task) = held_by(&JUDGES, [100; 4]);
    world.open_key(task);
    let rows = vec![row("9000 9000 9000 9000"), row("4000 4000 4000 4000")];
    let scores = JUDGES.map(|judge| (judge, rows.clone()));
    world.seal(task, &scores);
    for judge in ["v1", "v2"] {
        world.block(&[
            (judge, open_action(task, judge, &rows, 0)),
            (judge, open_action(task, judge, &rows, 1)),
        ]);
    }
    world.block(&[("v3", open_action(task, "v3", &rows, 1))]);
    world.pass(world.task(task).deadlines.score_open);
    assert_eq!(world.phase(task), Phase::Refunded(RefundCause::NotJudged));
}

#[test]
fn a_task_that_is_over_leaves_only_verdicts() {
    let (mut world, task) = held_by(&JUDGES, [100; 4]);
    world.open_key(task);
    let rows = vec![row("9000 9000 9000 9000"), row("4000 4000 4000 4000")];
    let scores = JUDGES.map(|judge| (judge, rows.clone()));
    world.seal(task, &scores);
    world.unseal(task, &scores);
    assert_eq!(world.phase(task), Phase::Settled);
    let mut gone = vec![StateKey::Entrant(task, key("a")), StateKey::Committee(task)];
    for judge in JUDGES {
        gone.push(StateKey::Judge(task, key(judge)));
        gone.extend([0, 1].map(|row| StateKey::OpenedRow(task, key(judge), row)));
        let record = query::validator(&world.state, &key(judge)).expect("readable").expect("there");
        assert_eq!(record.duties, 0);
    }
    for entry in gone {
        assert_eq!(raw(&world.state, &entry), None, "{entry:?} stayed");
    }
    assert_eq!(query::live_tasks(&world.state).expect("readable"), vec![]);
}

#[test]
fn phases_end_in_the_block_of_the_deadline_and_only_go_forward() {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.enter(task, "a");
    let deadlines = world.task(task).deadlines;
    world.pass(deadlines.commit.previous().expect("positive"));
    assert_eq!(world.phase(task), Phase::Committing);
    world.act("b", plain_checkpoint("b").commit(&world, task, "b", BOND));
    assert_eq!(world.height, deadlines.commit);
    assert_eq!(world.phase(task), Phase::Revealing, "a commit in the deadline's block counts");
    assert_eq!(world.task(task).entrants.len(), 2);
    let late = plain_checkpoint("c").commit(&world, task, "c", BOND);
    assert!(
        matches!(world.refused("c", late), MarketError::Late { closed, .. } if closed == deadlines.commit)
    );
}

#[test]
fn phase_ends_beyond_the_budget_are_carried_over_and_windows_keep_their_length() {
    let tight = Params { phase_ends_per_block_max: 2, ..params() };
    let mut world = World::with([100; 4], tight);
    let posts: Vec<_> = (0..5)
        .map(|at| {
            let mut task = spec(4);
            task.title = format!("task {at}");
            ("r", Action::Post(Box::new(task)))
        })
        .collect();
    let signed = world.sign_all(&posts);
    let tasks: Vec<TaskId> = signed.iter().map(|post| TaskId::from_bytes(*post.id().as_bytes())).collect();
    world.apply(&signed).expect("valid");
    let accepts: Vec<_> =
        tasks.iter().flat_map(|task| JUDGES.map(|judge| (judge, Action::Accept { task: *task }))).collect();
    world.block(&accepts);
    let open = world.task(tasks[0]).deadlines.open;
    world.pass(open);
    let phases = |world: &World| tasks.iter().filter(|task| world.phase(**task) == Phase::Committing).count();
    assert_eq!(phases(&world), 2);
    world.advance(1);
    assert_eq!(phases(&world), 4);
    let late = tasks.iter().find(|task| world.phase(**task) == Phase::Accepting).expect("one is left");
    assert!(matches!(world.refused("v1", Action::Accept { task: *late }), MarketError::Late { .. }));
    world.advance(1);
    let opened = world.events.iter().rev().find_map(|event| match event {
        LedgerEvent::TaskPhase { task, phase: Phase::Committing } if task == late => Some(()),
        _ => None,
    });
    assert_eq!(opened, Some(()));
    let delay = world.task(*late).deadlines.commit.get() - world.task(tasks[0]).deadlines.commit.get();
    assert!((2..=3).contains(&delay), "the window moved by {delay}");
}

#[test]
fn more_may_be_held_later_but_not_the_same_again() {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.enter(task, "a");
    world.enter(task, "b");
    world.close_commits(task);
    world.block(&[("a", plain_checkpoint("a").reveal(task)), ("b", plain_checkpoint("b").reveal(task))]);
    world.close_reveals(task);
    let held = |bits: &[u8]| Action::Held { task, entrants: ByteBuf::from(bits.to_vec()) };
    world.act("v1", held(&[1]));
    assert_eq!(world.refused("v1", held(&[1])), MarketError::NothingNew);
    assert_eq!(world.refused("v1", held(&[0])), MarketError::NothingNew);
    world.act("v1", held(&[2]));
    assert_eq!(world.refused("v2", held(&[4])), MarketError::Bitmap { bytes: 1, entrants: 2 });
    assert_eq!(world.refused("v2", held(&[1, 0])), MarketError::Bitmap { bytes: 2, entrants: 2 });
    assert_eq!(world.refused("x", held(&[1])), MarketError::NotInCommittee { key: key("x") });
}

#[test]
fn windows_are_counted_from_the_block_of_the_post() {
    let mut world = World::new();
    world.advance(7);
    let mut posted = spec(4);
    posted.windows.open = Blocks::new(2);
    let task = world.post(posted);
    assert_eq!(world.task(task).deadlines.open, world.height.plus(Blocks::new(2)));
    assert_eq!(world.task(task).posted_at, world.height);
}
