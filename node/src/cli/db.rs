//! Looks after the chain folder of a node that does not run.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::units::Height;
use tiltyard_store::admin::{self, ChainStats, Finding, Verified};
use tiltyard_store::{Damage, StoreError};

use super::{Answer, CliError, Exit, Place, help};
use crate::home::{self, Home, HomeError, RunLock};

/// Missing heights that are listed; the rest is counted.
const LISTED_MAX: usize = 20;

/// What to do with the folder.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows sizes, counts and the heights that are kept.
    #[command(after_help = help::DB_STATS)]
    Stats(Folder),
    /// Reads everything and says exactly what is damaged. Changes nothing.
    #[command(after_help = help::DB_VERIFY)]
    Verify(Folder),
    /// Cuts a torn tail, sets damage aside, marks damaged blocks to be had again from peers, makes a wrong index anew.
    #[command(after_help = help::DB_REPAIR)]
    Repair(Folder),
    /// Gives back the room that the database does not use.
    #[command(after_help = help::DB_COMPACT)]
    Compact(Folder),
}

/// Which folder.
#[derive(Debug, Args)]
pub(crate) struct Folder {
    #[command(flatten)]
    place: Place,
}

/// Says why a chain folder cannot be looked at.
fn fault(error: StoreError) -> CliError {
    match error {
        StoreError::Locked { path } => CliError::Home(HomeError::Locked { path }),
        StoreError::Foreign { .. } => CliError::refused(error.to_string()),
        other => CliError::Store(other),
    }
}

struct Opened {
    home: Home,
    genesis: Genesis,
    _lock: RunLock,
}

impl Folder {
    fn open(&self) -> Result<Opened, CliError> {
        let home = Home::find(self.place.dir.as_deref())?;
        let path = home.genesis();
        if !path.exists() {
            let fact = "no genesis document is there; name the node's folder with --dir";
            return Err(CliError::content(&path, fact));
        }
        let lock = home.lock()?;
        let bytes = home::read_bounded(&path, tiltyard_proto::limits::GENESIS_BYTES_MAX as u64)?;
        let genesis = Genesis::decode(&bytes).map_err(|error| CliError::content(&path, error))?;
        if !home.chain().exists() {
            return Err(CliError::content(&home.chain(), "the node has no chain data yet; run it once"));
        }
        Ok(Opened { home, genesis, _lock: lock })
    }
}

pub(super) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Stats(folder) => stats(&folder.open()?),
        Command::Verify(folder) => verify(&folder.open()?),
        Command::Repair(folder) => repair(&folder.open()?),
        Command::Compact(folder) => compact(&folder.open()?),
    }
}

fn stats(opened: &Opened) -> Result<Answer, CliError> {
    let found = admin::stats(&opened.home.chain(), &opened.genesis).map_err(fault)?;
    let blob_bytes = admin::folder_bytes(&opened.home.blobs());
    let ChainStats { first, tip, blocks, missing_blocks, log, .. } = &found;
    let json = json!({
        "first": first, "tip": tip, "blocks": blocks, "missing_blocks": missing_blocks,
        "log": {
            "segments": log.segments, "segment_bytes": log.segment_bytes, "places_bytes": log.places_bytes,
            "patches_bytes": log.patches_bytes, "aside_bytes": log.aside_bytes,
        },
        "state_bytes": found.state_bytes, "state_old_bytes": found.state_old_bytes,
        "snapshot_bytes": found.snapshot_bytes, "journal_bytes": found.journal_bytes,
        "bodies_bytes": found.bodies_bytes, "roles_bytes": found.roles_bytes,
        "aside_bytes": found.aside_bytes, "blob_bytes": blob_bytes,
        "bytes_per_block": found.bytes_per_block(),
    });
    let heights = match (first, tip) {
        (Some(first), Some(tip)) => format!("{first} to {tip}"),
        (None, _) | (_, None) => "none".to_owned(),
    };
    let text = format!(
        "blocks     {blocks} ({heights}), {missing_blocks} missing\n\
         log        {} in {} segments, {} refetched, {} aside\n\
         state      {}, {} of old ones\n\
         snapshots  {}\n\
         journal    {}\n\
         bodies     {}\n\
         roles      {}\n\
         blobs      {}\n\
         per block  {} of log and state",
        size(log.segment_bytes),
        log.segments,
        size(log.patches_bytes),
        size(log.aside_bytes.saturating_add(found.aside_bytes)),
        size(found.state_bytes),
        size(found.state_old_bytes),
        size(found.snapshot_bytes),
        size(found.journal_bytes),
        size(found.bodies_bytes),
        size(found.roles_bytes),
        size(blob_bytes),
        size(found.bytes_per_block()),
    );
    Ok(Answer::done(json, text))
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "path": finding.path, "offset": finding.offset, "height": finding.height, "fact": finding.fact,
    })
}

fn finding_text(finding: &Finding) -> String {
    let at = finding.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
    let height = finding.height.map_or_else(String::new, |height| format!(", block {height}"));
    format!("damaged: {}{at}{height}: {}", finding.path.display(), finding.fact)
}

