//! Who pays a fee. What is free must take effect, or it may not be in a block at all: nobody fills blocks for nothing.

use tiltyard_proto::genesis::Params;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

/// Says whether an action may be sent without fee, within its quota.
///
/// Free are the committee's duties, evidence and faucet draws, a stamped first commit and the reveal of a commit. Each
/// can take effect only so often: once per member and task, row, entrant, culprit and height, or interval.
#[must_use]
pub const fn may_be_free(action: &Action) -> bool {
    match action {
        Action::Faucet { .. }
        | Action::Accept { .. }
        | Action::Reveal { .. }
        | Action::Held { .. }
        | Action::OpenKey { .. }
        | Action::ScoreCommit { .. }
        | Action::ScoreOpen { .. }
        | Action::Evidence(_) => true,
        Action::Commit { stamp, .. } => stamp.is_some(),
        Action::Transfer { .. }
        | Action::Post(_)
        | Action::Cancel { .. }
        | Action::Bond { .. }
        | Action::Unbond { .. }
        | Action::Unjail
        | Action::SetValidator { .. }
        | Action::Revoke { .. } => false,
    }
}

/// Returns the smallest fee with which an action may be sent.
#[must_use]
pub const fn fee_due(action: &Action, params: &Params) -> MicroCredits {
    if may_be_free(action) { MicroCredits::ZERO } else { params.fee_min }
}
