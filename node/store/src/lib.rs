//! What a node keeps on disk: block log, vote journal, proposed bodies, role memory, state index, blobs.
//!
//! The block log is the truth. The state index (sled) is made from it and made again whenever it is behind, damaged or
//! does not open. Every write is durable when its function returns. All of it is blocking and synchronous; nothing here
//! knows the network, consensus or a clock.

mod append;
pub mod blob;
pub mod bodies;
mod disk;
pub mod error;
mod frame;
pub mod journal;
pub mod lock;
pub mod log;
pub mod roles;

pub use blob::{BlobError, BlobInfo, BlobLimits, BlobStore, Partial, Source};
pub use error::StoreError;
