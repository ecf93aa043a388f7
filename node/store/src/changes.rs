//! Headers that named another validator set for the next height, kept for ever: receipts are proven along them, and the
//! blocks that they come from may be pruned.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::{StateRead, query};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::receipt::SetChange;
use tiltyard_proto::units::Height;

use crate::append::AppendFile;
use crate::error::StoreError;

/// A header, a certificate and a set of at most 128 members.
const CHANGE_BYTES_MAX: u32 = 64 * 1024;

/// The changes as they are known now.
pub(crate) type Known = Arc<RwLock<Vec<SetChange>>>;

/// The open file.
#[derive(Debug)]
pub(crate) struct Changes {
    file: AppendFile,
    known: Known,
    /// Whether the file was there and whole: then only the newest blocks can be missing in it.
    pub(crate) is_whole: bool,
}

/// Returns the change that a block makes, if it makes one. `state` is the one after it.
pub(crate) fn change_of(
    decided: &DecidedBlock,
    state: &dyn StateRead,
) -> Result<Option<SetChange>, StoreError> {
    let header = &decided.block.header;
    if header.next_validators_hash == header.validators_hash {
        return Ok(None);
    }
    let next_set = query::set_at(state, header.height.next())
        .map_err(|error| StoreError::Index { fact: error.to_string() })?;
    Ok(Some(SetChange { header: header.clone(), certificate: decided.certificate.clone(), next_set }))
}

impl Changes {
    /// Name of the file.
    const NAME: &'static str = "set-changes";

    /// Opens or makes the file in `folder`.
    pub(crate) fn open(folder: &Path, network: &GenesisHash) -> Result<Self, StoreError> {
        let path = folder.join(Self::NAME);
        let was_there = path.exists();
        let (file, entries, salvage) =
            AppendFile::open_salvaging(&path, "set changes", network.as_bytes(), CHANGE_BYTES_MAX)?;
        let decode = |(_, payload): &(u64, Vec<u8>)| {
            codec::decode("set change", payload, CHANGE_BYTES_MAX as usize).ok()
        };
        let mut list: Vec<SetChange> = entries.iter().filter_map(decode).collect();
        list.sort_by_key(|change| change.header.height);
        list.dedup_by_key(|change| change.header.height);
        let is_whole = was_there && salvage.is_none();
        Ok(Self { file, known: Arc::new(RwLock::new(list)), is_whole })
    }

    pub(crate) fn known(&self) -> Known {
        Arc::clone(&self.known)
    }

    /// Returns the height of the newest change that is known.
    pub(crate) fn newest(&self) -> Height {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.last().map_or(Height::ZERO, |change| change.header.height)
    }

    /// Keeps a change; durable when this returns. One that is known already costs nothing.
    pub(crate) fn keep(&mut self, change: SetChange) -> Result<(), StoreError> {
        let height = change.header.height;
        if height <= self.newest() {
            return Ok(());
        }
        self.file.append(height.get(), &codec::encode(&change))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).push(change);
        Ok(())
    }
}
