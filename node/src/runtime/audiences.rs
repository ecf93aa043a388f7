//! Who may fetch which blob from this node.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tiltyard_machine::io::Audience;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::wire::Peer;

/// Audiences by blob; a blob that nobody spoke for is served to nobody. Clones share one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audiences(Arc<RwLock<BTreeMap<BlobRoot, Audience>>>);

impl Audiences {
    pub(crate) fn set(&self, root: BlobRoot, audience: Audience) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match audience {
            Audience::Nobody => table.remove(&root),
            Audience::Public | Audience::Peers(_) => table.insert(root, audience),
        };
    }

    pub(crate) fn may_fetch(&self, root: &BlobRoot, peer: &Peer) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match table.get(root) {
            Some(Audience::Public) => true,
            Some(Audience::Peers(peers)) => peers.contains(peer),
            Some(Audience::Nobody) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_goes_to_the_committee_alone_until_it_is_public() {
        let audiences = Audiences::default();
        let root = BlobRoot::from_bytes([1; 32]);
        let (judge, stranger) = (Peer::new(vec![1]), Peer::new(vec![2]));
        assert!(!audiences.may_fetch(&root, &judge));
        audiences.set(root, Audience::Peers(vec![judge.clone()]));
        assert!(audiences.may_fetch(&root, &judge));
        assert!(!audiences.may_fetch(&root, &stranger));
        audiences.set(root, Audience::Public);
        assert!(audiences.may_fetch(&root, &stranger));
        audiences.set(root, Audience::Nobody);
        assert!(!audiences.may_fetch(&root, &judge));
    }
}
