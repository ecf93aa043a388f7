//! What can go wrong while following a chain.

use tiltyard_proto::codec::CodecError;
use tiltyard_proto::genesis::GenesisError;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::light::LightError;
use tiltyard_proto::receipt::ReceiptError;
use tiltyard_proto::units::Height;

/// Says why a node gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The node cannot be reached, or broke off.
    #[error("cannot reach {url}: {fact}; check the address and that the node runs")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The transport's words.
        fact: String,
    },
    /// The node says no.
    #[error("{url} answers {status}: {fact}")]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The node's words, cut to 300 characters.
        fact: String,
    },
    /// What was asked for existed, and this node has pruned it. No lie: another node may keep it.
    #[error("{url}: {fact}")]
    Expired {
        /// What was asked for.
        url: String,
        /// The node's words, cut to 300 characters.
        fact: String,
    },
    /// The answer has another form than the API promises.
    #[error("{url} answers in another form: {fact}; it speaks another version, ask another node")]
    Form {
        /// What was asked for.
        url: String,
        /// What does not fit.
        fact: String,
    },
    /// The bytes inside the answer are refused.
    #[error("{url}: {source}")]
    Codec {
        /// What was asked for.
        url: String,
        /// What does not fit.
        source: CodecError,
    },
}

/// Says why the chain cannot be followed or an entry is not proven.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The node gave no usable answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The genesis document is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A header is not trusted.
    #[error(transparent)]
    Light(#[from] LightError),
    /// A receipt does not hold.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The node answered with another height than was asked for.
    #[error("asked for height {asked}, got {got}; ask another node")]
    OtherHeight {
        /// Height asked for.
        asked: Height,
        /// Height of the answer.
        got: Height,
    },
    /// The node proved another entry than was asked for.
    #[error("the node proved another entry than was asked for; ask another node")]
    OtherEntry,
    /// Skipping ended nowhere: more steps than any honest chain needs.
    #[error("no trust reaches height {target} within {steps} headers; ask another node")]
    TooManySteps {
        /// Height wanted.
        target: Height,
        /// Headers asked for.
        steps: u32,
    },
    /// Two verified blocks of one height.
    #[error(
        "FORK at height {height}: {primary} and {witness} are both certified; more than 1/3 of the stake broke the protocol, trust neither node and tell the validators"
    )]
    Fork {
        /// Height of both.
        height: Height,
        /// What the node led to.
        primary: BlockHash,
        /// What the witness led to.
        witness: BlockHash,
        /// Keys that signed both and can be punished for it.
        culprits: usize,
    },
    /// The witness gave a block that does not verify: it confirms nothing.
    #[error("the witness does not confirm height {height}: {fact}; name another witness")]
    WitnessUnproven {
        /// Height asked for.
        height: Height,
        /// Why its block does not count.
        fact: LightError,
    },
}
