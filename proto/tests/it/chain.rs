//! Small signed chains, with set changes where a test wants them.

use tiltyard_proto::block::Header;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::light::{LightBlock, LightOptions, Trusted};
use tiltyard_proto::units::{Height, UnixMillis};

use crate::sample::{certify, genesis, header, secret, set_of, validators};

/// Milliseconds between two blocks.
pub(crate) const PACE_MS: u64 = 1_000;

/// What tests grant a light client: an hour of trust, five seconds of drift, ten seconds of age.
pub(crate) const OPTIONS: LightOptions =
    LightOptions { trust_period_ms: 3_600_000, clock_drift_ms: 5_000, stale_after_ms: 10_000 };

/// A chain from the sample genesis; block `i` has height `i + 1`.
pub(crate) struct Chain {
    pub(crate) genesis: Genesis,
    pub(crate) blocks: Vec<LightBlock>,
    /// Secrets of the set that decides the next block.
    pub(crate) next: Vec<SecretKey>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { genesis: genesis(), blocks: Vec::new(), next: validators() }
    }

    /// Appends a block that announces the set of `seeds` for the next height, if given.
    pub(crate) fn grow(&mut self, seeds: Option<&[u8]>, edit: impl FnOnce(&mut Header)) {
        let previous = self.blocks.last().map(|block| &block.header);
        let height = previous.map_or(Height::new(1), |header| header.height.next());
        let secrets = std::mem::take(&mut self.next);
        self.next = match seeds {
            Some(seeds) => sorted(seeds),
            None => secrets.iter().map(|s| SecretKey::from_seed(&s.seed())).collect(),
        };
        let mut header = Header {
            height,
            time: UnixMillis::new(self.genesis.time.get() + height.get() * PACE_MS),
            parent: previous.map_or(self.genesis.block_hash(), Header::hash),
            validators_hash: set_of(&secrets, 1_000).hash(),
            next_validators_hash: set_of(&self.next, 1_000).hash(),
            ..header()
        };
        edit(&mut header);
        let everyone: Vec<usize> = (0..secrets.len()).collect();
        self.blocks.push(LightBlock {
            certificate: certify(&header, 0, &secrets, &everyone),
            set: set_of(&secrets, 1_000),
            next_set: set_of(&self.next, 1_000),
            header,
        });
    }

    pub(crate) fn light(&self, height: u64) -> LightBlock {
        self.blocks[usize::try_from(height).expect("small") - 1].clone()
    }

    pub(crate) fn trusted(&self) -> Trusted {
        Trusted::from_genesis(&self.genesis, &self.genesis.hash()).expect("the sample genesis is sound")
    }

    /// The time right after the block of `height`.
    pub(crate) fn now(&self, height: u64) -> UnixMillis {
        UnixMillis::new(self.genesis.time.get() + height * PACE_MS)
    }
}

/// A chain of `blocks` blocks by the four sample validators.
pub(crate) fn four(blocks: usize) -> Chain {
    let mut chain = Chain::new();
    (0..blocks).for_each(|_| chain.grow(None, |_| {}));
    chain
}

/// Secrets by seed, sorted by public key.
pub(crate) fn sorted(seeds: &[u8]) -> Vec<SecretKey> {
    let mut secrets: Vec<SecretKey> = seeds.iter().map(|n| secret(*n)).collect();
    secrets.sort_by_key(SecretKey::public);
    secrets
}

/// Signs a header again after a test changed it.
pub(crate) fn resign(block: &mut LightBlock, seeds: &[u8]) {
    let secrets = sorted(seeds);
    let everyone: Vec<usize> = (0..secrets.len()).collect();
    block.certificate = certify(&block.header, 0, &secrets, &everyone);
}

/// Leaves out all signers but the members at `keep`.
pub(crate) fn thin(certificate: &Certificate, header: &Header, seeds: &[u8], keep: &[usize]) -> Certificate {
    certify(header, certificate.round.get(), &sorted(seeds), keep)
}
