//! The simulated network as its genesis describes it, and the names of who is in it.

use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::units::{Blocks, MicroCredits, Ppm, Stake, UnixMillis};
use tiltyard_proto::wire::Peer;

use super::client::Clients;
use super::life::STAKE;
use super::market::{WINDOW_MAX, WINDOW_MIN, secret};
use super::plan::Plan;

/// The wall clock at virtual time 0.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// What every key holds at genesis, beside stake.
pub(crate) const GRANT: MicroCredits = MicroCredits::new(10_000_000_000);
/// How old evidence may be, in blocks.
const EVIDENCE_AGE: u64 = 20;

/// Purposes of keys.
pub(crate) const CONSENSUS: u8 = 1;
pub(crate) const ACCOUNT: u8 = 2;
pub(crate) const CLIENT: u8 = 3;

/// Names a node among peers.
pub(crate) fn peer(node: usize) -> Peer {
    Peer::new(vec![0, 1, node as u8])
}

/// Reads a node's number from its name.
pub(crate) fn node_of(peer: &Peer) -> Option<usize> {
    peer.as_bytes().get(2).map(|number| usize::from(*number))
}

/// Draws up the genesis of a plan's network.
pub(crate) fn genesis(plan: &Plan) -> Genesis {
    let nodes = plan.shape.nodes;
    let mut validators: Vec<GenesisValidator> = (0..nodes)
        .map(|node| GenesisValidator {
            key: secret(CONSENSUS, node).public(),
            stake: STAKE,
            peer: serde_bytes::ByteBuf::from(peer(node).as_bytes().to_vec()),
            addresses: vec![],
            payout: secret(ACCOUNT, node).public(),
        })
        .collect();
    validators.sort_by_key(|validator| validator.key);
    let accounts = (0..nodes).map(|node| secret(ACCOUNT, node).public());
    let clients = (0..Clients::COUNT).map(|client| secret(CLIENT, client).public());
    let validator_keys = (0..nodes).map(|node| secret(CONSENSUS, node).public());
    let mut grants: Vec<Grant> = accounts
        .chain(clients)
        .chain(validator_keys)
        .map(|account| Grant { account, amount: GRANT })
        .collect();
    grants.sort();
    let params = Params {
        block_interval_ms: 200,
        propose_timeout_ms: 300,
        prevote_timeout_ms: 150,
        precommit_timeout_ms: 150,
        rebroadcast_ms: 300,
        epoch: Blocks::new(10),
        window_min: Blocks::new(WINDOW_MIN),
        window_max: Blocks::new(WINDOW_MAX),
        stake_min: Stake::new(100),
        evidence_age: Blocks::new(EVIDENCE_AGE),
        // The shortest that is allowed: stake that left comes back within a run.
        unbonding: Blocks::new(7 * WINDOW_MAX + EVIDENCE_AGE + 1),
        jail: Blocks::new(8),
        absence_window: Blocks::new(if plan.absence { 12 } else { 100 }),
        absence_max: Ppm::new(500_000),
        ..Params::default_for(nodes as u64)
    };
    let time = UnixMillis::new(EPOCH_MS);
    Genesis { version: Genesis::VERSION, name: "simulated".to_owned(), time, params, validators, grants }
}
