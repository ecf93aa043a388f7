//! A journal that contradicts the node, or is damaged, silences it.

use tiltyard_consensus::{
    ConsensusInput, ConsensusOutput, ConsensusTimer, Durable, Judged, TimerKind, recorded_height,
    recorded_values,
};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::vote::VoteKind;
use tiltyard_proto::wire::ConsensusMessage;

use crate::net::{EPOCH, GENESIS, fresh, secret, set};

const ONE: Height = Height::new(1);

fn proposer_of_round_0() -> usize {
    let set = set(&[1, 1, 1, 1]);
    let epoch = (ONE.get() - 1) / EPOCH.get();
    let key = set.proposer(&GENESIS, epoch, ONE, Round::ZERO).key;
    (0..4).find(|at| secret(*at).public() == key).unwrap()
}

fn start(journal: Vec<Vec<u8>>) -> ConsensusInput {
    ConsensusInput::Start { height: ONE, set: set(&[1, 1, 1, 1]), journal }
}

/// Lets the proposer offer a block and returns its outputs.
fn offered(block: BlockHash) -> (usize, Vec<ConsensusOutput>) {
    let at = proposer_of_round_0();
    let mut consensus = fresh(at, &set(&[1, 1, 1, 1]));
    let first = consensus.handle(start(vec![]));
    assert!(first.contains(&ConsensusOutput::Build { height: ONE, round: Round::ZERO }));
    (at, consensus.handle(ConsensusInput::Propose { round: Round::ZERO, block }))
}

fn judged(block: BlockHash, proposer: usize, valid: bool) -> Judged {
    Judged { block, height: ONE, round: Round::ZERO, proposer: secret(proposer).public(), valid }
}

fn batches(outputs: &[ConsensusOutput]) -> Vec<Vec<u8>> {
    outputs
        .iter()
        .filter_map(|output| match output {
            ConsensusOutput::Journal { batch, .. } => {
                let mut kept = Vec::new();
                let written = batch.perform(|bytes| {
                    kept = bytes.to_vec();
                    Ok::<(), core::convert::Infallible>(())
                });
                written.map(|_| kept).ok()
            }
            _ => None,
        })
        .collect()
}

/// Opens what is published, performing the journal writes on the way.
fn published(outputs: &[ConsensusOutput]) -> Vec<ConsensusMessage> {
    let mut written = Durable::at_start();
    let mut said = Vec::new();
    for output in outputs {
        match output {
            ConsensusOutput::Journal { batch, .. } => {
                let done = batch.perform(|_| Ok::<(), core::convert::Infallible>(()));
                written = done.unwrap_or_else(|never| match never {});
            }
            ConsensusOutput::Publish { message, .. } => {
                said.push(message.clone().open(&written).expect("journal before vote"));
            }
            _ => {}
        }
    }
    said
}

#[test]
fn the_journal_is_written_before_anything_signed_leaves() {
    let (_, outputs) = offered(BlockHash::from_bytes([1; 32]));
    let journal = outputs.iter().position(|o| matches!(o, ConsensusOutput::Journal { fresh: true, .. }));
    let leaves = outputs.iter().position(|o| matches!(o, ConsensusOutput::Publish { .. }));
    assert!(journal.unwrap() < leaves.unwrap());
    assert_eq!(published(&outputs).len(), 2, "a proposal and a prevote");
}

#[test]
fn nothing_signed_opens_before_its_batch_is_written() {
    let (_, outputs) = offered(BlockHash::from_bytes([1; 32]));
    let sealed = outputs.iter().find_map(|output| match output {
        ConsensusOutput::Publish { message, .. } => Some(message.clone()),
        _ => None,
    });
    let refused = sealed.unwrap().open(&Durable::at_start()).unwrap_err();
    assert_eq!((refused.needed, refused.written), (1, 0));
}

#[test]
fn a_journal_tells_its_height_and_what_its_key_said() {
    let block = BlockHash::from_bytes([1; 32]);
    let (at, outputs) = offered(block);
    assert_eq!(recorded_height(&[]), Ok(None));
    assert_eq!(recorded_height(&batches(&outputs)), Ok(Some(ONE)));
    let mut again = fresh(at, &set(&[1, 1, 1, 1]));
    let said = published(&outputs);
    assert!(!said.iter().any(|message| again.has_said(message)), "before the replay nothing is known");
    again.handle(start(batches(&outputs)));
    assert!(said.iter().all(|message| again.has_said(message)));
}

