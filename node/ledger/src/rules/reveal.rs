//! `Reveal`: a miner opens its own commit, once, with manifest, salt and recipe.

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{FileHash, Salt, TaskId};
use tiltyard_proto::manifest::{BlobKind, Manifest};
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::state::{EntrantRecord, EntrantStage, Phase, Reveal, StateKey, TaskRecord};
use tiltyard_proto::task::commitment;

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;

pub(super) fn apply(
    book: &mut Book<'_>,
    miner: PublicKey,
    task: TaskId,
    manifest_bytes: &[u8],
    salt: &Salt,
    recipe_bytes: &[u8],
) -> Result<(), Stop> {
    let record = book.task_in(task, Phase::Revealing, |record| record.deadlines.reveal)?;
    let mut entry: EntrantRecord =
        book.get(StateKey::Entrant(task, miner))?.ok_or(MarketError::NoCommit { miner })?;
    match entry.stage {
        EntrantStage::Committed => {}
        EntrantStage::Revealed(_) | EntrantStage::Standing(_) => {
            return Err(MarketError::AlreadyRevealed.into());
        }
    }
    let manifest = Manifest::decode(manifest_bytes).map_err(MarketError::from)?;
    let bytes = manifest.total_bytes().map_err(MarketError::from)?;
    let opened = commitment(&book.genesis, &task, &miner, &manifest.root(), bytes, salt);
    if opened != entry.commitment {
        return Err(MarketError::NotTheCommit.into());
    }
    let weights = check_manifest(&manifest, bytes, &record)?;
    let recipe = Recipe::decode(recipe_bytes).map_err(MarketError::from)?;
    if manifest.recipe != Some(recipe.hash()) {
        return Err(MarketError::RecipeMismatch.into());
    }
    if entry.reference && record.spec.reference != Some(recipe.hash()) {
        return Err(MarketError::NotTheReference.into());
    }
    entry.stage = EntrantStage::Revealed(Reveal {
        manifest: manifest.root(),
        bytes,
        weights,
        recipe: ByteBuf::from(recipe_bytes.to_vec()),
        manifest_bytes: ByteBuf::from(manifest_bytes.to_vec()),
        held_by: Vec::new(),
    });
    book.put(StateKey::Entrant(task, miner), entry)?;
    book.event(LedgerEvent::Revealed { task, miner });
    Ok(())
}

/// Checks kind, base and size, and returns the hash of the file that holds the weights.
fn check_manifest(manifest: &Manifest, bytes: u64, record: &TaskRecord) -> Result<FileHash, MarketError> {
    let name = match manifest.kind {
        BlobKind::Adapter => "adapter_model.safetensors",
        BlobKind::Model => "model.safetensors",
        BlobKind::Base | BlobKind::Dataset | BlobKind::Evaluation => {
            return Err(MarketError::CheckpointKind);
        }
    };
    let weights = manifest.file(name).ok_or(MarketError::CheckpointKind)?;
    let needed = record.spec.base.root;
    if manifest.base != Some(needed) {
        return Err(MarketError::WrongBase { found: manifest.base, needed });
    }
    let max = record.spec.checkpoint_bytes_max;
    if bytes > max {
        return Err(MarketError::CheckpointTooLarge { bytes, max });
    }
    Ok(weights.hash)
}
