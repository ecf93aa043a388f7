//! Our types as the core wants to see them.

use core::fmt;
use std::sync::Arc;

use malachite_types as mt;
use tiltyard_keys::{GenesisHash, PublicKey, Signature};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height, Round, Stake};
use tiltyard_proto::validators::ValidatorSet;

/// A validator's address is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(pub(crate) PublicKey);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.short())
    }
}

impl mt::Address for Address {}

/// A height as the core counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At(pub(crate) Height);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl mt::Height for At {
    const ZERO: Self = Self(Height::ZERO);
    const INITIAL: Self = Self(Height::new(1));

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.plus(Blocks::new(n)))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(Height::new(n)).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0.get()
    }
}

/// The value that is agreed on: a block's hash, which is its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate(pub(crate) BlockHash);

impl mt::Value for Candidate {
    type Id = BlockHash;

    fn id(&self) -> BlockHash {
        self.0
    }
}

/// Blocks travel outside the core; it never sees a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPart;

impl mt::ProposalPart<Context> for NoPart {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

/// A proposal as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreProposal {
    pub(crate) height: At,
    pub(crate) round: mt::Round,
    pub(crate) value: Candidate,
    pub(crate) lock_round: mt::Round,
    pub(crate) proposer: Address,
}

impl mt::Proposal<Context> for CoreProposal {
    fn height(&self) -> At {
        self.height
    }

    fn round(&self) -> mt::Round {
        self.round
    }

    fn value(&self) -> &Candidate {
        &self.value
    }

    fn take_value(self) -> Candidate {
        self.value
    }

    fn pol_round(&self) -> mt::Round {
        self.lock_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// A vote as the core sees it; vote extensions are never used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreVote {
    pub(crate) kind: mt::VoteType,
    pub(crate) height: At,
    pub(crate) round: mt::Round,
    pub(crate) value: mt::NilOrVal<BlockHash>,
    pub(crate) validator: Address,
}

impl mt::Vote<Context> for CoreVote {
    fn height(&self) -> At {
        self.height
    }

    fn round(&self) -> mt::Round {
        self.round
    }

    fn value(&self) -> &mt::NilOrVal<BlockHash> {
        &self.value
    }

    fn take_value(self) -> mt::NilOrVal<BlockHash> {
        self.value
    }

    fn vote_type(&self) -> mt::VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.validator
    }

    fn extension(&self) -> Option<&mt::SignedExtension<Context>> {
        None
    }

    fn take_extension(&mut self) -> Option<mt::SignedExtension<Context>> {
        None
    }

    fn extend(self, _extension: mt::SignedExtension<Context>) -> Self {
        self
    }
}

/// A member of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    address: Address,
    stake: Stake,
}

impl mt::Validator<Context> for Member {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.address.0
    }

    fn voting_power(&self) -> mt::VotingPower {
        self.stake.get()
    }
}

/// A set with its members in the core's form; cloned into many effects, hence shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreSet {
    pub(crate) set: Arc<ValidatorSet>,
    members: Arc<[Member]>,
}

impl CoreSet {
    pub(crate) fn new(set: ValidatorSet) -> Self {
        let members = set
            .members()
            .iter()
            .map(|member| Member { address: Address(member.key), stake: member.stake })
            .collect();
        Self { set: Arc::new(set), members }
    }

    fn member(&self, key: &PublicKey) -> Option<&Member> {
        self.set.find(key).and_then(|(at, _)| self.members.get(at))
    }
}

impl mt::ValidatorSet<Context> for CoreSet {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn total_voting_power(&self) -> mt::VotingPower {
        self.set.total().get()
    }

    fn get_by_address(&self, address: &Address) -> Option<&Member> {
        self.member(&address.0)
    }

    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }
}

/// Signatures are ours; the core only carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme;

impl mt::SigningScheme for Scheme {
    type DecodingError = core::array::TryFromSliceError;
    type Signature = Signature;
    type PublicKey = PublicKey;
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signature, Self::DecodingError> {
        <[u8; 64]>::try_from(bytes).map(Signature::from_bytes)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.as_bytes().to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        <[u8; 32]>::try_from(bytes).map(PublicKey::from_bytes)
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }
}

/// What the core needs to know of a network: how proposers are drawn.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) genesis: GenesisHash,
    pub(crate) epoch: Blocks,
}

impl Context {
    pub(crate) fn epoch_of(&self, height: Height) -> u64 {
        height.get().saturating_sub(1).checked_div(self.epoch.get()).unwrap_or(0)
    }
}

impl mt::Context for Context {
    type Address = Address;
    type Height = At;
    type ProposalPart = NoPart;
    type Proposal = CoreProposal;
    type Validator = Member;
    type ValidatorSet = CoreSet;
    type Timeouts = mt::LinearTimeouts;
    type Value = Candidate;
    type Vote = CoreVote;
    type Extension = ();
    type SigningScheme = Scheme;

    fn select_proposer<'a>(&self, set: &'a CoreSet, height: At, round: mt::Round) -> &'a Member {
        let round = Round::new(round.as_u32().unwrap_or(0));
        let drawn = set.set.proposer(&self.genesis, self.epoch_of(height.0), height.0, round);
        set.member(&drawn.key).expect("the proposer is drawn from the members of this very set")
    }

    fn new_proposal(
        &self,
        height: At,
        round: mt::Round,
        value: Candidate,
        lock_round: mt::Round,
        proposer: Address,
    ) -> CoreProposal {
        CoreProposal { height, round, value, lock_round, proposer }
    }

    fn new_prevote(
        &self,
        height: At,
        round: mt::Round,
        value: mt::NilOrVal<BlockHash>,
        validator: Address,
    ) -> CoreVote {
        CoreVote { kind: mt::VoteType::Prevote, height, round, value, validator }
    }

    fn new_precommit(
        &self,
        height: At,
        round: mt::Round,
        value: mt::NilOrVal<BlockHash>,
        validator: Address,
    ) -> CoreVote {
        CoreVote { kind: mt::VoteType::Precommit, height, round, value, validator }
    }
}
