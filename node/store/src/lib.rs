//! What a node keeps on disk: block log, vote journal, proposed bodies, role memory, state index, blobs.
//!
//! The block log is the truth. The state index (sled) is made from it and made again whenever it is behind, damaged or
//! does not open. Every write is durable when its function returns. All of it is blocking and synchronous; nothing here
//! knows the network, consensus or a clock.
//!
//! - [`Store`]: the writer, and [`StoreReader`] for every other thread; [`memory`]: its twin in memory.
//! - [`log`], [`journal`], [`bodies`], [`roles`]: append-only files of one frame form, which tells a torn tail (cut off:
//!   nobody was told of it) from damage (set aside, reported, never dropped).
//! - [`blob`]: file sets by content.
//! - [`admin`]: looks at, repairs and compacts the folder of a node that does not run.
//! - [`snapshot`]: the whole state after one block, made beside the running node, served and fetched in chunks. A log may
//!   start at any height: the newest snapshot and the log after it are enough.

pub mod admin;
mod append;
mod aside;
pub mod blob;
pub mod bodies;
pub mod chain;
mod changes;
mod disk;
pub mod error;
mod frame;
pub mod journal;
pub mod lock;
pub mod log;
pub mod memory;
mod prune;
mod recover;
pub mod roles;
pub mod snapshot;
mod state;
mod store;

pub use append::Salvage;
pub use blob::{BlobError, BlobInfo, BlobLimits, BlobStore, Partial, Source};
pub use chain::{ChainRead, ChainStore, CommitRef, Damage, Recovered};
pub use error::StoreError;
pub use log::{LogDamage, LogReport, LogStats, MissingRun, ScanDepth};
pub use recover::RebuildReport;
pub use snapshot::{JoinProgress, SnapshotReader};
pub use state::{StateOptions, TransactionPlace};
pub use store::{StateView, Store, StoreOptions, StoreReader};
