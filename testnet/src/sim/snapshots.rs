//! State snapshots of simulated disks: made every few blocks, served or lied about, and made into a state again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{query, tree};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::hash::plain;
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut, SnapshotEntry, cut_finer};
use tiltyard_proto::units::Height;

use super::disk::Content;
use super::planted::Bug;

/// A snapshot is made after every block whose height this divides.
pub(crate) const EVERY: u64 = 10;
/// Snapshots that a disk keeps.
const KEPT: usize = 2;
/// Weight of a chunk: small, so that a small state has many.
const WEIGHT: usize = 400;

/// A snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) cut: SnapshotCut,
    pub(crate) chunks: Vec<SnapshotChunk>,
}

/// A snapshot that is fetched.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    pub(crate) decided: Rc<DecidedBlock>,
    pub(crate) cut: Rc<SnapshotCut>,
    pub(crate) chunks: BTreeMap<u32, Rc<Vec<u8>>>,
    /// The next start makes the state from it.
    pub(crate) is_whole: bool,
}

impl Content {
    /// Makes the snapshot of the newest block when one is due.
    pub(crate) fn make_snapshot(&mut self) {
        let tip = self.tip();
        if !self.makes_snapshots || !tip.is_multiple_of(EVERY) {
            return;
        }
        let entry = |(key, value): (&[u8], &[u8])| SnapshotEntry {
            key: key.to_vec().into(),
            value: value.to_vec().into(),
        };
        let mut entries: Vec<SnapshotEntry> = self.state.entries().map(entry).collect();
        entries.sort_by_key(|entry| plain(&entry.key));
        let mut chunks = Vec::new();
        let cut = cut_finer(WEIGHT, entries.into_iter().map(Ok::<_, Infallible>), &mut |_, chunk| {
            chunks.push(chunk);
            Ok(())
        });
        let Ok(cut) = cut;
        self.snapshots.insert(tip, Rc::new(Snapshot { cut, chunks }));
        while self.snapshots.len() > KEPT {
            self.snapshots.pop_first();
        }
    }

    /// Returns a decided header with the sets that judge it, where both are still known.
    pub(crate) fn light_block(&self, height: Height) -> Option<LightBlock> {
        let decided = self.block(height.get())?;
        Some(LightBlock {
            set: query::set_at(&self.state, height).ok()?,
            next_set: query::set_at(&self.state, height.next()).ok()?,
            header: decided.block.header.clone(),
            certificate: decided.certificate.clone(),
        })
    }

    /// Makes the state from a snapshot that is whole, as the store does when it is opened anew: every chunk is verified
    /// again, and the root computed again.
    pub(crate) fn adopt(&mut self, bug: Option<Bug>) -> Result<(), String> {
        let Some(joining) = self.joining.take_if(|joining| joining.is_whole) else {
            return Ok(());
        };
        let mut state = MemoryState::new();
        let parts = joining.cut.spans().into_iter().zip(&joining.cut.chunks);
        for (at, (span, part)) in (0u32..).zip(parts) {
            let bytes = joining.chunks.get(&at).ok_or_else(|| format!("chunk {at} is missing"))?;
            let chunk: SnapshotChunk = codec::decode("chunk", bytes, SNAPSHOT_CHUNK_BYTES_MAX)
                .map_err(|error| format!("chunk {at}: {error}"))?;
            chunk.verify(at, &span, &part.root).map_err(|error| format!("chunk {at}: {error}"))?;
            let pairs = chunk.entries.into_iter();
            let values: BTreeMap<_, _> =
                pairs.map(|entry| (entry.key.into_vec(), Some(entry.value.into_vec()))).collect();
            let is_last = at as usize + 1 == joining.cut.chunks.len();
            if values.is_empty() || (is_last && bug == Some(Bug::ShortJoin)) {
                continue;
            }
            let changes = tree::update(&state, values).map_err(|error| error.to_string())?;
            state.apply(&changes);
        }
        let root = tree::root(&state).map_err(|error| error.to_string())?;
        if root != joining.decided.block.header.state_root && bug != Some(Bug::ShortJoin) {
            return Err("the joined state has another root than its header".to_owned());
        }
        self.state_height = joining.decided.block.header.height.get();
        self.base = self.state_height.saturating_sub(1);
        self.state = state;
        self.blocks = vec![joining.decided];
        self.bodies.clear();
        Ok(())
    }
}
