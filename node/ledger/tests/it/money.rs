//! Transfers, faucet, fees, posts, scores: who pays, and what is refused.

use serde_bytes::ByteBuf;
use tiltyard_ledger::{AdmitError, BlockError, ExecuteError, MarketError, check, query, select};
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::{MerkleRoot, Salt, ScoreCommitment, SealKey, TaskId};
use tiltyard_proto::merkle::MerklePath;
use tiltyard_proto::state::Phase;
use tiltyard_proto::task::{TaskKind, TaskSpec};
use tiltyard_proto::transaction::{Action, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, MicroCredits, Nonce, Ppm};

use crate::race::{open_action, plain_checkpoint, row, seal_key, spec};
use crate::world::{GRANT, JUDGES, World, key, micro, params};

fn transfer(to: &str, amount: u64) -> Action {
    Action::Transfer { to: key(to), amount: micro(amount) }
}

#[test]
fn a_transfer_moves_its_amount_and_burns_its_fee() {
    let mut world = World::new();
    world.act("a", transfer("b", 100));
    assert_eq!(world.balance("a"), GRANT - 110);
    assert_eq!(world.balance("b"), GRANT + 100);
    assert_eq!(world.burned(), 10);
    world.act("a", transfer("a", 50));
    assert_eq!(world.balance("a"), GRANT - 120, "to oneself only the fee is lost");
}

#[test]
fn a_transfer_beyond_the_balance_pays_its_fee_and_moves_nothing() {
    let mut world = World::new();
    let error = world.refused("a", transfer("b", GRANT));
    assert_eq!(error, MarketError::Balance { needed: micro(GRANT), balance: micro(GRANT - 10) });
    assert_eq!(world.balance("a"), GRANT - 10);
    assert_eq!(world.nonce("a"), 1);
    assert_eq!(world.refused("a", transfer("b", 0)), MarketError::NothingToDo);
}

#[test]
fn the_faucet_gives_to_a_key_once_an_interval() {
    let mut world = World::new();
    let draw = Action::Faucet { to: key("newcomer") };
    world.act("newcomer", draw.clone());
    let drawn = world.height;
    assert_eq!(world.balance("newcomer"), 500);
    assert_eq!(
        world.refused("x", draw.clone()),
        MarketError::FaucetTooSoon { again: drawn.plus(Blocks::new(5)) }
    );
    world.pass(Height::new(drawn.get() + 4));
    world.act("newcomer", draw);
    assert_eq!(query::totals(&world.state).expect("readable").faucet, micro(1_000));
}

#[test]
fn the_faucet_gives_so_often_a_block_and_only_where_there_is_one() {
    let mut world = World::new();
    let draws: Vec<VerifiedTransaction> = (0..20)
        .map(|at| {
            let name = format!("key {at}");
            world.sign(&name, 0, Action::Faucet { to: key(&name) })
        })
        .collect();
    let selected = select(&world.state, &world.context(), &draws).expect("readable");
    assert_eq!(selected.included.len(), 16);
    let busy = AdmitError::FreeFailure(MarketError::FaucetBusy { draws: 16 });
    assert_eq!(selected.refused.first(), Some(&(16, busy)));
    world.apply(&draws[..16]).expect("valid");
    let dry = Params { faucet: MicroCredits::ZERO, ..params() };
    let mut world = World::with([100; 4], dry);
    assert_eq!(world.refused("a", Action::Faucet { to: key("a") }), MarketError::NoFaucet);
    let endless = Params { faucet: MicroCredits::MAX, ..params() };
    let mut world = World::with([100; 4], endless);
    assert_eq!(world.refused("a", Action::Faucet { to: key("a") }), MarketError::SupplyExhausted);
}

fn spoiled(world: &mut World, transaction: VerifiedTransaction) -> AdmitError {
    let before = world.state.clone();
    let error = match world.apply(&[transaction]) {
        Err(ExecuteError::Invalid(BlockError::Transaction { index: 0, source, .. })) => source,
        other => panic!("the block must be invalid, got {other:?}"),
    };
    assert_eq!(world.state, before);
    error
}

