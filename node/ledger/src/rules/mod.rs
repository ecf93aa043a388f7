//! One module per transaction. A rule returns an error and changes nothing, or takes effect whole.

mod accept;
mod cancel;
mod commit;
mod evidence;
mod faucet;
mod held;
mod open_key;
mod post;
mod reveal;
mod score_commit;
mod score_open;
mod stake;
mod transfer;

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::validators::Validator;

use crate::book::Book;
use crate::error::{MarketError, Stop};

/// Applies the action of a transaction whose nonce and fee are settled.
pub(crate) fn apply(book: &mut Book<'_>, body: &Transaction) -> Result<(), Stop> {
    let sender = body.sender;
    match &body.action {
        Action::Transfer { to, amount } => transfer::apply(book, sender, *to, *amount),
        Action::Faucet { to } => faucet::apply(book, *to),
        Action::Post(spec) => post::apply(book, sender, body.id(), spec),
        Action::Cancel { task } => cancel::apply(book, sender, *task),
        Action::Accept { task } => accept::apply(book, sender, *task),
        Action::Commit { task, commitment, bond, stamp, reference } => {
            let offer = commit::Offer {
                commitment: *commitment,
                bond: *bond,
                stamp: *stamp,
                reference: *reference,
                fee: body.fee,
            };
            commit::apply(book, sender, *task, &offer)
        }
        Action::Reveal { task, manifest, salt, recipe } => {
            reveal::apply(book, sender, *task, manifest, salt, recipe)
        }
        Action::Held { task, entrants } => held::apply(book, sender, *task, entrants),
        Action::OpenKey { task, key } => open_key::apply(book, sender, *task, key),
        Action::ScoreCommit { task, root } => score_commit::apply(book, sender, *task, *root),
        Action::ScoreOpen { task, row, bytes, path, rows_root, salt } => {
            let opening = score_open::Opening { row: *row, bytes, path, rows_root: *rows_root, salt: *salt };
            score_open::apply(book, sender, *task, &opening)
        }
        Action::Bond { stake } => stake::bond(book, sender, *stake),
        Action::Unbond { stake } => stake::unbond(book, sender, *stake),
        Action::Unjail => stake::unjail(book, sender),
        Action::SetValidator { peer, addresses, payout } => {
            stake::set_validator(book, sender, peer, addresses, *payout)
        }
        Action::Evidence(evidence) => evidence::apply(book, evidence),
        Action::Revoke { validator, unbond } => stake::revoke(book, sender, *validator, *unbond),
    }
}

/// Returns the sender's seat in a task's committee.
fn seat(book: &mut Book<'_>, task: TaskId, key: PublicKey) -> Result<Validator, Stop> {
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let at = committee.binary_search_by(|member| member.key.cmp(&key));
    at.ok().and_then(|at| committee.get(at).copied()).ok_or(Stop::Market(MarketError::NotInCommittee { key }))
}
