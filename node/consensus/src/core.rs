//! Drives the core: one input at a time, outputs in the order in which they must happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use malachite_core::{Error, Input, LocallyProposedValue, Params, ProposedValue, State};
use malachite_types as mt;
use tiltyard_keys::{PublicKey, Signer, Verifier};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height, Round};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::ConsensusMessage;

use crate::context::{Address, At, Candidate, Context, CoreSet};
use crate::convert;
use crate::durable::Sealed;
use crate::effects::{Surroundings, own_saying};
use crate::io::{ConsensusInput, ConsensusOutput, ConsensusTimer, Judged, Timeouts, TimerKind};
use crate::journal::{Journal, message_input};
use crate::verify::{Authenticator, Refusal};

/// Heights and inputs per height that the core itself would buffer; the caller holds back future heights, so none.
const CORE_QUEUE: (usize, usize) = (4, 64);
/// Heights behind the running one whose own sayings are remembered.
const SAID_KEPT: Blocks = Blocks::new(20);

/// Agreement for one validator key.
pub struct Consensus {
    context: Context,
    state: Option<State<Context>>,
    around: Surroundings,
    halted: bool,
}

impl core::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Consensus")
            .field("height", &self.height())
            .field("round", &self.round())
            .field("halted", &self.halted)
            .finish_non_exhaustive()
    }
}

impl Consensus {
    /// Makes a consensus that has not started a height. `epoch` is the network's number of blocks in an epoch.
    #[must_use]
    pub fn new(signer: Signer, epoch: Blocks, timeouts: Timeouts, first_set: ValidatorSet) -> Self {
        let genesis = signer.genesis();
        Self {
            context: Context { genesis, epoch },
            state: None,
            around: Surroundings {
                authenticator: Authenticator::new(Verifier::new(genesis)),
                signer,
                timeouts,
                journal: Journal::default(),
                height: Height::ZERO,
                set: Arc::new(first_set),
                timers: BTreeSet::new(),
                outputs: Vec::new(),
                said: BTreeSet::new(),
                queue: VecDeque::new(),
                offered: BTreeMap::new(),
                deferred_build: None,
                replaying: false,
                decided: true,
            },
            halted: false,
        }
    }

