//! Proof-of-work stamps: what an entrant without bond gives instead (SPEC.md, "Commit").

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_proto::hash::{context, derive};
use tiltyard_proto::ids::TaskId;

/// Returns the leading zero bits of the stamp's hash: work done for one task by one miner on one network.
#[must_use]
pub fn work_bits(genesis: &GenesisHash, task: &TaskId, miner: &PublicKey, stamp: u64) -> u32 {
    let digest = derive(
        context::STAMP,
        &[genesis.as_bytes(), task.as_bytes(), miner.as_bytes(), &stamp.to_be_bytes()],
    );
    let mut bits = 0u32;
    for byte in digest {
        bits = bits.saturating_add(byte.leading_zeros());
        if byte != 0 {
            break;
        }
    }
    bits
}

/// Says whether the stamp's hash has at least `bits` leading zero bits.
#[must_use]
pub fn is_valid(genesis: &GenesisHash, task: &TaskId, miner: &PublicKey, stamp: u64, bits: u8) -> bool {
    work_bits(genesis, task, miner, stamp) >= u32::from(bits)
}
