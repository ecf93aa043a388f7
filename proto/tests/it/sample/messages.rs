//! Samples of everything that crosses a wire or is signed.

use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::ids::*;
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_proto::snapshot::{ChunkRoot, SnapshotChunk, SnapshotCut, SnapshotEntry};
use tiltyard_proto::task::{Payout, TaskKind, TaskSpec};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::*;
use tiltyard_proto::vote::{Proposal, SignedProposal, SignedVote, VoteKind};
use tiltyard_proto::wire::*;

use super::parts::*;
use super::{Case, case};

pub(crate) fn actions() -> Vec<Action> {
    let commit = |bond, stamp, reference| Action::Commit {
        task: task(),
        commitment: Commitment::from_bytes([0xc0; 32]),
        bond: MicroCredits::new(bond),
        stamp,
        reference,
    };
    vec![
        transfer(),
        Action::Faucet { to: key(11) },
        Action::Post(Box::new(spec(TaskKind::Instruction))),
        Action::Cancel { task: task() },
        Action::Accept { task: task() },
        commit(200_000, None, false),
        commit(0, Some(77), false),
        commit(0, None, true),
        Action::Reveal {
            task: task(),
            manifest: manifest().encode().into(),
            salt: salt(),
            recipe: recipe().encode().into(),
        },
        Action::Held { task: task(), entrants: vec![0b101].into() },
        Action::OpenKey { task: task(), key: seal_key() },
        Action::ScoreCommit { task: task(), root: ScoreCommitment::from_bytes([0xd0; 32]) },
        Action::ScoreOpen {
            task: task(),
            row: 1,
            bytes: vec![0, 0, 1, 0].into(),
            path: path(),
            rows_root: MerkleRoot::from_bytes([7; 32]),
            salt: salt(),
        },
        Action::Bond { stake: Stake::new(1_000) },
        Action::Unbond { stake: Stake::new(500) },
        Action::Unjail,
        Action::SetValidator {
            peer: vec![0, 36, 8, 1].into(),
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
            payout: key(20),
        },
        Action::Evidence(Box::new(double_vote())),
        Action::Evidence(Box::new(double_proposal())),
        Action::Revoke { validator: key(1), unbond: true },
    ]
}

fn signed_vote(kind: VoteKind, block: Option<BlockHash>) -> SignedVote {
    vote(kind, block).sign(&secret(1).signer(genesis_hash()))
}

fn proposal(block: u8, lock_round: Option<Round>) -> SignedProposal {
    let proposal = Proposal {
        height: Height::new(9),
        round: Round::new(2),
        block: BlockHash::from_bytes([block; 32]),
        lock_round,
        proposer: key(1),
    };
    proposal.sign(&secret(1).signer(genesis_hash()))
}

pub(crate) fn double_vote() -> Evidence {
    let block = Some(BlockHash::from_bytes([1; 32]));
    Evidence::votes(signed_vote(VoteKind::Prevote, None), signed_vote(VoteKind::Prevote, block))
}

pub(crate) fn double_proposal() -> Evidence {
    Evidence::proposals(proposal(2, None), proposal(1, None))
}

fn task_cases() -> Vec<Case> {
    let kinds = [
        ("instruction", TaskKind::Instruction),
        ("chat", TaskKind::Chat),
        ("context-question", TaskKind::ContextQuestion),
        ("plain-text", TaskKind::PlainText { window_tokens: 512 }),
        ("classification", TaskKind::Classification { labels: vec!["ham".to_owned(), "spam".to_owned()] }),
        ("dpo", TaskKind::Dpo { beta_milli: 100 }),
        ("grpo", TaskKind::Grpo { tokens_max: 64 }),
        ("diffusion", TaskKind::Diffusion { levels: 10 }),
    ];
    let mut cases: Vec<Case> =
        kinds.into_iter().map(|(name, kind)| case("task-spec", name, &spec(kind))).collect();
    let plain = TaskSpec {
        payout: Payout::WinnerTakesAll,
        reference: None,
        small_set: true,
        ..spec(TaskKind::Instruction)
    };
    cases.push(case("task-spec", "winner-takes-all", &plain));
    cases
}

fn checkpoint_cases() -> Vec<Case> {
    let full = Recipe {
        strategy: Strategy::External("trl 1.0".to_owned()),
        method: Method::Full,
        schedule: Schedule::Cosine,
        extra: Vec::new(),
        ..recipe()
    };
    let search = Recipe { strategy: Strategy::Search, schedule: Schedule::Constant, ..recipe() };
    let mut base = manifest();
    base.kind = BlobKind::Base;
    base.base = None;
    base.recipe = None;
    vec![
        case("recipe", "lora-fixed", &recipe()),
        case("recipe", "full-external", &full),
        case("recipe", "lora-search", &search),
        case("recipe", "lora-learned", &Recipe { strategy: Strategy::Learned, ..recipe() }),
        case("manifest", "adapter", &manifest()),
        case("manifest", "base", &base),
        case("merkle-path", "middle-of-three", &path()),
    ]
}