fn verify(opened: &Opened) -> Result<Answer, CliError> {
    let found = admin::verify(&opened.home.chain(), &opened.genesis).map_err(fault)?;
    let damaged_blobs = damaged_blobs(opened)?;
    let Verified { log_bytes, blocks, heights, missing, torn_bytes, state, findings } = &found;
    let sound = found.is_sound() && damaged_blobs.is_empty();
    let json = json!({
        "sound": sound, "log_bytes": log_bytes, "blocks": blocks,
        "first": heights.map(|(first, _)| first), "tip": heights.map(|(_, tip)| tip),
        "missing": missing, "torn_bytes": torn_bytes,
        "state": state.map(|(height, fits)| json!({ "height": height, "leads_to_its_root": fits })),
        "damaged": findings.iter().map(finding_json).collect::<Vec<_>>(),
        "damaged_blobs": damaged_blobs,
    });
    let mut lines = vec![match heights {
        Some((first, tip)) => {
            format!("{blocks} good blocks ({first} to {tip}), {} of log read", size(*log_bytes))
        }
        None => "no blocks yet".to_owned(),
    }];
    if let Some((height, true)) = state {
        lines.push(format!("state at height {height}: every value leads to its root"));
    }
    if *torn_bytes > 0 {
        lines.push(format!(
            "the last append was cut short ({torn_bytes} bytes): nobody was told of it, the next start cuts it off"
        ));
    }
    lines.extend(findings.iter().map(finding_text));
    lines.extend(
        damaged_blobs
            .iter()
            .map(|root| format!("damaged: blob {root}; it is fetched again when it is needed")),
    );
    if !missing.is_empty() {
        lines.push(format!("missing: {}", heights_text(missing)));
    }
    if !sound {
        lines.push("run `tiltyard db repair`, then start the node: peers have what is missing".to_owned());
    }
    let exit = if sound { Exit::Done } else { Exit::Refused };
    Ok(Answer { json, text: lines.join("\n"), exit })
}

/// Checks every blob against its hashes; returns the roots of those that are damaged.
fn damaged_blobs(opened: &Opened) -> Result<Vec<String>, CliError> {
    let path = opened.home.blobs();
    if !path.exists() {
        return Ok(Vec::new());
    }
    admin::damaged_blobs(&path)
        .map(|roots| roots.iter().map(ToString::to_string).collect())
        .map_err(|error| CliError::content(&path, error))
}

fn heights_text(heights: &[Height]) -> String {
    let listed: Vec<String> = heights.iter().take(LISTED_MAX).map(ToString::to_string).collect();
    let more = heights.len().saturating_sub(LISTED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", listed.join(", "))
}

fn repair(opened: &Opened) -> Result<Answer, CliError> {
    let recovered = admin::repair(&opened.home.chain(), &opened.genesis).map_err(fault)?;
    let Damage { log, missing_blocks, journal, bodies, roles } = &recovered.damage;
    let salvages: Vec<_> = [journal, bodies, roles].into_iter().flatten().collect();
    let mut aside: Vec<String> = log.aside.iter().map(|path| path.display().to_string()).collect();
    aside.extend(salvages.iter().map(|salvage| salvage.kept.display().to_string()));
    let tip = recovered.tip.as_ref().map(|tip| tip.block.header.height);
    let rebuilt = recovered.rebuilt.as_ref();
    let json = json!({
        "tip": tip, "missing_blocks": missing_blocks, "torn_bytes": log.torn_bytes,
        "lost": log.lost.map(|(from, to)| json!({ "from": from, "to": to })),
        "damaged": log.damage.iter().map(|damage| finding_json(&damage.clone().into())).collect::<Vec<_>>(),
        "aside": aside, "journal_lost": journal.is_some(),
        "state_rebuilt": rebuilt.map(|report| json!({ "blocks": report.blocks, "reason": report.reason })),
    });
    let mut lines: Vec<String> =
        log.damage.iter().map(|damage| finding_text(&damage.clone().into())).collect();
    if log.torn_bytes > 0 {
        lines.push(format!("torn tail of {} bytes cut off", log.torn_bytes));
    }
    if let Some(report) = rebuilt {
        let why = report.reason.as_deref().unwrap_or("it was behind the log");
        lines.push(format!("state index: {} blocks executed again ({why})", report.blocks));
    }
    if *missing_blocks > 0 {
        lines.push(format!(
            "{missing_blocks} blocks are marked: the node has them again from peers when it runs"
        ));
    }
    if let Some((from, to)) = log.lost {
        lines.push(format!(
            "blocks {from} to {to} are lost here: the node syncs them from peers when it runs"
        ));
    }
    if journal.is_some() {
        lines.push("what this node signed is unknown: it follows the chain before it signs again".to_owned());
    }
    lines.extend(aside.iter().map(|path| format!("kept aside: {path}")));
    if lines.is_empty() {
        lines.push("nothing to repair".to_owned());
    }
    Ok(Answer::done(json, lines.join("\n")))
}

fn compact(opened: &Opened) -> Result<Answer, CliError> {
    let done = admin::compact(&opened.home.chain(), &opened.genesis).map_err(fault)?;
    let json = json!({
        "before_bytes": done.before_bytes, "after_bytes": done.after_bytes, "entries": done.entries,
        "height": done.height, "state_root": done.root,
    });
    let text = format!(
        "state index at height {}: {} before, {} after; {} entries, the same root and digest",
        done.height,
        size(done.before_bytes),
        size(done.after_bytes),
        done.entries
    );
    Ok(Answer::done(json, text))
}

/// A size for people.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let texts: Vec<String> = [0, 1_023, 1_536, 64 << 20, 3 << 30].into_iter().map(size).collect();
        assert_eq!(texts, ["0 B", "1023 B", "1.5 KiB", "64.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn a_long_list_of_heights_is_cut() {
        let many: Vec<Height> = (1..=25).map(Height::new).collect();
        assert!(heights_text(&many).ends_with("20 and 5 more"));
    }
}
