//! What the store brought back at a start: for the machine, and for people.

use tiltyard_machine::JoinState;
use tracing::{info, warn};

/// Hands the store's findings to the machine.
pub(super) fn machine_recovered(recovered: tiltyard_store::Recovered) -> tiltyard_machine::Recovered {
    tiltyard_machine::Recovered {
        tip: recovered.tip,
        journal: recovered.journal,
        bodies: recovered.bodies,
        roles: recovered.roles,
        joining: recovered.joining.map(|progress| JoinState {
            decided: progress.decided,
            cut: progress.cut,
            have: progress.have,
        }),
        begun_by_snapshot: recovered.begun_by_snapshot,
    }
}

/// Tells people what the start had to set right.
pub(super) fn tell_recovery(recovered: &tiltyard_store::Recovered) {
    if let Some(report) = &recovered.rebuilt {
        match &report.reason {
            Some(reason) => {
                warn!(blocks = report.blocks, height = %report.height, reason, "state index made anew from the log");
            }
            None => {
                info!(blocks = report.blocks, height = %report.height, "state index brought to the end of the log");
            }
        }
    }
    let damage = &recovered.damage;
    for found in &damage.log.damage {
        warn!(height = %found.height, path = %found.path.display(), offset = found.offset, fact = found.fact, "the log is damaged");
    }
    if damage.missing_blocks > 0 {
        warn!(blocks = damage.missing_blocks, "damaged blocks are had again from peers");
    }
    if let Some((from, to)) = damage.log.lost {
        warn!(%from, %to, "the end of the log is lost here; it is synced from peers");
    }
    for salvage in [&damage.journal, &damage.bodies, &damage.roles].into_iter().flatten() {
        warn!(path = %salvage.path.display(), offset = salvage.offset, fact = salvage.fact, kept = %salvage.kept.display(), "a damaged file was set aside");
    }
}
