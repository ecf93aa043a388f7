//! Keeps a starting validator from contradicting what its key has said elsewhere: in a twin process that runs now, or in
//! its own former life whose journal is lost or older than what it said (a restored backup).
//!
//! A node whose journal ends where its log ends signs at once, unless it hears what it did not say, and so does every node
//! at genesis: a restart costs nothing, and a network does not wait for itself. Any other one listens first. Not protected: a backup of the very
//! height that the network still works on, until something is heard that this node did not say.

use tiltyard_consensus::{ConsensusInput, recorded_height};
use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::vote::{SignedVote, Vote, VoteKind};
use tiltyard_proto::wire::ConsensusMessage;

use crate::config::MachineError;
use crate::event::Event;
use crate::machine::Machine;

/// What hearing one's own key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Of the life before this one, and nothing new.
    Former,
    /// The former life said more than the journal tells: listen longer.
    Lost,
    /// The key signs somewhere else, now.
    Twin,
}

/// Whether a height may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It may.
    Sign,
    /// Not now: not before this height, or, with a time, when nothing moves for so many milliseconds.
    Wait { from: Height, quiet_ms: Option<u64> },
}

/// What a validator knows of what its key said before this run.
#[derive(Debug)]
pub(crate) struct Guard {
    wait: Blocks,
    /// First height that was not decided here when the node opened.
    opened_at: Height,
    /// Height of the journal that was read back.
    journal: Option<Height>,
    /// Newest height at which the key said what the journal does not tell.
    heard: Option<Height>,
    /// First height listened to.
    first: Option<Height>,
    /// Newest height listened to, and since when.
    newest: (Height, u64),
    /// First height that this run was free to sign.
    began: Option<Height>,
}

impl Guard {
    /// Makes the guard of a node that opens with `tip` decided and `journal` read back.
    pub(crate) fn new(wait: Blocks, tip: Height, journal: &[Vec<u8>]) -> Self {
        // A journal that cannot be read tells nothing; the start of its height says so, loudly.
        let journal = recorded_height(journal).unwrap_or_default();
        let newest = (Height::ZERO, 0);
        Self { wait, opened_at: tip.next(), journal, heard: None, first: None, newest, began: None }
    }

    /// Says whether the journal tells everything that the key may have said at `height` and before.
    fn knows(&self, height: Height) -> bool {
        if self.heard.is_some_and(|heard| heard >= height) {
            return false;
        }
        match self.journal {
            Some(journal) if journal == height => true,
            // Nothing is said at a height before its first journal entry: a journal that ends where the log ends tells
            // all, unless the key is heard where it says nothing.
            Some(journal) => {
                self.heard.is_none() && (journal == self.opened_at || journal.next() == self.opened_at)
            }
            None => self.heard.is_none() && self.opened_at == height && height == Height::ZERO.next(),
        }
    }

    /// Says whether this run has signed, or was free to.
    pub(crate) fn is_signing(&self) -> bool {
        self.began.is_some()
    }

    /// Asks for leave to sign `height`, the one after the newest decided. The node is level with its peers.
    pub(crate) fn ask(&mut self, height: Height, now_ms: u64, patience_ms: u64) -> Leave {
        if self.wait == Blocks::ZERO || self.began.is_some() || self.knows(height) {
            self.began.get_or_insert(height);
            return Leave::Sign;
        }
        let first = *self.first.get_or_insert(height);
        if self.newest.0 != height {
            self.newest = (height, now_ms);
        }
        let listened = first.plus(self.wait);
        let from = match self.heard {
            // Nothing up to the height after the last one that was heard.
            Some(heard) => listened.max(heard.next().next()),
            None => listened,
        };
        let quiet_since = now_ms.saturating_sub(self.newest.1);
        let quiet = self.heard.is_none() && quiet_since >= patience_ms;
        if height >= from || quiet {
            self.began = Some(height);
            return Leave::Sign;
        }
        let left = patience_ms.saturating_sub(quiet_since);
        Leave::Wait { from, quiet_ms: self.heard.is_none().then_some(left) }
    }

    /// Notes that a block was decided without this node. At genesis a node signs at once, because its network may begin
    /// with it; one that has the first block already began before, and what the key said there is not known.
    ///
    /// With `is_behind`, more blocks follow: it was not level when it began to listen, and begins again.
    pub(crate) fn fetched(&mut self, height: Height, is_behind: bool) {
        let was_at_genesis = self.journal.is_none() && self.opened_at == Height::ZERO.next();
        if was_at_genesis && self.wait > Blocks::ZERO && self.began == Some(height) {
            self.began = None;
        }
        if is_behind && self.began.is_none() {
            self.first = None;
        }
    }