#[test]
fn a_restarted_proposer_says_the_same_again_without_being_asked_for_a_block() {
    let block = BlockHash::from_bytes([1; 32]);
    let (at, outputs) = offered(block);
    let values = recorded_values(ONE, &batches(&outputs)).unwrap();
    assert_eq!(values.iter().map(|value| (value.block, value.valid)).collect::<Vec<_>>(), [(block, true)]);
    let mut again = fresh(at, &set(&[1, 1, 1, 1]));
    let replayed = again.handle(start(batches(&outputs)));
    assert_eq!(published(&replayed), published(&outputs));
    assert!(!replayed.iter().any(|output| matches!(output, ConsensusOutput::Build { .. })));
    assert_eq!(batches(&replayed), Vec::<Vec<u8>>::new(), "nothing new to record");
}

#[test]
fn a_journal_of_another_height_is_of_no_effect() {
    let (at, outputs) = offered(BlockHash::from_bytes([1; 32]));
    let mut next = fresh(at, &set(&[1, 1, 1, 1]));
    let journal = batches(&outputs);
    let two = Height::new(2);
    let started = next.handle(ConsensusInput::Start { height: two, set: set(&[1, 1, 1, 1]), journal });
    assert_eq!(published(&started), Vec::<ConsensusMessage>::new());
    assert_eq!(recorded_values(two, &batches(&outputs)).unwrap(), []);
}

#[test]
fn a_damaged_journal_halts_for_good() {
    let (at, outputs) = offered(BlockHash::from_bytes([1; 32]));
    let mut journal = batches(&outputs);
    let last = journal[0].len() - 1;
    journal[0].truncate(last);
    let mut consensus = fresh(at, &set(&[1, 1, 1, 1]));
    let halted = consensus.handle(start(journal));
    assert!(matches!(halted.as_slice(), [ConsensusOutput::Halted { .. }]), "{halted:?}");
    assert!(consensus.is_halted());
    assert_eq!(consensus.handle(start(vec![])), []);
}

#[test]
fn a_journal_whose_own_prevote_does_not_follow_from_its_entries_halts_for_good() {
    let proposer = proposer_of_round_0();
    let (other, me) = ((proposer + 1) % 4, (proposer + 2) % 4);
    let block = BlockHash::from_bytes([3; 32]);
    let (_, outputs) = offered(block);
    // Another voter's journal: the proposal, a valid verdict, its prevote for the block.
    let mut voter = fresh(other, &set(&[1, 1, 1, 1]));
    voter.handle(start(vec![]));
    for message in published(&outputs) {
        voter.handle(ConsensusInput::Message(message.clone()));
    }
    let theirs = voter.handle(ConsensusInput::Judged(judged(block, proposer, true)));
    // This one's own journal: nothing came in time, a nil prevote.
    let mut late = fresh(me, &set(&[1, 1, 1, 1]));
    late.handle(start(vec![]));
    let timer = ConsensusTimer { height: ONE, kind: TimerKind::Propose, round: Round::ZERO };
    let mine = late.handle(ConsensusInput::Timer(timer));
    assert_eq!((batches(&theirs).len(), batches(&mine).len()), (1, 1));

    let mut consensus = fresh(me, &set(&[1, 1, 1, 1]));
    let replayed = consensus.handle(start([batches(&theirs), batches(&mine)].concat()));
    assert!(
        matches!(replayed.last(), Some(ConsensusOutput::Halted { .. })),
        "a prevote for the block would contradict the nil one that was sent: {replayed:?}"
    );
    assert_eq!(published(&replayed), Vec::<ConsensusMessage>::new());
    assert!(consensus.is_halted());
}

#[test]
fn an_invalid_block_gets_a_nil_prevote() {
    let proposer = proposer_of_round_0();
    let block = BlockHash::from_bytes([3; 32]);
    let (_, outputs) = offered(block);
    let voter = (proposer + 1) % 4;
    let mut consensus = fresh(voter, &set(&[1, 1, 1, 1]));
    consensus.handle(start(vec![]));
    for message in published(&outputs) {
        consensus.check(&message, &set(&[1, 1, 1, 1])).unwrap();
        consensus.handle(ConsensusInput::Message(message.clone()));
    }
    let said = consensus.handle(ConsensusInput::Judged(judged(block, proposer, false)));
    let votes = published(&said);
    let [ConsensusMessage::Vote(vote)] = votes.as_slice() else {
        panic!("{votes:?}");
    };
    assert_eq!((vote.vote.kind, vote.vote.block), (VoteKind::Prevote, None));
}
