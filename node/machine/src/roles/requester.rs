//! The requester's part after posting: keep the key, open it when it is due, serve the data until then.

use std::collections::BTreeSet;

use tiltyard_ledger::ReadError;
use tiltyard_proto::ids::{BlobRoot, SealKey, TaskId};
use tiltyard_proto::state::{Phase, TaskRecord};
use tiltyard_proto::transaction::Action;

use super::{Duty, Saved, Turn, View, Who, entry_key};
use crate::io::{Audience, Effect};

const KEY: &[u8] = b"key/";
const POSTED: &[u8] = b"posted/";

/// Opens kept keys.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    served: BTreeSet<TaskId>,
}

/// Returns the sealed sets whose keys are kept.
pub(crate) fn kept(saved: &Saved) -> Vec<BlobRoot> {
    saved
        .with_prefix(KEY)
        .into_iter()
        .filter_map(|(key, _)| id_of(KEY, &key))
        .map(BlobRoot::from_bytes)
        .collect()
}

fn id_of(kind: &[u8], key: &[u8]) -> Option<[u8; 32]> {
    key.strip_prefix(kind)?.try_into().ok()
}

impl Requester {
    pub(crate) fn keep(&mut self, ciphertext: BlobRoot, key: SealKey, turn: &mut Turn<'_>) {
        turn.saved.put(entry_key(KEY, ciphertext.as_bytes()), key.as_bytes().to_vec(), turn.out);
    }

    pub(crate) fn on_task(
        &mut self,
        _view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let ciphertext = record.spec.evaluation.ciphertext.root;
        let Some(key) = turn
            .saved
            .get(&entry_key(KEY, ciphertext.as_bytes()))
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        else {
            return Ok(());
        };
        if self.served.insert(*task) {
            for root in [record.spec.base.root, record.spec.training.root, ciphertext] {
                turn.effect(Effect::Serve { root, audience: Audience::Public });
            }
        }
        // Remembered so that the key can be forgotten once the task is over, not before it was seen.
        turn.saved.put(entry_key(POSTED, task.as_bytes()), ciphertext.as_bytes().to_vec(), turn.out);
        if record.phase == Phase::KeyOpening && record.key.is_none() {
            let action = Action::OpenKey { task: *task, key: SealKey::from_bytes(key) };
            turn.submit(Who::Account, *task, Duty::OpenKey, action);
        }
        Ok(())
    }

    pub(crate) fn on_live(
        &mut self,
        _view: &View<'_>,
        live: &[TaskId],
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        for (entry, ciphertext) in turn.saved.with_prefix(POSTED) {
            let over = id_of(POSTED, &entry)
                .is_some_and(|task| live.binary_search(&TaskId::from_bytes(task)).is_err());
            if over {
                turn.saved.remove(&[KEY, &ciphertext].concat(), turn.out);
                turn.saved.remove(&entry, turn.out);
            }
        }
        Ok(())
    }
}
