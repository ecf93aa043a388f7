//! Geometry and verification of pieces: bao trees over BLAKE3 (see the BLAKE3 paper §2 and the bao specification).

use std::fs::File;
use std::io::{self, BufReader, Read};

use bao_tree::io::BaoContentItem;
use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::{CreateOutboard, DecodeResponseIter, encode_ranges_validated};
use bao_tree::iter::BaoChunk;
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use tiltyard_proto::ids::FileHash;

/// Size of a piece, in bytes: the unit of requests and of the journal.
pub const PIECE_BYTES: u64 = 4 << 20;

const GROUP: BlockSize = BlockSize::from_chunk_log(4);
const CHUNK_BYTES: u64 = 1024;
const PAIR_BYTES: usize = 64;

/// Hashes of a file's inner nodes: 0.4 % of its size.
pub(crate) type Outboard = PreOrderOutboard<Vec<u8>>;

/// Returns the number of pieces of a file of `bytes`; an empty file has none.
#[must_use]
pub const fn piece_count(bytes: u64) -> u64 {
    bytes.div_ceil(PIECE_BYTES)
}

/// Returns the length of a piece, in bytes; 0 beyond the end.
#[must_use]
pub fn piece_bytes(file_bytes: u64, piece: u32) -> u64 {
    let start = u64::from(piece).saturating_mul(PIECE_BYTES);
    file_bytes.saturating_sub(start).min(PIECE_BYTES)
}

/// Says why a piece is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the piece does not belong to the file it was asked for")]
pub(crate) struct Corrupt;

/// Returns the length of a piece with its proof, in bytes.
pub(crate) fn encoded_bytes(file_bytes: u64, piece: u32) -> usize {
    let ranges = ranges(file_bytes, piece);
    tree(file_bytes)
        .ranges_pre_order_chunks_iter_ref(&ranges, 0)
        .map(|item| match item {
            BaoChunk::Parent { .. } => PAIR_BYTES,
            BaoChunk::Leaf { size, .. } => size,
        })
        .sum()
}

/// Hashes a file's inner nodes.
pub(crate) fn outboard(file: &File, bytes: u64) -> io::Result<Outboard> {
    let reader = BufReader::with_capacity(1 << 18, file.take(bytes));
    Outboard::create_sized(reader, bytes, GROUP)
}

/// Appends a piece with its proof; damage of the file is an error, not bad bytes.
pub(crate) fn encode(file: &File, outboard: &Outboard, piece: u32, out: &mut Vec<u8>) -> io::Result<()> {
    let ranges = ranges(outboard.tree.size(), piece);
    encode_ranges_validated(file, outboard, &ranges, out).map_err(io::Error::other)
}

/// Verifies a piece with its proof and returns its bytes.
pub(crate) fn decode(
    hash: &FileHash,
    file_bytes: u64,
    piece: u32,
    mut encoded: &[u8],
) -> Result<Vec<u8>, Corrupt> {
    let ranges = ranges(file_bytes, piece);
    let start = u64::from(piece).saturating_mul(PIECE_BYTES);
    let length = usize::try_from(piece_bytes(file_bytes, piece)).map_err(|_| Corrupt)?;
    let mut out = Vec::with_capacity(length);
    let root = blake3::Hash::from_bytes(*hash.as_bytes());
    for item in DecodeResponseIter::new(root, tree(file_bytes), &mut encoded, &ranges) {
        match item.map_err(|_| Corrupt)? {
            BaoContentItem::Leaf(leaf) if leaf.offset == start.saturating_add(out.len() as u64) => {
                out.extend_from_slice(&leaf.data);
            }
            BaoContentItem::Leaf(_) => return Err(Corrupt),
            BaoContentItem::Parent(_) => {}
        }
    }
    if encoded.is_empty() && out.len() == length { Ok(out) } else { Err(Corrupt) }
}

fn tree(bytes: u64) -> BaoTree {
    BaoTree::new(bytes, GROUP)
}

fn ranges(file_bytes: u64, piece: u32) -> ChunkRanges {
    let start = u64::from(piece).saturating_mul(PIECE_BYTES);
    let end = start.saturating_add(piece_bytes(file_bytes, piece));
    ChunkRanges::from(ChunkNum(start / CHUNK_BYTES)..ChunkNum(end.div_ceil(CHUNK_BYTES)))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
