//! Carries out what the machine asks for. Durable effects return only when they are on disk.

use std::time::Instant;

use tiltyard_ledger::query;
use tiltyard_machine::io::{Audience, Commit, Missing};
use tiltyard_machine::{Effect, Event, Input};
use tiltyard_net::Target;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::Peer;
use tiltyard_store::{ChainStore as _, CommitRef};
use tracing::{debug, error, info, warn};

use super::RunError;
use super::brain::{Brain, Desk};
use super::shared::FetchState;
use crate::words;

/// Validators are looked up for dialing every so many blocks.
const DIAL_EVERY_BLOCKS: u64 = 20;
/// Most validators that a node stays connected to.
const DIAL_MAX: usize = 32;
/// A commit slower than this is worth a line in the log.
const SLOW_COMMIT_MS: u128 = 250;

impl Brain {
    pub(super) fn carry_out(&mut self, effect: Effect, desk: &mut Desk) -> Result<(), RunError> {
        match effect {
            Effect::SaveBody { block, height, bytes } => self.store.save_body(block, height, &bytes)?,
            Effect::Journal(batch) => desk.written = batch.perform(|bytes| self.store.journal(bytes))?,
            Effect::ResetJournal(batch) => {
                desk.written = batch.perform(|bytes| self.store.reset_journal(bytes))?;
            }
            Effect::Say { topic, frame } => lost("say", self.net.publish(topic, frame.open(&desk.written)?)),
            Effect::Commit(commit) => self.commit(&commit, desk)?,
            Effect::Repair(blocks) => self.repair(&blocks, desk)?,
            Effect::SaveRole((key, value)) => self.store.save_role(&key, &value)?,
            Effect::BeginSnapshot { decided, cut } => self.store.begin_join(&decided, &cut)?,
            Effect::SaveChunk { index, bytes } => self.store.keep_chunk(index, &bytes)?,
            Effect::FinishSnapshot { height } => {
                self.store.finish_join()?;
                info!(%height, "snapshot is whole; the node opens its state anew");
                desk.reopen = true;
            }
            Effect::DropSnapshot => self.store.drop_join()?,
            Effect::Publish { topic, bytes } => lost("publish", self.net.publish(topic, bytes)),
            Effect::Report { token, from, acceptance } => {
                lost("report", self.net.report(token.0, &from, acceptance));
            }
            Effect::Ask { token, to, request } => {
                if let Err(error) = self.net.ask(token.0, to.clone(), request) {
                    debug!(%error, "request not sent");
                    desk.next.push_back(Input::Response { token, from: to, response: None });
                }
            }
            Effect::Respond { token, response } => lost("respond", self.net.respond(token.0, *response)),
            Effect::Penalize { peer, fact } => {
                warn!(peer = %tiltyard_net::peer_text(&peer), fact, "peer gave what it should not have");
                lost("penalize", self.net.penalize(peer, fact));
            }
            Effect::SetTimer { id, after_ms } => {
                desk.timers.set(id, self.clock.ms().saturating_add(after_ms));
            }
            Effect::CancelTimer(id) => desk.timers.cancel(id),
            Effect::Fetch { blob, manifest } => self.fetch(blob, manifest.map(|manifest| *manifest), desk),
            Effect::Serve { root, audience } => self.audiences.set(root, audience),
            Effect::Drop(root) => self.drop_blob(root),
            Effect::StartJob { id, job } => self.jobs.start(id, job),
            Effect::FinishJob(id) => self.jobs.finish(id),
            Effect::CancelJob(id) => self.jobs.cancel(id),
            Effect::Notify(event) => {
                log(&event);
                self.shared.tell(&event);
            }
            Effect::StopSigning { fact } => {
                error!(fact, "this node signs nothing any more; the chain is still followed");
                self.shared.tell(&Event::Trouble { fact });
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit, desk: &mut Desk) -> Result<(), RunError> {
        let began = Instant::now();
        self.store.commit(CommitRef {
            decided: &commit.decided,
            changes: &commit.changes,
            outcomes: &commit.outcomes,
        })?;
        let height = commit.decided.block.header.height;
        let took_ms = began.elapsed().as_millis();
        if took_ms > SLOW_COMMIT_MS {
            warn!(%height, took_ms = u64::try_from(took_ms).unwrap_or(u64::MAX), "slow disk: a block took long to become durable");
        }
        if self.dial_validators && height.get() % DIAL_EVERY_BLOCKS == 1 {
            self.keep_validators(height)?;
        }
        desk.next.push_back(Input::Committed(height));
        // Damage may be met by whoever reads a block, at any time.
        if self.store.reader().missing_blocks() > 0 {
            self.tell_missing(desk)?;
        }
        Ok(())
    }

    /// Puts blocks back that the log lost, and tells the machine what is missing still.
    fn repair(&mut self, blocks: &[DecidedBlock], desk: &mut Desk) -> Result<(), RunError> {
        for decided in blocks {
            if self.store.patch(decided)? {
                info!(height = %decided.block.header.height, "damaged block had again from a peer");
            }
        }
        self.tell_missing(desk)
    }

    /// Tells the machine which blocks the log lost.
    pub(super) fn tell_missing(&self, desk: &mut Desk) -> Result<(), RunError> {
        let run = self.store.missing_run()?;
        let missing = run.map(|run| Missing { from: run.from, to: run.to, hash: run.hash });
        desk.next.push_back(Input::Missing(missing));
        Ok(())
    }

    /// Stays connected to the validators that the ledger names.
    fn keep_validators(&self, height: Height) -> Result<(), RunError> {
        let reader = self.store.reader();
        let read = |error| RunError::Machine(tiltyard_machine::MachineError::Read(error));
        let set = query::set_at(&reader, height.next()).map_err(read)?;
        let mut targets = Vec::new();
        for member in set.members() {
            let Some(record) = query::validator(&reader, &member.key).map_err(read)? else {
                continue;
            };
            let peer = Peer::new(record.peer.to_vec());
            if peer == self.own_peer || record.peer.is_empty() {
                continue;
            }
            // Addresses are other people's words: one that is malformed is passed over.
            let target = record.addresses.iter().find_map(|text| Target::of_peer(peer.clone(), text).ok());
            targets.extend(target);
            if targets.len() >= DIAL_MAX {
                break;
            }
        }
        lost("keep", self.net.keep(targets));
        Ok(())
    }

    fn fetch(&self, blob: BlobRef, manifest: Option<Manifest>, desk: &mut Desk) {
        let root = blob.root;
        if self.blobs.has(&root) {
            desk.next.push_back(Input::Blob { root, held: true });
            return;
        }
        debug!(%root, bytes = blob.bytes, "fetching a blob");
        self.shared.set_fetch_state(root, FetchState { total: blob.bytes, ..FetchState::default() });
        if let Err(error) = self.net.fetch(blob, manifest) {
            warn!(%root, %error, "blob cannot be asked for now");
            desk.next.push_back(Input::Blob { root, held: false });
        }
    }

    fn drop_blob(&self, root: BlobRoot) {
        self.audiences.set(root, Audience::Nobody);
        lost("cancel", self.net.cancel(root));
        match self.blobs.remove(&root) {
            Ok(true) => info!(%root, "blob dropped"),
            Ok(false) => {}
            Err(error) => warn!(%root, %error, "blob cannot be dropped"),
        }
    }
}

/// Commands to the network may be lost under load: senders send again, askers time out.
fn lost(command: &'static str, outcome: Result<(), tiltyard_net::CommandError>) {
    if let Err(error) = outcome {
        debug!(command, %error, "network command lost");
    }
}

fn log(event: &Event) {
    match event {
        Event::Decided { height, hash, transactions, round, finality_ms, .. } => {
            if *transactions > 0 || round.get() > 0 || height.get() % 100 == 0 {
                info!(%height, hash = %hash.short(), transactions, %round, finality_ms, "block decided");
            } else {
                debug!(%height, hash = %hash.short(), finality_ms, "empty block decided");
            }
        }
        Event::Syncing { height, target } => info!(%height, %target, "behind; fetching blocks"),
        Event::Synced { height } => info!(%height, "caught up"),
        Event::Stale { height, silent_ms, peers } => {
            warn!(%height, silent_ms, peers, "no new block for too long: this node is cut off, or the network stands still");
        }
        Event::Fresh { height } => info!(%height, "blocks come again"),
        Event::Joining { height, chunks } => info!(%height, chunks, "joining by snapshot"),
        Event::TaskPhase { task, phase } => {
            info!(task = %task.short(), phase = words::phase(*phase), "task moved on");
        }
        Event::TaskDeclined { task, fact } => info!(task = %task.short(), fact, "task declined"),
        Event::Ledger { height, event } => debug!(%height, ?event, "ledger event"),
        Event::DutyDone { task, duty, height, ok } => {
            info!(task = %task.short(), ?duty, %height, took_effect = ok, "duty on the ledger");
        }
        Event::TransactionAccepted { id } => debug!(id = %id.short(), "transaction waits for a block"),
        Event::TransactionIncluded { id, height, ok } => {
            info!(id = %id.short(), %height, took_effect = ok, "transaction in a block");
        }
        Event::TransactionDropped { id, fact } => warn!(id = %id.short(), fact, "transaction dropped"),
        Event::RoundStarted { height, round, proposer } => {
            debug!(%height, %round, proposer = %proposer.short(), "another round");
        }
        Event::Undecided(told) => warn!(height = %told.height, fact = %told, "this height is not decided"),
        Event::Equivocation { validator, height } => {
            warn!(%validator, %height, "a validator signed two things");
        }
        Event::Listening { height, from } => {
            warn!(%height, %from, "the vote journal does not tell what this key signed before; listening before it signs");
        }
        Event::BlockRefused { height, block, fact } => {
            warn!(%height, block = %block.short(), fact, "proposed block refused");
        }
        Event::Trouble { fact } => warn!(fact, "trouble"),
    }
}