    /// Notes that the key said something at `height` that this run did not say.
    pub(crate) fn hear(&mut self, height: Height) -> Heard {
        if self.wait == Blocks::ZERO {
            return Heard::Former;
        }
        let known = height < self.opened_at || self.journal.is_some_and(|journal| height <= journal);
        match self.began {
            Some(began) if height >= began => Heard::Twin,
            // Words of the former life that come late: nothing is signed at their heights any more.
            Some(_) => Heard::Former,
            None if known => Heard::Former,
            None => {
                self.heard = self.heard.max(Some(height));
                // The former life was over before this one listened; the height that ran then was the first or the next.
                let alive = self.first.is_some_and(|first| height > first.next());
                if alive { Heard::Twin } else { Heard::Lost }
            }
        }
    }
}

/// How long nothing may move before a validator without journal signs: two rounds, and every voter repeats itself.
pub(crate) fn patience_ms(params: &Params) -> u64 {
    let parts = [
        params.block_interval_ms,
        params.propose_timeout_ms,
        params.prevote_timeout_ms,
        params.precommit_timeout_ms,
        params.rebroadcast_ms,
    ];
    parts.into_iter().map(u64::from).fold(0, u64::saturating_add).saturating_mul(2)
}

impl<S: StateRead> Machine<S> {
    /// Looks for own sayings in a checked message that this run did not say.
    pub(crate) fn listen(&mut self, message: &ConsensusMessage) -> Result<(), MachineError> {
        let unsaid = match message {
            ConsensusMessage::Vote(vote) => self.unsaid(message, vote.vote.height),
            ConsensusMessage::Proposal(signed) => self.unsaid(message, signed.proposal.height),
            ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => proof
                .votes
                .iter()
                .find_map(|vote| self.unsaid(&ConsensusMessage::Vote(*vote), vote.vote.height)),
        };
        unsaid.map_or(Ok(()), |height| self.heard_itself(height))
    }

    /// Looks for an own signature under a decided block.
    pub(crate) fn listen_to_block(&mut self, decided: &DecidedBlock) -> Result<(), MachineError> {
        let certificate = &decided.certificate;
        let set = &self.chain.tip.next_set;
        let Some(agreement) = &self.agreement else { return Ok(()) };
        let validator = agreement.key();
        let signed = certificate.signed_by(set.members().len()).unwrap_or_default();
        let own = set.find(&validator).and_then(|(at, _)| {
            signed.iter().find(|(signer, _)| *signer == at).map(|(_, signature)| *signature)
        });
        let Some(signature) = own else { return Ok(()) };
        let (height, round, block) = (certificate.height, certificate.round, Some(certificate.block));
        let vote = Vote { kind: VoteKind::Precommit, height, round, block, validator };
        let vote = ConsensusMessage::Vote(SignedVote { vote, signature });
        self.unsaid(&vote, height).map_or(Ok(()), |height| self.heard_itself(height))
    }

    fn unsaid(&self, message: &ConsensusMessage, height: Height) -> Option<Height> {
        let agreement = self.agreement.as_ref()?;
        (!agreement.consensus.has_said(message)).then_some(height)
    }

    fn heard_itself(&mut self, height: Height) -> Result<(), MachineError> {
        let Some(agreement) = &mut self.agreement else { return Ok(()) };
        match agreement.guard.hear(height) {
            Heard::Former | Heard::Lost => Ok(()),
            Heard::Twin if self.halted => Ok(()),
            Heard::Twin => {
                let key = agreement.key();
                self.agree(ConsensusInput::Stop)?;
                self.stop_signing(format!(
                    "key {key} signed at height {height} what this node did not sign: it runs elsewhere too, or this \
                     folder is an older copy; stop the other one, then start this node again"
                ));
                Ok(())
            }
        }
    }

