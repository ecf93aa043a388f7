//! Nodes that lose their whole disk and join again by a state snapshot, among peers of which some lie.
//!
//! The wiped node is an honest validator that the others can do without: it does not know what it signed, and signs
//! nothing until it has listened. In the runs of a liar the liar goes on voting, so that the others need nobody else.

use std::collections::BTreeSet;
use std::rc::Rc;

use tiltyard_machine::io::RequestToken;
use tiltyard_machine::{Durable, Effect};
use tiltyard_proto::wire::{SyncRequest, SyncResponse};

use super::disk::{Damage, Write, WriteFate};
use super::plan::{Fault, Timed, Treason};
use super::planted::Bug;
use super::random::Dice;
use super::shape::{Shape, WIPE};
use super::world::{Doom, Due, World};

/// Share of the runs that may that have a wiped node, in percent.
const SHARE_PERCENT: u64 = 30;
/// How long opening the store anew takes, in milliseconds.
const REOPEN_MS: u64 = 20;
/// How long a node that dies while it joins is down, in milliseconds.
const DOWN_MS: u64 = 300;

/// What may be wiped in a run.
pub(crate) struct Ground<'a> {
    pub(crate) honest: &'a [usize],
    /// The one node that the plan may take from the others for good.
    pub(crate) skewed: usize,
    /// Whether the others can do without it even if every liar is silent.
    pub(crate) spare: bool,
    pub(crate) heal_ms: u64,
}

/// Says whether a liar takes part in agreement as honest ones do.
fn votes(ways: &BTreeSet<Treason>) -> bool {
    ways.iter().all(|way| match way {
        Treason::Lie | Treason::Censor | Treason::Collude | Treason::HideScores => true,
        Treason::Equivocate
        | Treason::Silent
        | Treason::Stale
        | Treason::Selective
        | Treason::Withhold
        | Treason::WrongRoot
        | Treason::Forge => false,
    })
}

/// Draws whether a node loses its disk, and when. May change liars into ones that vote, and lie about snapshots.
pub(crate) fn draw(
    seed: u64,
    shape: &Shape,
    ground: &Ground<'_>,
    treason: &mut [BTreeSet<Treason>],
) -> Option<(usize, Timed)> {
    let mut dice = Dice::new(seed, 5);
    let node = ground.skewed;
    // The last node posts the task and alone has the key of its data.
    let may = !shape.calm
        && shape.strike.is_none()
        && shape.byzantine <= shape.tolerated()
        && ground.honest.contains(&node)
        && node + 1 < shape.nodes;
    let wanted = match shape.planted {
        Some(bug) => bug == Bug::ShortJoin,
        None => dice.percent(SHARE_PERCENT),
    };
    if !may || !wanted {
        return None;
    }
    if !ground.spare {
        if shape.treason.is_some_and(|way| !votes(&BTreeSet::from([way]))) {
            return None;
        }
        for ways in treason.iter_mut().filter(|ways| !ways.is_empty()) {
            ways.retain(|way| votes(&BTreeSet::from([*way])));
            ways.insert(shape.treason.unwrap_or(Treason::Lie));
        }
    }
    let at_ms = dice.between(ground.heal_ms / 2, ground.heal_ms - 300);
    let for_ms = dice.between(100, 1_500).min(ground.heal_ms - at_ms);
    let fate = [WriteFate::Lost, WriteFate::Kept, WriteFate::Torn][dice.index(3)];
    let effects = dice.between(2, 60);
    let again = dice.percent(60).then_some((effects, fate));
    Some((WIPE, Timed { at_ms, for_ms, fault: Fault::Wipe { node, again } }))
}

impl World {
    /// Ends a node's life; its disk stays as it is.
    pub(crate) fn stop(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.machine = None;
        node.written = Durable::at_start();
        node.life += 1;
        node.timers.clear();
        node.seen.clear();
        node.judging.clear();
        node.jobs.clear();
        for other in 0..self.nodes.len() {
            self.disconnect(other, at);
        }
    }

