//! Names of things: 32-byte BLAKE3 hashes, each of its own type.

use tiltyard_keys::bytes_newtype;

bytes_newtype!(
    /// Names a task: the bytes of the id of the transaction that posted it.
    TaskId,
    32
);
bytes_newtype!(
    /// Names a transaction: hash of its exact signed bytes (the signature is not part of them).
    TransactionId,
    32
);
bytes_newtype!(
    /// Names a block: hash of its canonical header. Height 0 is named by the genesis hash.
    BlockHash,
    32
);
bytes_newtype!(
    /// Names a file set: BLAKE3 of its manifest's canonical bytes.
    BlobRoot,
    32
);
bytes_newtype!(
    /// BLAKE3 of one file's bytes.
    FileHash,
    32
);
bytes_newtype!(
    /// A miner's hiding, key-bound promise of one checkpoint.
    Commitment,
    32
);
bytes_newtype!(
    /// A validator's hiding, key-bound promise of its score rows.
    ScoreCommitment,
    32
);
bytes_newtype!(
    /// 32 random bytes that hide a commitment until it is opened.
    Salt,
    32
);
bytes_newtype!(
    /// Root of the authenticated state after a block.
    StateRoot,
    32
);
bytes_newtype!(
    /// Root of a binary Merkle tree (transactions of a block, rows of a validator).
    MerkleRoot,
    32
);
bytes_newtype!(
    /// Hash of a commit certificate's canonical bytes.
    CertificateHash,
    32
);
bytes_newtype!(
    /// Hash of a recipe's canonical bytes.
    RecipeHash,
    32
);
bytes_newtype!(
    /// Hash of the parameters in force.
    ParamsHash,
    32
);
bytes_newtype!(
    /// Hash of a validator set's canonical bytes.
    ValidatorsHash,
    32
);
bytes_newtype!(
    /// Key of a sealed evaluation set (XChaCha20-Poly1305); secret until opened on the ledger.
    SealKey,
    32
);
bytes_newtype!(
    /// Hash that commits to a [`SealKey`].
    SealKeyHash,
    32
);
