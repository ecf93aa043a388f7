//! `Held`: a committee member says whose bytes it holds. Several union; each must say something new.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{EntrantRecord, EntrantStage, Phase, StateKey};

use crate::book::Book;
use crate::error::{MarketError, Stop};

pub(super) fn apply(book: &mut Book<'_>, sender: PublicKey, task: TaskId, bitmap: &[u8]) -> Result<(), Stop> {
    let record = book.task_in(task, Phase::Holding, |record| record.deadlines.held)?;
    super::seat(book, task, sender)?;
    let entrants = record.entrants.len();
    let bit = |at: usize| bitmap.get(at / 8).is_some_and(|byte| (byte >> (at % 8)) & 1 == 1);
    let width = bitmap.len().saturating_mul(8);
    if bitmap.len() != entrants.div_ceil(8) || (entrants..width).any(bit) {
        return Err(MarketError::Bitmap { bytes: bitmap.len(), entrants }.into());
    }
    let mut news = false;
    for (at, miner) in record.entrants.iter().enumerate() {
        if !bit(at) {
            continue;
        }
        let key = StateKey::Entrant(task, *miner);
        let mut entry: EntrantRecord =
            book.get(key)?.ok_or(Stop::Broken("a listed entrant has no record"))?;
        let EntrantStage::Revealed(reveal) = &mut entry.stage else {
            return Err(Stop::Broken("an entrant is being held without reveal"));
        };
        if let Err(place) = reveal.held_by.binary_search(&sender) {
            reveal.held_by.insert(place, sender);
            news = true;
            book.put(key, entry)?;
        }
    }
    if news { Ok(()) } else { Err(MarketError::NothingNew.into()) }
}
