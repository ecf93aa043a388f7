//! Follows headers, skipping where trust allows it.

use tiltyard_keys::GenesisHash;
use tiltyard_proto::genesis::{Genesis, GenesisError};
use tiltyard_proto::light::{
    LightBlock, LightError, LightOptions, Trusted, WitnessOutcome, compare_witness, halfway, verify_skipping,
};
use tiltyard_proto::receipt::{Checked, Entry, Fact, Receipt};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::{Height, UnixMillis};

use crate::error::FollowError;
use crate::source::Source;

/// Most headers asked for on the way to one height; bisection needs about 20 for a million.
const STEPS_MAX: u32 = 4_096;

/// A light client of one network.
#[derive(Debug)]
pub struct Client<S> {
    source: S,
    genesis: Genesis,
    options: LightOptions,
    trusted: Trusted,
    newest: Option<LightBlock>,
    headers: u32,
}

/// An entry with the height at which it was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The height.
    pub height: Height,
    /// What is proven.
    pub fact: Fact,
}

impl<S: Source> Client<S> {
    /// Starts from the genesis hash alone; the document comes from the node and must have that hash.
    ///
    /// # Errors
    /// [`FollowError`] when the node gives no genesis document of that hash.
    pub fn start(source: S, genesis: &GenesisHash, options: LightOptions) -> Result<Self, FollowError> {
        let document = source.genesis()?;
        let found = document.hash();
        if found != *genesis {
            return Err(GenesisError::Foreign { found, trusted: *genesis }.into());
        }
        let trusted = Trusted::from_genesis(&document, genesis)?;
        Ok(Self { source, genesis: document, options, trusted, newest: None, headers: 0 })
    }

    /// Returns what is trusted by now.
    #[must_use]
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Returns how many headers were asked for.
    #[must_use]
    pub fn headers_asked(&self) -> u32 {
        self.headers
    }

    /// Follows to the node's newest block, which must be fresh.
    ///
    /// # Errors
    /// [`FollowError`] when a header is refused or the tip is stale.
    pub fn follow(&mut self, now: UnixMillis) -> Result<&Trusted, FollowError> {
        let tip = self.ask(None)?;
        if tip.header.height > self.trusted.height() {
            self.reach(tip, now)?;
        }
        self.trusted.check_fresh(&self.options, now)?;
        Ok(&self.trusted)
    }

    /// Follows to `height`, which must not lie below what is trusted.
    ///
    /// # Errors
    /// [`FollowError`] when a header is refused.
    pub fn follow_to(&mut self, height: Height, now: UnixMillis) -> Result<&Trusted, FollowError> {
        if height != self.trusted.height() {
            let block = self.ask(Some(height))?;
            self.reach(block, now)?;
        }
        Ok(&self.trusted)
    }

    /// Asks a second node for the block that is trusted by now.
    ///
    /// # Errors
    /// [`FollowError::Fork`] when both are certified, [`FollowError::WitnessUnproven`] when the second proves nothing.
    pub fn cross_check(&self, witness: &impl Source, now: UnixMillis) -> Result<(), FollowError> {
        let Some(ours) = &self.newest else {
            return Ok(());
        };
        let height = ours.header.height;
        let theirs = witness.block(Some(height))?;
        let root = Trusted::from_genesis(&self.genesis, &self.genesis.hash())?;
        match compare_witness(&root, &ours.certificate, &ours.set, theirs, &self.options, now) {
            WitnessOutcome::Agrees => Ok(()),
            WitnessOutcome::Unproven(fact) => Err(FollowError::WitnessUnproven { height, fact }),
            WitnessOutcome::Fork { height, primary, witness, evidence } => {
                Err(FollowError::Fork { height, primary, witness, culprits: evidence.len() })
            }
        }
    }

    /// Proves a state entry, or its absence, at a fresh height.
    ///
    /// # Errors
    /// [`FollowError`] when the entry is not proven or the node's tip is stale.
    pub fn prove(&mut self, key: &StateKey, now: UnixMillis) -> Result<Proven, FollowError> {
        let receipt = self.source.state(key)?;
        match &receipt.entry {
            Entry::State { key: proven, .. } if proven == key => {}
            Entry::State { .. } | Entry::Transaction { .. } => return Err(FollowError::OtherEntry),
        }
        let height = receipt.header.height;
        if height < self.trusted.height() {
            return Err(FollowError::OtherHeight { asked: self.trusted.height(), got: height });
        }
        let fact = receipt.verify_entry(self.header_at(height, now)?)?;
        self.trusted.check_fresh(&self.options, now)?;
        Ok(Proven { height, fact })
    }

    /// Verifies a receipt from the genesis hash and against the chain that this client follows.
    ///
    /// The receipt must not be of a height below what is trusted already: verify receipts oldest first.
    ///
    /// # Errors
    /// [`FollowError`] naming what does not hold.
    pub fn verify_receipt(&mut self, receipt: &Receipt, now: UnixMillis) -> Result<Checked, FollowError> {
        let checked = receipt.verify(&self.genesis)?;
        let header = self.header_at(receipt.header.height, now)?;
        receipt.verify_entry(header)?;
        Ok(checked)
    }

    fn header_at(
        &mut self,
        height: Height,
        now: UnixMillis,
    ) -> Result<&tiltyard_proto::block::Header, FollowError> {
        self.follow_to(height, now)?;
        let got = self.trusted.height();
        self.trusted.header.as_ref().ok_or(FollowError::OtherHeight { asked: height, got })
    }

    fn ask(&mut self, height: Option<Height>) -> Result<LightBlock, FollowError> {
        self.headers = self.headers.saturating_add(1);
        let block = self.source.block(height)?;
        match height {
            Some(asked) if asked != block.header.height => {
                Err(FollowError::OtherHeight { asked, got: block.header.height })
            }
            Some(_) | None => Ok(block),
        }
    }

    /// Trusts `target`, by way of headers in between where too much of the set has changed.
    fn reach(&mut self, target: LightBlock, now: UnixMillis) -> Result<(), FollowError> {
        let goal = target.header.height;
        let mut stack = vec![target];
        for _ in 0..STEPS_MAX {
            let Some(next) = stack.last() else {
                return Ok(());
            };
            match verify_skipping(&self.trusted, next.clone(), &self.options, now) {
                Ok(trusted) => {
                    self.trusted = trusted;
                    self.newest = stack.pop();
                }
                Err(LightError::TooFarAhead { height, signed, total }) => {
                    let between = halfway(self.trusted.height(), height).ok_or(LightError::TooFarAhead {
                        height,
                        signed,
                        total,
                    })?;
                    let block = self.ask(Some(between))?;
                    stack.push(block);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(FollowError::TooManySteps { target: goal, steps: STEPS_MAX })
    }
}
