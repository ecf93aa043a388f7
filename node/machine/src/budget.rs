//! How much useless work a peer may cause: what the state refuses is cheap, a signature that does not fit is not.
//!
//! A peer that forwards only what it took itself hardly ever pays. One that floods is not listened to until its budget
//! has grown again, so that junk costs a bounded share of the machine's time whatever its rate.

use std::collections::BTreeMap;

use tiltyard_proto::wire::Peer;

/// Price of a transaction that the state or the mempool refuses: about one read.
pub(crate) const REFUSED: u32 = 1;
/// Price of a signature that does not fit.
pub(crate) const FORGED: u32 = 100;
/// Most that a peer can have.
const FULL: i64 = 2_000;
/// Grows back so much a second.
const PER_SECOND: i64 = 500;
/// Peers remembered; a shell holds fewer connections.
const PEERS_MAX: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Purse {
    /// Below zero after work that cost more than was there.
    left: i64,
    /// When it was last filled.
    since_ms: u64,
}

/// Budgets by peer. A peer that is not listed has a full one.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    purses: BTreeMap<Peer, Purse>,
}

impl Budgets {
    fn fill(&mut self, peer: &Peer, now_ms: u64) -> Option<&mut Purse> {
        let purse = self.purses.get_mut(peer)?;
        let waited_ms = i64::try_from(now_ms.saturating_sub(purse.since_ms)).unwrap_or(i64::MAX);
        let grown = waited_ms.saturating_mul(PER_SECOND) / 1_000;
        if grown > 0 {
            *purse = Purse { left: purse.left.saturating_add(grown).min(FULL), since_ms: now_ms };
        }
        Some(purse)
    }

    /// Says whether a peer may cause more work.
    pub(crate) fn has_left(&mut self, peer: &Peer, now_ms: u64) -> bool {
        self.fill(peer, now_ms).is_none_or(|purse| purse.left > 0)
    }

    /// Takes the price of useless work.
    pub(crate) fn charge(&mut self, peer: &Peer, price: u32, now_ms: u64) {
        if !self.purses.contains_key(peer) {
            if self.purses.len() >= PEERS_MAX {
                let full = |purse: &Purse| now_ms.saturating_sub(purse.since_ms) > 10_000;
                self.purses.retain(|_, purse| !full(purse));
            }
            if self.purses.len() >= PEERS_MAX {
                self.purses.pop_first();
            }
            self.purses.insert(peer.clone(), Purse { left: FULL, since_ms: now_ms });
        }
        if let Some(purse) = self.fill(peer, now_ms) {
            purse.left = purse.left.saturating_sub(i64::from(price));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: u8) -> Peer {
        Peer::new(vec![name; 4])
    }

    #[test]
    fn a_flood_of_junk_is_looked_at_as_often_as_the_budget_says_and_no_more() {
        let mut budgets = Budgets::default();
        let mut looked = [0u32; 2];
        // Ten seconds of 10,000 a second from each: one sends what the state refuses, the other forges.
        for at in 0..100_000u64 {
            for (name, price) in [(0u8, REFUSED), (1, FORGED)] {
                if budgets.has_left(&peer(name), at / 10) {
                    looked[usize::from(name)] += 1;
                    budgets.charge(&peer(name), price, at / 10);
                }
            }
        }
        assert_eq!(looked[0], 2_000 + 500 * 10 - 1, "what it began with, and what grew back in 9.999 s");
        // 2,000 and 4,999 units at 100 each; the last look may overdraw.
        assert_eq!(looked[1], 70);
        assert!(budgets.has_left(&peer(7), 10_000), "others are not touched");
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let mut budgets = Budgets::default();
        for at in 0..5_000u64 {
            let name = at.to_be_bytes().to_vec();
            budgets.charge(&Peer::new(name), FORGED, at);
            assert!(budgets.purses.len() <= PEERS_MAX);
        }
    }
}
