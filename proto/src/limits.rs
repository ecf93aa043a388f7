//! Hard limits, in force before anything is decoded. Genesis parameters may only be tighter.

/// Largest block (header and body), in bytes, whatever genesis says.
pub const BLOCK_BYTES_HARD_MAX: usize = 1 << 20;
/// Largest signed transaction, in bytes.
pub const TRANSACTION_BYTES_MAX: usize = 16 * 1024;
/// Largest gossip frame of transactions or consensus messages, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// What a body frame may have beyond the block, in bytes.
pub const BODY_FRAME_EXTRA_BYTES: usize = 4 * 1024;
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024;
/// Most files in a manifest.
pub const MANIFEST_FILES_MAX: usize = 32;
/// Largest file name, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 64;
/// Largest recipe, in bytes.
pub const RECIPE_BYTES_MAX: usize = 1024;
/// Most evaluation examples of a task.
pub const EXAMPLES_MAX: usize = 1024;
/// Fewest evaluation examples unless the post says otherwise.
pub const EXAMPLES_MIN: usize = 200;
/// Largest score row, in bytes.
pub const ROW_BYTES_MAX: usize = 4 * 1024;
/// Most entrants of a task, whatever genesis says.
pub const ENTRANTS_HARD_MAX: usize = 64;
/// Most validators.
pub const VALIDATORS_MAX: usize = 128;
/// Total stake stays below this many whole credits (the consensus core multiplies by 3).
pub const STAKE_TOTAL_MAX: u64 = 1 << 61;
/// Most addresses in a validator's record.
pub const ADDRESSES_MAX: usize = 8;
/// Largest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Largest peer id, in multihash bytes.
pub const PEER_BYTES_MAX: usize = 64;
/// Furthest `valid_until` may lie ahead, in blocks.
pub const VALID_UNTIL_BLOCKS_MAX: u64 = 1_000;
/// Largest title of a task, in bytes.
pub const TITLE_BYTES_MAX: usize = 128;
/// Most declared labels of a classification task.
pub const LABELS_MAX: usize = 64;
/// Largest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Largest genesis document, in bytes.
pub const GENESIS_BYTES_MAX: usize = 1 << 20;
/// Largest receipt, in bytes.
pub const RECEIPT_BYTES_MAX: usize = 1 << 20;
/// Largest commit certificate, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Largest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 1024;
/// Largest state value, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 128 * 1024;
/// Largest state key, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 128;
/// Most that the entries of a snapshot's chunk weigh together: the bytes of keys and values, and 16 an entry.
pub const SNAPSHOT_CHUNK_WEIGHT_MAX: usize = 512 * 1024;
/// Largest chunk of a snapshot, encoded, in bytes: what entries weigh covers their encoding.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = SNAPSHOT_CHUNK_WEIGHT_MAX + 64;
/// Most chunks of a snapshot.
pub const SNAPSHOT_CHUNKS_MAX: usize = 65_536;
/// Most snapshots that a node offers at a time.
pub const SNAPSHOTS_OFFERED_MAX: usize = 8;
