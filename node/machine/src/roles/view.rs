//! What the roles see: the state after the last block.

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_ledger::{ReadError, StateRead, query};
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{Account, EntrantRecord, EntrantVerdict, JudgeRecord, TaskRecord, Verdict};
use tiltyard_proto::units::Height;
use tiltyard_proto::validators::Validator;
use tiltyard_proto::wire::Peer;

/// The state after the last block of this node.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Height of that block.
    pub height: Height,
    /// The network.
    pub genesis: GenesisHash,
    /// The state.
    pub state: &'a dyn StateRead,
}

impl core::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "View(height {})", self.height)
    }
}

impl View<'_> {
    pub(crate) fn live_tasks(&self) -> Result<Vec<TaskId>, ReadError> {
        query::live_tasks(self.state)
    }

    pub(crate) fn task(&self, task: &TaskId) -> Result<Option<TaskRecord>, ReadError> {
        query::task(self.state, task)
    }

    pub(crate) fn entrant(
        &self,
        task: &TaskId,
        miner: &PublicKey,
    ) -> Result<Option<EntrantRecord>, ReadError> {
        query::entrant(self.state, task, miner)
    }

    pub(crate) fn committee(&self, task: &TaskId) -> Result<Vec<Validator>, ReadError> {
        query::committee(self.state, task)
    }

    pub(crate) fn judge(&self, task: &TaskId, validator: &PublicKey) -> Result<JudgeRecord, ReadError> {
        query::judge(self.state, task, validator)
    }

    pub(crate) fn verdict(&self, task: &TaskId) -> Result<Option<Verdict>, ReadError> {
        query::verdict(self.state, task)
    }

    pub(crate) fn entrant_verdict(
        &self,
        task: &TaskId,
        miner: &PublicKey,
    ) -> Result<Option<EntrantVerdict>, ReadError> {
        query::entrant_verdict(self.state, task, miner)
    }

    pub(crate) fn account(&self, key: &PublicKey) -> Result<Account, ReadError> {
        query::account(self.state, key)
    }

    /// Says whether `key` has stake and may vote.
    pub(crate) fn is_validator(&self, key: &PublicKey) -> Result<bool, ReadError> {
        Ok(query::set_at(self.state, self.height.next())?.find(key).is_some())
    }

    /// Returns the peers of a task's committee members, as their records name them.
    pub(crate) fn committee_peers(&self, task: &TaskId) -> Result<Vec<Peer>, ReadError> {
        let mut peers = Vec::new();
        for member in self.committee(task)? {
            if let Some(record) = query::validator(self.state, &member.key)?
                && !record.peer.is_empty()
            {
                peers.push(Peer::new(record.peer.to_vec()));
            }
        }
        Ok(peers)
    }
}