    /// A node dies, and its disk with it. It comes back empty, and perhaps dies once more while it joins.
    pub(crate) fn wipe(&mut self, at: usize, down_ms: u64, again: Option<(u64, WriteFate)>) {
        self.trace.note(self.now_ms, at, 8, &[], || "loses its disk".to_owned());
        self.stop(at);
        let node = &mut self.nodes[at];
        node.disk.wipe();
        node.joins = true;
        node.acknowledged = 0;
        node.doom =
            again.map(|(effects, fate)| Doom { effects, fate, damage: Damage::None, down_ms: DOWN_MS });
        self.wiped += 1;
        self.later(down_ms, Due::Start(at));
    }

    /// Notes what a snapshot's effect writes. Chunks are not synced: they can be fetched again.
    pub(crate) fn write_snapshot(&mut self, at: usize, effect: Effect) {
        let write = match effect {
            Effect::BeginSnapshot { decided, cut } => Write::BeginSnapshot(Rc::new(*decided), Rc::new(cut)),
            Effect::SaveChunk { index, bytes } => Write::Chunk(index, Rc::new(bytes)),
            Effect::FinishSnapshot { .. } => Write::WholeSnapshot,
            Effect::DropSnapshot => Write::DropSnapshot,
            // The caller gives snapshots only.
            _ => return,
        };
        self.nodes[at].disk.write(write);
    }

    /// The snapshot is whole: the node opens its store anew.
    pub(crate) fn reopen(&mut self, at: usize) {
        self.trace.note(self.now_ms, at, 9, &[], || "opens its store anew".to_owned());
        self.stop(at);
        self.nodes[at].disk.close();
        self.later(REOPEN_MS, Due::Start(at));
    }

    /// Answers as the shell does for snapshots and headers; liars change what they give, withholders keep it.
    pub(crate) fn answer_snapshot(&mut self, to: usize, request: &SyncRequest) -> Option<SyncResponse> {
        let ways = &self.plan.treason[to];
        let withholds = ways.contains(&Treason::Withhold) || ways.contains(&Treason::Silent);
        let lies = ways.contains(&Treason::Lie) && self.dice.percent(70);
        let content = self.nodes[to].disk.live.borrow();
        let snapshot = |height: &tiltyard_proto::units::Height| content.snapshots.get(&height.get());
        Some(match request {
            SyncRequest::LightBlock { height } => {
                let mut block = content.light_block(*height);
                if let (true, Some(block)) = (lies, &mut block) {
                    block.header.version = block.header.version.wrapping_add(1);
                }
                SyncResponse::LightBlock(block.map(Box::new))
            }
            SyncRequest::Snapshots => {
                let heights = content.snapshots.keys().map(|at| tiltyard_proto::units::Height::new(*at));
                SyncResponse::Snapshots(heights.collect())
            }
            SyncRequest::SnapshotCut { height } => {
                let mut cut = snapshot(height).map(|snapshot| snapshot.cut.clone());
                if let (true, Some(cut)) = (lies, &mut cut) {
                    cut.chunks.reverse();
                }
                SyncResponse::SnapshotCut(cut)
            }
            SyncRequest::SnapshotChunk { height, index } => {
                let found = snapshot(height).and_then(|found| found.chunks.get(*index as usize).cloned());
                let mut chunk = found.filter(|_| !withholds);
                if let (true, Some(entry)) =
                    (lies, chunk.as_mut().and_then(|chunk| chunk.entries.first_mut()))
                {
                    entry.value.push(0);
                }
                SyncResponse::SnapshotChunk(chunk)
            }
            SyncRequest::Status
            | SyncRequest::Blocks { .. }
            | SyncRequest::Body { .. }
            | SyncRequest::PendingIds
            | SyncRequest::Pending { .. } => return None,
        })
    }

    /// Answers a question about snapshots, or gives it to the machine.
    pub(crate) fn serve_rest(&mut self, to: usize, asker: (usize, u64, RequestToken), request: SyncRequest) {
        match self.answer_snapshot(to, &request) {
            Some(response) => self.answer(to, asker, 0, Some(response)),
            None => self.pass_on(to, asker, request),
        }
    }
}
