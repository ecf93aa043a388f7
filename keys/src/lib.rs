//! Identities of the market: keys, signatures, and one signing method per purpose.
//!
//! Everything a key ever signs carries a domain tag and the genesis hash, so a signature made for one purpose or one
//! network is noise for every other. This crate reads no file, no clock and no randomness: entropy is an argument.

#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

mod bytes;
mod keystore;
mod known;
mod public;
mod signer;

pub use bytes::HexError;
pub use keystore::{Entropy, Keystore, KeystoreError, Lock};
pub use public::{GenesisHash, KeyError, PublicKey, Signature};
pub use signer::{SecretKey, SignatureError, Signer, Verifier};

#[doc(hidden)]
pub mod __private {
    //! What the `bytes_newtype!` macro expands to; not an interface.
    pub use crate::bytes::{from_hex, to_hex, visit};
    pub use serde;
}
