//! Blobs: file sets moved in pieces that are verified on arrival (BLAKE3 trees, 16 KiB groups, 4 MiB pieces).

pub(crate) mod access;
pub(crate) mod fetch;
pub(crate) mod lane;
pub(crate) mod outboards;
pub(crate) mod plan;
pub(crate) mod serve;
pub(crate) mod tree;
pub(crate) mod wire;
