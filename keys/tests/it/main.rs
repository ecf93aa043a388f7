//! Integration tests of identities: keys, signatures, keystores, texts.

mod hex_texts;
mod keystores;
mod signatures;
