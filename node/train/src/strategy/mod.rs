//! Strategies: how a miner chooses what to train under a budget of tokens.
//!
//! A strategy drives runs through a [`session::Session`], which owns what outlives a
//! crash: run states, finished measurements and the best checkpoint so far. After a
//! restart a strategy simply runs again and finds its finished parts done.

pub mod fixed;
pub mod form;
pub mod learned;
pub mod presets;
pub mod search;
pub mod session;
pub mod space;

use crate::fit::run::RunError;
use form::FormError;
use session::SessionError;

/// Says why a strategy ends without a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum StrategyError {
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The session's files failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The recipe file is refused.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The budget does not pay for one step.
    #[error("a budget of {budget} tokens does not pay for {needed}; raise it")]
    Budget {
        /// Tokens allowed.
        budget: u64,
        /// Tokens needed.
        needed: u64,
    },
    /// Every candidate's loss became infinite.
    #[error("every candidate diverged; the training rows may be corrupt")]
    AllDiverged,
    /// Asked to stop; the state is saved and the job can go on later.
    #[error("stopped on request; start the job again to go on")]
    Stopped,
}