    /// Returns the key that votes.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.around.me()
    }

    /// Returns the running height, or `None` before the first start and after a decision.
    #[must_use]
    pub fn height(&self) -> Option<Height> {
        (!self.around.decided).then_some(self.around.height)
    }

    /// Returns the running round.
    #[must_use]
    pub fn round(&self) -> Round {
        self.state.as_ref().and_then(|state| convert::round_of(state.round())).unwrap_or(Round::ZERO)
    }

    /// Says whether this node must not sign any more.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Returns who proposes in `round` of `height` under `set`.
    #[must_use]
    pub fn proposer(&self, set: &ValidatorSet, height: Height, round: Round) -> PublicKey {
        let epoch = self.context.epoch_of(height);
        set.proposer(&self.context.genesis, epoch, height, round).key
    }

    /// Checks a message before it may be handed in; verified signatures are remembered.
    ///
    /// # Errors
    /// [`Refusal`] naming the first thing wrong.
    pub fn check(&mut self, message: &ConsensusMessage, set: &ValidatorSet) -> Result<(), Refusal> {
        self.around.authenticator.check(message, set)
    }

    /// Says whether a vote or proposal of this node's own key was said by this node, as far as this run and the journal
    /// that it started from know. Anyone else's message counts as said by them.
    #[must_use]
    pub fn has_said(&self, message: &ConsensusMessage) -> bool {
        own_saying(message, &self.key()).is_none_or(|own| self.around.said.contains(&own))
    }

    /// Seals bytes that speak for this validator until everything recorded so far is durable.
    #[must_use]
    pub fn seal(&self, bytes: Vec<u8>) -> Sealed<Vec<u8>> {
        self.around.journal.seal(bytes)
    }

    /// Takes one input and says what must be done, in order. After a halt it says nothing.
    pub fn handle(&mut self, input: ConsensusInput) -> Vec<ConsensusOutput> {
        if self.halted {
            return Vec::new();
        }
        match input {
            ConsensusInput::Start { height, set, journal } => self.start(height, set, &journal),
            ConsensusInput::Message(message) => self.live(message_input(&message)),
            ConsensusInput::Judged(judged) => self.live(judged_input(&judged)),
            ConsensusInput::Propose { round, block } => self.live(Input::Propose(LocallyProposedValue::new(
                At(self.around.height),
                convert::core_round(round),
                Candidate(block),
            ))),
            ConsensusInput::Timer(timer) => self.timer(timer),
            ConsensusInput::Stop => {
                self.around.decided = true;
                self.around.cancel_all();
            }
            ConsensusInput::SayAgain => self.say_again(),
        }
        self.drain()
    }

    /// Feeds an input unless the height is decided: what comes after is of no use to the core.
    fn live(&mut self, input: Input<Context>) {
        if !self.around.decided && !self.halted {
            self.around.queue.push_back(input);
            self.pump();
        }
    }

    fn timer(&mut self, timer: ConsensusTimer) {
        if !self.around.timers.remove(&timer) {
            return;
        }
        let kind = match timer.kind {
            TimerKind::Propose => mt::TimeoutKind::Propose,
            TimerKind::Prevote => mt::TimeoutKind::Prevote,
            TimerKind::Precommit => mt::TimeoutKind::Precommit,
            TimerKind::Rebroadcast => mt::TimeoutKind::Rebroadcast,
        };
        self.live(Input::TimeoutElapsed(mt::Timeout::new(convert::core_round(timer.round), kind)));
    }

    fn start(&mut self, height: Height, set: ValidatorSet, journal: &[Vec<u8>]) {
        let entries = match self.around.journal.begin(height, journal) {
            Ok(entries) => entries,
            Err(error) => return self.halt(error.to_string()),
        };
        let core_set = CoreSet::new(set);
        let around = &mut self.around;
        around.cancel_all();
        around.queue.clear();
        around.height = height;
        around.said.retain(|(at, _)| at.plus(SAID_KEPT) >= height);
        around.set = Arc::clone(&core_set.set);
        around.decided = false;
        around.deferred_build = None;
        around.offered = offered(&entries, around.me());
        around.replaying = !entries.is_empty();
        let params = Params {
            address: Address(around.me()),
            threshold_params: mt::ThresholdParams::default(),
            value_payload: mt::ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let (heights, each) = CORE_QUEUE;
        let state = self.state.get_or_insert_with(|| {
            State::new(self.context.clone(), At(height), core_set.clone(), params, heights, each)
        });
        if around.replaying {
            state.index_wal_entries(entries.iter());
        }
        let disabled = mt::VoteExtensionPolicy::Disabled;
        self.around.queue.push_back(Input::StartHeight(At(height), core_set, false, None, disabled));
        self.pump();
        for entry in entries {
            self.live(entry);
        }
        self.end_replay();
    }

    fn end_replay(&mut self) {
        if self.halted {
            return;
        }
        if let Some(state) = &mut self.state {
            state.reset_entries_index();
        }
        self.around.replaying = false;
        self.around.journal.replayed();
        let wanted = self.around.deferred_build.take();
        if let Some(round) = wanted.filter(|round| *round == self.round() && !self.around.decided) {
            let height = self.around.height;
            self.around.outputs.push(ConsensusOutput::Build { height, round });
        }
    }

    fn pump(&mut self) {
        let Self { state: Some(state), around, .. } = self else {
            return;
        };
        let mut troubles = Vec::new();
        let mut divergence = None;
        while let Some(input) = around.queue.pop_front() {
            let result: Result<(), Error<Context>> = malachite_core::process!(
                input: input,
                state: &mut *state,
                metrics: &(),
                with: effect => around.effect(effect).inspect_err(|error| troubles.push(error.to_string()))
            );
            match result {
                Ok(()) => {}
                Err(error @ (Error::ReplayDivergence(..) | Error::WalCorrupted(_))) => {
                    divergence = Some(error.to_string());
                    break;
                }
                Err(error) => troubles.push(error.to_string()),
            }
        }
        self.around.outputs.extend(troubles.into_iter().map(|fact| ConsensusOutput::Trouble { fact }));
        if let Some(fact) = divergence {
            self.halt(fact);
        }
    }

    fn halt(&mut self, fact: String) {
        self.halted = true;
        self.around.queue.clear();
        self.around.outputs.clear();
        self.around.cancel_all();
        self.around.outputs.push(ConsensusOutput::Halted { fact });
    }

    fn say_again(&mut self) {
        let (Some(state), false) = (&self.state, self.around.decided) else {
            return;
        };
        let (height, round) = (state.height(), state.round());
        let mut messages = Vec::new();
        let me = Address(self.around.me());
        if let Some(full) = state.full_proposal_at_round_and_proposer(&height, round, &me) {
            let signed = convert::signed_proposal_of(&full.proposal);
            let (block, round) = (signed.proposal.block, signed.proposal.round);
            self.around.outputs.push(ConsensusOutput::Restream { block, round });
            messages.push(ConsensusMessage::Proposal(signed));
        }
        for vote in [&state.last_signed_prevote, &state.last_signed_precommit].into_iter().flatten() {
            messages.push(ConsensusMessage::Vote(convert::signed_vote_of(vote)));
        }
        if let Some(entered) = state.round_certificate() {
            messages.push(convert::round_change_of(&entered.certificate));
        }
        for message in messages {
            self.around.publish(message, true);
        }
    }

    /// Takes the outputs, what must be durable before anything leaves in front.
    fn drain(&mut self) -> Vec<ConsensusOutput> {
        let mut outputs = core::mem::take(&mut self.around.outputs);
        let leaves = outputs.iter().any(|output| match output {
            ConsensusOutput::Publish { .. } | ConsensusOutput::Restream { .. } => true,
            ConsensusOutput::Journal { .. }
            | ConsensusOutput::Build { .. }
            | ConsensusOutput::SetTimer { .. }
            | ConsensusOutput::CancelTimer(_)
            | ConsensusOutput::RoundStarted { .. }
            | ConsensusOutput::Decided(_)
            | ConsensusOutput::Trouble { .. }
            | ConsensusOutput::Halted { .. } => false,
        });
        if leaves && let Some((fresh, batch)) = self.around.journal.take() {
            outputs.insert(0, ConsensusOutput::Journal { fresh, batch });
        }
        outputs
    }
}

fn judged_input(judged: &Judged) -> Input<Context> {
    let value = ProposedValue {
        height: At(judged.height),
        round: convert::core_round(judged.round),
        valid_round: mt::Round::Nil,
        proposer: Address(judged.proposer),
        value: Candidate(judged.block),
        validity: mt::Validity::from_bool(judged.valid),
    };
    Input::ProposedValue(value, mt::ValueOrigin::Consensus)
}

/// Lists the blocks that `me` offered according to recorded inputs, by round.
fn offered(entries: &[Input<Context>], me: PublicKey) -> BTreeMap<Round, BlockHash> {
    let mut blocks = BTreeMap::new();
    for entry in entries {
        if let Input::ProposedValue(value, _) = entry
            && value.proposer.0 == me
            && let Some(round) = convert::round_of(value.round)
        {
            blocks.entry(round).or_insert(value.value.0);
        }
    }
    blocks
}
