//! `ScoreOpen`: a committee member opens one of its sealed score rows. Once a row.

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{MerkleRoot, Salt, TaskId};
use tiltyard_proto::merkle::MerklePath;
use tiltyard_proto::score::{Row, score_commitment};
use tiltyard_proto::state::{JudgeRecord, Phase, StateKey};

use crate::book::Book;
use crate::error::{MarketError, Stop};

/// One row with what proves that it was sealed.
pub(super) struct Opening<'a> {
    pub(super) row: u32,
    pub(super) bytes: &'a [u8],
    pub(super) path: &'a MerklePath,
    pub(super) rows_root: MerkleRoot,
    pub(super) salt: Salt,
}

pub(super) fn apply(
    book: &mut Book<'_>,
    sender: PublicKey,
    task: TaskId,
    opening: &Opening<'_>,
) -> Result<(), Stop> {
    let record = book.task_in(task, Phase::ScoreOpening, |record| record.deadlines.score_open)?;
    super::seat(book, task, sender)?;
    let judge_key = StateKey::Judge(task, sender);
    let mut judge: JudgeRecord = book.get(judge_key)?.unwrap_or_default();
    let sealed = judge.committed.ok_or(MarketError::NoScores)?;
    let row = opening.row;
    let rows = u32::try_from(record.entrants.len()).unwrap_or(u32::MAX).saturating_add(1);
    if row >= rows {
        return Err(MarketError::NoSuchRow { row, rows }.into());
    }
    let Err(place) = judge.opened.binary_search(&row) else {
        return Err(MarketError::RowAlreadyOpen { row }.into());
    };
    let examples = usize::try_from(record.spec.evaluation.examples).unwrap_or(usize::MAX);
    Row::from_bytes(opening.bytes, examples).map_err(MarketError::from)?;
    let proven = opening.path.index == row
        && opening.path.count == rows
        && opening.path.root_from(opening.bytes) == Some(opening.rows_root)
        && score_commitment(&book.genesis, &task, &sender, &opening.rows_root, &opening.salt) == sealed;
    if !proven {
        return Err(MarketError::NotTheScores.into());
    }
    judge.opened.insert(place, row);
    book.put(judge_key, judge)?;
    let row_key = StateKey::OpenedRow(task, sender, row);
    Ok(book.put(row_key, ByteBuf::from(opening.bytes.to_vec()))?)
}