#[test]
fn a_block_with_an_unfit_transaction_is_invalid() {
    let mut world = World::new();
    world.advance(5);
    let signed = world.sign("a", 1, transfer("b", 1));
    let (sender, given, next) = (key("a"), Nonce::new(1), Nonce::new(0));
    assert_eq!(spoiled(&mut world, signed), AdmitError::Nonce { sender, given, next });
    let cheap = world.sign_with("a", 0, micro(9), transfer("b", 1));
    assert_eq!(spoiled(&mut world, cheap), AdmitError::FeeTooLow { fee: micro(9), needed: micro(10) });
    let dear = world.sign_with("a", 0, micro(GRANT + 1), transfer("b", 1));
    let (fee, balance) = (micro(GRANT + 1), micro(GRANT));
    assert_eq!(spoiled(&mut world, dear), AdmitError::FeeUnpayable { fee, balance });
    for (valid_until, early) in [(5, true), (6 + 1_000, false), (6 + 1_001, false)] {
        let mut body = world.sign("a", 0, transfer("b", 1)).transaction().clone();
        body.valid_until = Height::new(valid_until);
        let signed = body.sign(&crate::world::secret("a").signer(world.genesis.hash()));
        let (valid_until, height) = (Height::new(valid_until), Height::new(6));
        let expected = if early {
            AdmitError::Expired { valid_until, height }
        } else {
            AdmitError::TooFarAhead { valid_until, height }
        };
        if valid_until.get() == 1_006 {
            assert_eq!(check(&world.state, world.genesis.hash(), world.height, &signed), Ok(Ok(())));
        } else {
            assert_eq!(spoiled(&mut world, signed), expected);
        }
    }
    let foreign = World::with([99; 4], params()).sign("a", 0, transfer("b", 1));
    assert!(matches!(spoiled(&mut world, foreign), AdmitError::ForeignNetwork { .. }));
}

#[test]
fn a_block_has_so_many_transactions() {
    let small = Params { block_transactions_max: 2, ..params() };
    let mut world = World::with([100; 4], small);
    let signed = world.sign_all(&[("a", transfer("b", 1)), ("a", transfer("b", 1)), ("b", transfer("a", 1))]);
    let error = ExecuteError::Invalid(BlockError::TooManyTransactions { count: 3, max: 2 });
    assert_eq!(world.apply(&signed).expect_err("too many"), error);
    let selected = select(&world.state, &world.context(), &signed).expect("readable");
    assert_eq!(selected.included, vec![0, 1]);
}

#[test]
fn what_is_selected_executes_to_the_same_state() {
    let mut world = World::new();
    let task = world.post(spec(4));
    let candidates = [
        world.sign("a", 0, transfer("b", 5)),
        world.sign("a", 0, transfer("c", 5)),
        world.sign("v1", 0, Action::Accept { task }),
        world.sign("v1", 1, Action::Accept { task }),
        world.sign("a", 1, transfer("b", GRANT)),
        world.sign("x", 7, transfer("b", 1)),
    ];
    let selected = select(&world.state, &world.context(), &candidates).expect("readable");
    assert_eq!(selected.included, vec![0, 2, 4]);
    let kept: Vec<_> = selected.included.iter().map(|at| candidates[*at].clone()).collect();
    let executed = tiltyard_ledger::execute(&world.state, &world.context(), &kept).expect("valid");
    assert_eq!(executed.changes, selected.executed.changes);
    assert_eq!(executed.outcomes, selected.executed.outcomes);
}

#[test]
fn the_mempool_takes_future_nonces_and_no_useless_duties() {
    let mut world = World::new();
    let task = world.post(spec(4));
    let genesis = world.genesis.hash();
    let check = |world: &World, signed: &VerifiedTransaction| {
        check(&world.state, genesis, world.height, signed).expect("readable")
    };
    assert_eq!(check(&world, &world.sign("a", 5, transfer("b", 1))), Ok(()));
    assert_eq!(check(&world, &world.sign("v1", 3, Action::Accept { task })), Ok(()));
    let stranger = world.sign("a", 0, Action::Accept { task });
    let error = AdmitError::FreeFailure(MarketError::NotValidator { key: key("a") });
    assert_eq!(check(&world, &stranger), Err(error));
    world.act("a", transfer("b", 1));
    let replayed = world.sign("a", 0, transfer("b", 1));
    assert!(matches!(check(&world, &replayed), Err(AdmitError::Nonce { .. })));
}