fn consensus_cases() -> Vec<Case> {
    let block = Some(BlockHash::from_bytes([1; 32]));
    let proof = VoteProof {
        votes: vec![signed_vote(VoteKind::Prevote, block)],
        height: Height::new(9),
        round: Round::new(2),
    };
    let frame = |message| ConsensusFrame { counter: 5, message };
    let change = |kind| ConsensusMessage::RoundChange { kind, proof: proof.clone() };
    vec![
        case("signed-vote", "prevote-block", &signed_vote(VoteKind::Prevote, block)),
        case("signed-vote", "prevote-nil", &signed_vote(VoteKind::Prevote, None)),
        case("signed-vote", "precommit-block", &signed_vote(VoteKind::Precommit, block)),
        case("signed-proposal", "fresh", &proposal(1, None)),
        case("signed-proposal", "locked", &proposal(1, Some(Round::new(1)))),
        case("evidence", "votes", &double_vote()),
        case("evidence", "proposals", &double_proposal()),
        case("consensus-frame", "vote", &frame(ConsensusMessage::Vote(signed_vote(VoteKind::Prevote, None)))),
        case("consensus-frame", "proposal", &frame(ConsensusMessage::Proposal(proposal(1, None)))),
        case(
            "consensus-frame",
            "polka",
            &frame(ConsensusMessage::Polka { block: BlockHash::from_bytes([1; 32]), proof: proof.clone() }),
        ),
        case("consensus-frame", "round-skip", &frame(change(VoteKind::Prevote))),
        case("consensus-frame", "round-full", &frame(change(VoteKind::Precommit))),
    ]
}

fn block_cases() -> Vec<Case> {
    let later = tiltyard_proto::block::Body { parent_certificate: Some(certificate()), transactions: vec![] };
    let payload = BodyFrame::payload(Height::new(1), Round::new(0), &block().hash());
    let body_frame = BodyFrame {
        counter: 0,
        block: block().encode().into(),
        round: Round::new(0),
        sender: key(1),
        signature: secret(1).signer(genesis_hash()).sign_body(&payload),
    };
    let frame = TransactionFrame { transactions: vec![signed(transfer()).encode().into()] };
    vec![
        case("genesis", "four-validators", &genesis()),
        case("params", "default-for-four", &genesis().params),
        case("validator-set", "four", &set()),
        case("header", "height-one", &header()),
        case("certificate", "three-of-four", &certificate()),
        case("body", "one-transfer", &body()),
        case("body", "empty-with-certificate", &later),
        case("block", "height-one", &block()),
        case("decided-block", "height-one", &decided()),
        case("transaction-frame", "one", &frame),
        case("body-frame", "height-one", &body_frame),
        case("block-frame", "height-one", &BlockFrame { header: header(), certificate: certificate() }),
    ]
}

fn sync_cases() -> Vec<Case> {
    let id = TransactionId::from_bytes([0x1d; 32]);
    let hash = BlockHash::from_bytes([1; 32]);
    let request = |name, value: SyncRequest| case("sync-request", name, &value);
    let response = |name, value: SyncResponse| case("sync-response", name, &value);
    let root = |byte| MerkleRoot::from_bytes([byte; 32]);
    let part = |depth, byte| ChunkRoot { depth, root: root(byte) };
    let cut = SnapshotCut { chunks: vec![part(1, 1), part(2, 2), part(2, 3)] };
    let entry = SnapshotEntry { key: vec![b'o'].into(), value: vec![0xa0].into() };
    let chunk = SnapshotChunk { entries: vec![entry] };
    vec![
        request("status", SyncRequest::Status),
        request("blocks", SyncRequest::Blocks { from: Height::new(5), max: 64 }),
        request("body", SyncRequest::Body { block: hash }),
        request("pending-ids", SyncRequest::PendingIds),
        request("pending", SyncRequest::Pending { ids: vec![id] }),
        request("light-block", SyncRequest::LightBlock { height: Height::new(9) }),
        request("snapshots", SyncRequest::Snapshots),
        request("snapshot-cut", SyncRequest::SnapshotCut { height: Height::new(9) }),
        request("snapshot-chunk", SyncRequest::SnapshotChunk { height: Height::new(9), index: 3 }),
        response("status", SyncResponse::Status { tip: Height::new(9), first: Height::new(1) }),
        response("blocks", SyncResponse::Blocks(vec![decided()])),
        response("body", SyncResponse::Body(Some(block().encode().into()))),
        response("no-body", SyncResponse::Body(None)),
        response("pending-ids", SyncResponse::PendingIds(vec![id])),
        response("pending", SyncResponse::Pending(vec![signed(transfer()).encode().into()])),
        response("light-block", SyncResponse::LightBlock(Some(Box::new(crate::chain::four(2).light(2))))),
        response("no-light-block", SyncResponse::LightBlock(None)),
        response("snapshots", SyncResponse::Snapshots(vec![Height::new(5), Height::new(9)])),
        response("snapshot-cut", SyncResponse::SnapshotCut(Some(cut))),
        response("no-snapshot-cut", SyncResponse::SnapshotCut(None)),
        response("snapshot-chunk", SyncResponse::SnapshotChunk(Some(chunk))),
        response("no-snapshot-chunk", SyncResponse::SnapshotChunk(None)),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = actions()
        .into_iter()
        .map(|action| {
            let name = match &action {
                Action::Commit { reference: true, .. } => "commit-reference",
                Action::Commit { stamp: Some(_), .. } => "commit-stamp",
                Action::Evidence(evidence) if matches!(**evidence, Evidence::Proposals(..)) => {
                    "evidence-proposals"
                }
                other => other.name(),
            };
            case("signed-transaction", name, &signed(action))
        })
        .collect();
    cases.extend(task_cases());
    cases.extend(checkpoint_cases());
    cases.extend(consensus_cases());
    cases.extend(block_cases());
    cases.extend(sync_cases());
    cases
}
