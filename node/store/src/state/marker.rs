//! Up to which block the index is true.

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::ChangeSet;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::{BlockHash, StateRoot};
use tiltyard_proto::units::Height;

const BYTES: usize = 8 + 32 + 32 + 32 + 8;
const CHECK_BYTES: usize = 32;
const CONTEXT: &str = "tiltyard/store/marker/v1";

/// Written after everything that it marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The network.
    pub(crate) genesis: GenesisHash,
    /// Last block applied; 0 for genesis.
    pub(crate) height: Height,
    /// Its hash; what stands for it at height 0.
    pub(crate) block: BlockHash,
    /// State after it.
    pub(crate) root: StateRoot,
    /// Last tree version written.
    pub(crate) tree_version: u64,
}

impl Marker {
    /// Bytes of its encoding.
    pub(super) const LEN: usize = BYTES + CHECK_BYTES;

    /// Returns the marker after a block that continues this one.
    pub(crate) fn after(&self, decided: &DecidedBlock, changes: &ChangeSet) -> Self {
        Self {
            genesis: self.genesis,
            height: decided.block.header.height,
            block: decided.block.hash(),
            root: changes.state_root,
            tree_version: changes.tree_version.unwrap_or(self.tree_version),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            &self.height.get().to_be_bytes(),
            self.genesis.as_bytes(),
            self.block.as_bytes(),
            self.root.as_bytes(),
            &self.tree_version.to_be_bytes(),
        ];
        let mut out = parts.concat();
        let check = blake3::derive_key(CONTEXT, &out);
        out.extend_from_slice(&check);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(BYTES)?;
        if check.len() != CHECK_BYTES || blake3::derive_key(CONTEXT, body) != check {
            return None;
        }
        let (height, rest) = body.split_first_chunk::<8>()?;
        let (genesis, rest) = rest.split_first_chunk::<32>()?;
        let (block, rest) = rest.split_first_chunk::<32>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        Some(Self {
            genesis: GenesisHash::from_bytes(*genesis),
            height: Height::new(u64::from_be_bytes(*height)),
            block: BlockHash::from_bytes(*block),
            root: StateRoot::from_bytes(*root),
            tree_version: u64::from_be_bytes(*rest.first_chunk::<8>()?),
        })
    }
}