#[test]
fn only_the_requester_cancels_and_only_before_the_task_opens() {
    let mut world = World::new();
    let task = world.post(spec(4));
    assert_eq!(
        world.refused("a", Action::Cancel { task }),
        MarketError::NotRequester { requester: key("r") }
    );
    let unknown = TaskId::from_bytes([1; 32]);
    assert_eq!(
        world.refused("r", Action::Cancel { task: unknown }),
        MarketError::UnknownTask { task: unknown }
    );
    let task = world.open(spec(5));
    assert!(matches!(world.refused("r", Action::Cancel { task }), MarketError::Late { .. }));
}

#[test]
fn an_accept_counts_once() {
    let mut world = World::new();
    let task = world.post(spec(4));
    world.act("v1", Action::Accept { task });
    assert_eq!(world.refused("v1", Action::Accept { task }), MarketError::AlreadyAccepted);
}

#[test]
fn nothing_can_be_done_before_its_phase() {
    let mut world = World::new();
    let task = world.post(spec(4));
    let early = plain_checkpoint("a").commit(&world, task, "a", 1_000);
    let error = MarketError::TooEarly { task, phase: Phase::Accepting, needed: Phase::Committing };
    assert_eq!(world.refused("a", early), error);
}

fn post_error(change: impl Fn(&mut TaskSpec)) -> MarketError {
    let mut world = World::new();
    let mut posted = spec(4);
    change(&mut posted);
    let error = world.refused("r", Action::Post(Box::new(posted)));
    assert_eq!(world.balance("r"), GRANT - 10, "a refused post locks nothing");
    error
}

fn field_of(change: impl Fn(&mut TaskSpec)) -> &'static str {
    match post_error(change) {
        MarketError::PostNumber { field, .. } => field,
        other => panic!("expected a field, got {other:?}"),
    }
}

#[test]
fn a_post_outside_its_limits_is_refused_and_names_the_field() {
    let label = |text: &str| text.to_string();
    assert_eq!(field_of(|post| post.title = String::new()), "title bytes");
    assert_eq!(field_of(|post| post.title = "x".repeat(129)), "title bytes");
    assert_eq!(field_of(|post| post.title = "a\u{1b}[2J".into()), "title bytes");
    assert_eq!(field_of(|post| post.evaluation.examples = 0), "evaluation examples");
    assert_eq!(field_of(|post| post.evaluation.examples = 1_025), "evaluation examples");
    assert_eq!(field_of(|post| post.small_set = false), "evaluation examples");
    assert_eq!(field_of(|post| post.base.bytes = 0), "blob bytes");
    assert_eq!(field_of(|post| post.evaluation.plaintext_bytes = 0), "plaintext_bytes");
    assert_eq!(field_of(|post| post.windows.key = Blocks::new(1)), "window");
    assert_eq!(field_of(|post| post.windows.commit = Blocks::new(21)), "window");
    assert_eq!(field_of(|post| post.pot = micro(0)), "pot");
    assert_eq!(field_of(|post| post.min_gain = Ppm::new(-1)), "min_gain");
    assert_eq!(field_of(|post| post.entrants_max = 0), "entrants_max");
    assert_eq!(field_of(|post| post.entrants_max = 65), "entrants_max");
    assert_eq!(field_of(|post| post.unbonded_max = 9), "unbonded_max");
    assert_eq!(field_of(|post| post.checkpoint_bytes_max = 0), "checkpoint_bytes_max");
    assert_eq!(field_of(|post| post.kind = TaskKind::PlainText { window_tokens: 1 }), "window_tokens");
    assert_eq!(field_of(|post| post.kind = TaskKind::Dpo { beta_milli: 0 }), "beta_milli");
    assert_eq!(field_of(|post| post.kind = TaskKind::Grpo { tokens_max: 0 }), "tokens_max");
    assert_eq!(field_of(|post| post.kind = TaskKind::Diffusion { levels: 0 }), "levels");
    for labels in [vec![label("a")], vec![label("b"), label("a")], vec![label("a"), label("a")]] {
        assert_eq!(
            field_of(|post| post.kind = TaskKind::Classification { labels: labels.clone() }),
            "labels"
        );
    }
    let labels = vec![label(""), label("a")];
    assert_eq!(
        field_of(|post| post.kind = TaskKind::Classification { labels: labels.clone() }),
        "label bytes"
    );
}

