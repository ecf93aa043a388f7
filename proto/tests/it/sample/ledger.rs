//! Samples of everything that the state holds, and of the proofs over it.

use tiltyard_proto::ids::*;
use tiltyard_proto::receipt::{Entry, Receipt, SetChange};
use tiltyard_proto::score::Fault;
use tiltyard_proto::state::*;
use tiltyard_proto::state_proof::StateProof;
use tiltyard_proto::task::{Deadlines, TaskKind};
use tiltyard_proto::units::*;
use tiltyard_proto::validators::Validator;

use super::parts::*;
use super::{Case, case};
use crate::chain;

fn keys() -> [(&'static str, StateKey); 18] {
    [
        ("account", StateKey::Account(key(10))),
        ("validator", StateKey::Validator(key(1))),
        ("validator-index", StateKey::ValidatorIndex),
        ("params", StateKey::Params),
        ("totals", StateKey::Totals),
        ("set", StateKey::Set(7)),
        ("task", StateKey::Task(task())),
        ("live-tasks", StateKey::LiveTasks),
        ("phase-queue", StateKey::PhaseQueue(Height::new(300))),
        ("phase-carry", StateKey::PhaseCarry),
        ("entrant", StateKey::Entrant(task(), key(12))),
        ("committee", StateKey::Committee(task())),
        ("judge", StateKey::Judge(task(), key(1))),
        ("opened-row", StateKey::OpenedRow(task(), key(1), 2)),
        ("verdict", StateKey::Verdict(task())),
        ("entrant-verdict", StateKey::EntrantVerdict(task(), key(12))),
        ("punished", StateKey::Punished(key(1), Height::new(9))),
        ("attendance", StateKey::Attendance(key(1))),
    ]
}

/// Every state key, with its name.
pub(crate) fn state_keys() -> Vec<(&'static str, StateKey)> {
    keys().to_vec()
}

fn account_cases() -> Vec<Case> {
    let account = Account { balance: MicroCredits::new(42), nonce: Nonce::new(3), faucet_at: Height::new(0) };
    let record = |standing| ValidatorRecord {
        stake: Stake::new(1_000),
        unbonding: vec![Unbonding { until: Height::new(99), amount: MicroCredits::new(5) }],
        standing,
        peer: vec![0, 36, 8, 1].into(),
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
        payout: key(20),
        duties: 2,
        payout_change: (standing == Standing::Active)
            .then_some(PayoutChange { to: key(21), from: Height::new(77) }),
    };
    let amount = MicroCredits::new;
    let totals = Totals {
        genesis: amount(36),
        subsidy: amount(0),
        balances: amount(1),
        escrow: amount(2),
        bonds: amount(3),
        stake: amount(4),
        unbonding: amount(5),
        pending_subsidy: amount(6),
        burned: amount(17),
        faucet: amount(2),
    };
    vec![
        case("account", "some", &account),
        case("validator-record", "active", &record(Standing::Active)),
        case("validator-record", "jailed", &record(Standing::Jailed { until: Height::new(700) })),
        case("validator-record", "tombstoned", &record(Standing::Tombstoned)),
        case("totals", "conserved", &totals),
        case("punished", "some", &Punished { burned: amount(7) }),
        case("attendance", "some", &Attendance { since: Height::new(101), missed: 4 }),
    ]
}

fn phases() -> Vec<(&'static str, Phase)> {
    let refunded = |name, cause| (name, Phase::Refunded(cause));
    vec![
        ("accepting", Phase::Accepting),
        ("committing", Phase::Committing),
        ("revealing", Phase::Revealing),
        ("holding", Phase::Holding),
        ("key-opening", Phase::KeyOpening),
        ("score-committing", Phase::ScoreCommitting),
        ("score-opening", Phase::ScoreOpening),
        ("settled", Phase::Settled),
        refunded("cancelled", RefundCause::Cancelled),
        refunded("not-accepted", RefundCause::NotAccepted),
        refunded("no-commits", RefundCause::NoCommits),
        refunded("no-entrants", RefundCause::NoEntrants),
        refunded("not-judged", RefundCause::NotJudged),
        refunded("base-loss-zero", RefundCause::BaseLossZero),
        refunded("key-absent", RefundCause::KeyDefault(KeyDefault::Absent)),
        refunded("key-early", RefundCause::KeyDefault(KeyDefault::Early)),
        refunded("key-wrong", RefundCause::KeyDefault(KeyDefault::Wrong)),
        refunded("evaluation-unusable", RefundCause::EvaluationUnusable),
        refunded("base-faulty", RefundCause::BaseFaulty(Fault::OutOfResources)),
    ]
}

fn task_cases() -> Vec<Case> {
    let spec = spec(TaskKind::Instruction);
    let params = genesis().params;
    let record = TaskRecord {
        requester: key(10),
        posted_by: TransactionId::from_bytes(*task().as_bytes()),
        posted_at: Height::new(20),
        deadlines: Deadlines::from_post(Height::new(20), &spec.windows),
        phase: Phase::KeyOpening,
        rules: TaskRules {
            burn: params.burn,
            judges: params.judges,
            places: params.places,
            duplicate_micro_nats: params.duplicate_micro_nats,
            duplicate_cells: params.duplicate_cells,
            judge_micro_nats: params.judge_micro_nats,
            judge_cells: params.judge_cells,
            keep: params.keep,
            stamp_bits: params.stamp_bits,
            eviction_stop: Blocks::new(13),
        },
        accepted: vec![key(1)],
        committee_stake: Stake::new(4_000),
        entrants: vec![key(12)],
        key: Some(seal_key()),
        key_default: Some(KeyDefault::Early),
        out: vec![key(13)],
        spec,
    };
    let reveal = Reveal {
        manifest: manifest().root(),
        bytes: 70_512,
        weights: FileHash::from_bytes([2; 32]),
        recipe: recipe().encode().into(),
        manifest_bytes: manifest().encode().into(),
        held_by: vec![key(1)],
    };
    let entrant = |stage| EntrantRecord {
        commitment: Commitment::from_bytes([0xc0; 32]),
        committed_at: Height::new(60),
        bond: MicroCredits::new(200_000),
        reference: false,
        stage,
    };
    let judge = JudgeRecord { committed: Some(ScoreCommitment::from_bytes([0xd0; 32])), opened: vec![0, 1] };
    let mut cases: Vec<Case> =
        phases().into_iter().map(|(name, phase)| case("phase", name, &phase)).collect();
    cases.extend([
        case("task-record", "key-opening", &record),
        case("entrant-record", "committed", &entrant(EntrantStage::Committed)),
        case("entrant-record", "revealed", &entrant(EntrantStage::Revealed(reveal.clone()))),
        case("entrant-record", "standing", &entrant(EntrantStage::Standing(reveal))),
        case("judge-record", "committed", &judge),
    ]);
    cases
}

fn reasons() -> Vec<(&'static str, Reason)> {
    let other = key(13);
    let (held, total) = (Stake::new(1_000), Stake::new(4_000));
    vec![
        ("ranked", Reason::Ranked { rank: 1 }),
        ("ranked-by-earlier-commit", Reason::RankedByEarlierCommit { rank: 1, leader: other }),
        (
            "tied-with-earlier",
            Reason::TiedWithEarlier { rank: 2, ahead: other, mean_gap: 700, needed: 1_000 },
        ),
        ("below-gain", Reason::BelowGain { gain: Ppm::new(-3), needed: Ppm::new(10_000) }),
        ("not-better-than-base", Reason::NotBetterThanBase { mean_gap: -5, needed: 1_000 }),
        ("duplicate", Reason::Duplicate { of: other, close: Ppm::new(995_000) }),
        ("faulty", Reason::Faulty { fault: Fault::NotFinite }),
        ("not-revealed", Reason::NotRevealed),
        ("not-held", Reason::NotHeld { held, total }),
        ("held-by-too-few", Reason::HeldByTooFew { held, total }),
        ("no-verdict", Reason::NoVerdict { cause: RefundCause::NotJudged }),
        ("reference", Reason::Reference),
    ]
}

/// An entrant's outcome, ranked first.
pub(crate) fn entrant_verdict() -> EntrantVerdict {
    EntrantVerdict {
        miner: key(12),
        committed_at: Height::new(60),
        manifest: Some(manifest().root()),
        mean: Some(2_100_000),
        gain: Some(Ppm::new(250_000)),
        reference_gain: Some(Ppm::new(20_000)),
        rank: Some(1),
        reason: Reason::Ranked { rank: 1 },
        reward: MicroCredits::new(611_510),
        bond: BondFate::Returned(MicroCredits::new(200_000)),
        recipe_hash: Some(recipe().hash()),
        recipe: Some(recipe().encode().into()),
    }
}

fn verdict_cases() -> Vec<Case> {
    let amount = MicroCredits::new;
    let verdict = Verdict {
        phase: Phase::Settled,
        settled_at: Height::new(240),
        requester: key(10),
        pot: amount(1_000_000),
        base_mean: Some(2_800_000),
        reference_mean: Some(2_150_000),
        examples: 200,
        entrants: vec![key(12)],
        paid_miners: amount(611_510),
        paid_judges: amount(100_000),
        returned: amount(238_490),
        burned: amount(50_000),
        rows_root: MerkleRoot::from_bytes([7; 32]),
        key: Some(seal_key()),
        judges: vec![(key(1), amount(100_000))],
        committee: vec![Validator { key: key(1), stake: Stake::new(1_000) }],
    };
    let mut cases: Vec<Case> =
        reasons().into_iter().map(|(name, reason)| case("reason", name, &reason)).collect();
    let burned = EntrantVerdict { bond: BondFate::Burned(amount(200_000)), rank: None, ..entrant_verdict() };
    cases.extend([
        case("verdict", "settled", &verdict),
        case("entrant-verdict", "ranked", &entrant_verdict()),
        case("entrant-verdict", "burned", &burned),
        case("entrant-verdict", "bondless", &EntrantVerdict { bond: BondFate::None, ..entrant_verdict() }),
    ]);
    cases
}

fn proof_cases() -> Vec<Case> {
    let decided = decided();
    let receipt = |entry, genesis_bytes| Receipt {
        version: 1,
        genesis: genesis_hash(),
        genesis_bytes,
        changes: Vec::new(),
        header: decided.block.header.clone(),
        certificate: decided.certificate.clone(),
        entry,
    };
    let change = SetChange {
        header: decided.block.header.clone(),
        certificate: decided.certificate.clone(),
        next_set: set(),
    };
    let member = Entry::State { key: StateKey::Params, value: Some(vec![1].into()), proof: proof() };
    let absent = Entry::State { key: StateKey::Params, value: None, proof: proof() };
    let inside = Entry::Transaction { bytes: vec![1].into(), path: path() };
    let mut changed = receipt(absent.clone(), None);
    changed.changes.push(change);
    let chain = chain::four(3);
    vec![
        case("state-proof", "leaf", &proof()),
        case("state-proof", "empty", &StateProof { leaf: None, siblings: Vec::new() }),
        case("receipt", "state", &receipt(member, Some(genesis().encode().into()))),
        case("receipt", "absence", &receipt(absent, None)),
        case("receipt", "transaction", &receipt(inside, None)),
        case("receipt", "after-set-change", &changed),
        case("light-block", "height-two", &chain.light(2)),
        case("trusted", "genesis", &chain.trusted()),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = keys().into_iter().map(|(name, key)| case("state-key", name, &key)).collect();
    cases.extend(account_cases());
    cases.extend(task_cases());
    cases.extend(verdict_cases());
    cases.extend(proof_cases());
    cases
}