    /// Says once that this validator listens before it signs.
    pub(crate) fn tell_listening(&mut self, from: Height) {
        let Some(agreement) = &mut self.agreement else { return };
        if agreement.told_listening != Some(from) {
            agreement.told_listening = Some(from);
            self.notify(Event::Listening { height: self.chain.tip.height, from });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: u64 = 1_000;

    fn height(value: u64) -> Height {
        Height::new(value)
    }

    /// A guard that opened at `tip` with a journal of a height.
    fn guard(tip: u64, journal: Option<u64>) -> Guard {
        let mut guard = Guard::new(Blocks::new(2), height(tip), &[]);
        guard.journal = journal.map(height);
        guard
    }

    fn waits(from: u64, quiet_ms: Option<u64>) -> Leave {
        Leave::Wait { from: height(from), quiet_ms }
    }

    #[test]
    fn genesis_and_an_intact_journal_sign_at_once() {
        assert_eq!(guard(0, None).ask(height(1), 0, QUIET), Leave::Sign);
        assert_eq!(guard(9, Some(10)).ask(height(10), 0, QUIET), Leave::Sign, "in the middle of a height");
        assert_eq!(
            guard(9, Some(10)).ask(height(50), 0, QUIET),
            Leave::Sign,
            "it was down and said nothing since"
        );
        assert_eq!(guard(9, Some(9)).ask(height(10), 0, QUIET), Leave::Sign, "nothing was said of 10");
        assert_eq!(
            guard(8, Some(10)).ask(height(10), 0, QUIET),
            Leave::Sign,
            "its log lost a block, not its journal"
        );
    }

    #[test]
    fn a_wiped_or_older_folder_listens_for_two_heights() {
        for (tip, journal) in [(0, None), (9, None), (9, Some(7)), (9, Some(12))] {
            let mut guard = guard(tip, journal);
            assert_eq!(guard.ask(height(50), 0, QUIET), waits(52, Some(QUIET)), "{tip} {journal:?}");
            assert_eq!(guard.ask(height(51), 100, QUIET), waits(52, Some(QUIET)));
            assert_eq!(guard.ask(height(51), 300, QUIET), waits(52, Some(QUIET - 200)));
            assert_eq!(guard.ask(height(52), 400, QUIET), Leave::Sign);
        }
    }

    #[test]
    fn a_wiped_folder_that_met_nobody_at_genesis_listens_once_it_is_given_the_first_block() {
        let mut wiped = guard(0, None);
        assert_eq!(wiped.ask(height(1), 0, QUIET), Leave::Sign, "it may be the first of its network");
        wiped.fetched(height(1), false);
        assert_eq!(wiped.hear(height(1)), Heard::Lost, "its former life's signature under the first block");
        assert_eq!(wiped.ask(height(2), 0, QUIET), waits(4, None));
        assert_eq!(wiped.ask(height(4), 0, QUIET), Leave::Sign);
        let mut young = guard(0, None);
        assert_eq!(young.ask(height(1), 0, QUIET), Leave::Sign);
        young.fetched(height(2), false);
        assert_eq!(young.ask(height(3), 0, QUIET), Leave::Sign, "it took part in the first block");
    }

    #[test]
    fn who_listened_among_liars_at_an_old_height_takes_its_former_signatures_for_no_twin() {
        let mut guard = guard(1, None);
        assert_eq!(guard.ask(height(2), 0, QUIET), waits(4, Some(QUIET)), "it was told that it is level");
        guard.fetched(height(3), true);
        assert_eq!(guard.hear(height(5)), Heard::Lost, "under a block that was fetched");
        guard.fetched(height(28), false);
        assert_eq!(guard.ask(height(29), 0, QUIET), waits(31, None));
        assert_eq!(guard.hear(height(31)), Heard::Twin, "signed while it listens");
    }

    #[test]
    fn a_network_that_lost_all_its_journals_starts_when_it_has_been_quiet() {
        let mut guard = guard(9, None);
        assert_eq!(guard.ask(height(10), 5_000, QUIET), waits(12, Some(QUIET)));
        assert_eq!(guard.ask(height(10), 5_999, QUIET), waits(12, Some(1)));
        assert_eq!(guard.ask(height(10), 6_000, QUIET), Leave::Sign);
    }

    #[test]
    fn nothing_is_signed_up_to_one_height_after_the_last_one_heard() {
        let mut guard = guard(9, None);
        assert_eq!(guard.hear(height(48)), Heard::Lost, "under a block that was fetched");
        assert_eq!(guard.ask(height(49), 0, QUIET), waits(51, None), "and no quiet time ends it");
        assert_eq!(guard.hear(height(50)), Heard::Lost, "still the former life's words");
        assert_eq!(guard.ask(height(50), 9_000, QUIET), waits(52, None));
        assert_eq!(guard.ask(height(51), 9_000, QUIET), waits(52, None));
        assert_eq!(guard.ask(height(52), 9_000, QUIET), Leave::Sign);
    }

    #[test]
    fn a_backup_whose_journal_fits_its_log_is_known_by_what_it_is_heard_to_have_said() {
        let mut guard = guard(9, Some(10));
        assert_eq!(guard.hear(height(10)), Heard::Former, "the journal tells of it");
        assert_eq!(guard.hear(height(30)), Heard::Lost, "under a block that was fetched");
        assert_eq!(guard.ask(height(50), 0, QUIET), waits(52, None));
        assert_eq!(guard.ask(height(52), 0, QUIET), Leave::Sign);
    }

    #[test]
    fn a_key_that_goes_on_signing_is_a_twin() {
        let mut listening = guard(9, None);
        listening.ask(height(49), 0, QUIET);
        assert_eq!(listening.hear(height(51)), Heard::Twin);
        let mut signing = guard(9, Some(10));
        signing.ask(height(10), 0, QUIET);
        assert_eq!(signing.hear(height(9)), Heard::Former);
        assert_eq!(
            signing.hear(height(10)),
            Heard::Twin,
            "a vote of the running height that its journal lacks"
        );
    }

    #[test]
    fn an_echo_of_the_former_life_is_no_twin() {
        let mut guard = guard(9, Some(10));
        guard.ask(height(12), 0, QUIET);
        assert_eq!(guard.hear(height(10)), Heard::Former, "its height is decided");
        assert_eq!(guard.hear(height(12)), Heard::Twin);
    }

    #[test]
    fn what_the_journal_tells_is_no_news() {
        let mut guard = guard(9, Some(10));
        assert_eq!(guard.hear(height(10)), Heard::Former, "its own vote, before the replay");
        assert_eq!(guard.ask(height(10), 0, QUIET), Leave::Sign);
    }
}