#[test]
fn a_post_must_pay_for_its_judging_and_leave_room_for_its_rows() {
    let error = post_error(|post| {
        post.evaluation.examples = 300;
        post.bond = micro(299);
    });
    assert_eq!(error, MarketError::PostBond { bond: micro(299), needed: micro(300) });
    let error = post_error(|post| {
        post.evaluation.examples = 1_024;
        post.bond = micro(2_000);
        post.entrants_max = 64;
    });
    // 4 judges, 65 rows of 4,096 bytes, four times over, in blocks of 512 KiB.
    assert_eq!(error, MarketError::PostOpenWindow { window: 6, needed: 9 });
    let error = post_error(|post| post.pot = micro(GRANT));
    assert!(matches!(error, MarketError::Balance { .. }));
}

/// A task whose scores are being sealed: rows, and the world.
fn sealing() -> (World, TaskId, Vec<tiltyard_proto::score::Row>) {
    let mut world = World::new();
    let task = world.open(spec(4));
    world.enter(task, "a");
    world.close_commits(task);
    world.act("a", plain_checkpoint("a").reveal(task));
    world.close_reveals(task);
    world.hold(task, &JUDGES);
    world.close_held(task);
    world.open_key(task);
    (world, task, vec![row("9000 9000 9000 9000"), row("4000 4000 4000 4000")])
}

#[test]
fn scores_are_sealed_once_by_members_only() {
    let (mut world, task, rows) = sealing();
    let sealed = world.seal_action(task, "v1", &rows);
    world.act("v1", sealed.clone());
    assert_eq!(world.refused("v1", sealed), MarketError::AlreadyScored);
    let stranger = Action::ScoreCommit { task, root: ScoreCommitment::from_bytes([0; 32]) };
    assert_eq!(world.refused("x", stranger), MarketError::NotInCommittee { key: key("x") });
}

#[test]
fn only_sealed_rows_open_each_once() {
    let (mut world, task, rows) = sealing();
    world.seal(task, &["v1", "v2", "v3"].map(|judge| (judge, rows.clone())));
    assert_eq!(world.refused("v4", open_action(task, "v4", &rows, 0)), MarketError::NoScores);
    world.act("v1", open_action(task, "v1", &rows, 0));
    assert_eq!(
        world.refused("v1", open_action(task, "v1", &rows, 0)),
        MarketError::RowAlreadyOpen { row: 0 }
    );
    // Another judge's rows, copied under one's own name, do not open.
    let other = vec![row("9000 9000 9000 9000"), row("1 1 1 1")];
    assert_eq!(world.refused("v2", open_action(task, "v2", &other, 1)), MarketError::NotTheScores);
}

#[test]
fn rows_of_the_wrong_shape_do_not_open() {
    let (mut world, task, rows) = sealing();
    world.seal(task, &JUDGES.map(|judge| (judge, rows.clone())));
    let open = |row: u32, bytes: Vec<u8>| Action::ScoreOpen {
        task,
        row,
        bytes: ByteBuf::from(bytes),
        path: MerklePath { index: row, count: 2, siblings: Vec::new() },
        rows_root: MerkleRoot::from_bytes([0; 32]),
        salt: Salt::from_bytes([0; 32]),
    };
    assert_eq!(world.refused("v1", open(2, vec![0; 16])), MarketError::NoSuchRow { row: 2, rows: 2 });
    assert!(matches!(world.refused("v1", open(1, vec![0; 15])), MarketError::Row(_)));
    assert_eq!(world.refused("v2", open(1, vec![0; 16])), MarketError::NotTheScores);
}

#[test]
fn a_key_opens_once_and_not_late() {
    let (mut world, task, _) = sealing();
    assert_eq!(world.refused("r", Action::OpenKey { task, key: seal_key() }), MarketError::KeyAlreadyOpen);
    let task = world.open(spec(5));
    world.pass(world.task(task).deadlines.score_open);
    let late = Action::OpenKey { task, key: SealKey::from_bytes([1; 32]) };
    assert!(matches!(world.refused("x", late), MarketError::Late { .. }));
}
