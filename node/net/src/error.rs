//! What can go wrong at the edge of this crate.

use std::io;

use tiltyard_proto::ids::BlobRoot;

/// Says why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address that is no multiaddr, or of a transport that is not built in.
    #[error("address {address:?} is not usable: {fact}; write it like /ip4/127.0.0.1/tcp/4700")]
    Address {
        /// The address as given, cut to 128 characters.
        address: String,
        /// What is wrong with it.
        fact: String,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {fact}; choose another port or stop the program that holds it")]
    Listen {
        /// The address.
        address: String,
        /// The system's words.
        fact: String,
    },
    /// A limit or size that the libraries refuse.
    #[error("network settings are refused: {fact}; correct the [net] part of the configuration")]
    Settings {
        /// The library's words.
        fact: String,
    },
    /// The seed is no ed25519 secret.
    #[error("the node key is unusable: {fact}; restore keys/node.key from its backup")]
    Identity {
        /// The library's words.
        fact: String,
    },
}

/// Says why a command did not reach the network task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The command queue is full; nothing was queued.
    #[error("the network task is busy; try again in a moment")]
    Busy,
    /// The network task has ended.
    #[error("the network task has ended; restart the node")]
    Stopped,
}

/// Says why blob storage failed; a fault of this node, never of a peer.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The storage layer refused or failed.
    #[error("blob {root}: {fact}")]
    Storage {
        /// The blob.
        root: BlobRoot,
        /// The storage layer's words, with the remedy.
        fact: String,
    },
    /// Reading or writing a file failed.
    #[error("blob {root}: {source}; check the disk of the data folder")]
    Io {
        /// The blob.
        root: BlobRoot,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Says why a text names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no peer id; copy the whole id, it starts with 12D3Koo")]
pub struct PeerTextError {
    /// The text, cut to 80 characters.
    pub text: String,
}
