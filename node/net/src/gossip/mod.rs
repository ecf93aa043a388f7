//! Gossip: sizes, message ids, strict decoding and the scoring of peers.

pub(crate) mod decode;
pub(crate) mod score;
pub(crate) mod settings;

#[cfg(test)]
mod tests;
