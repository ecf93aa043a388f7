//! Logs to standard error: for people by default, JSON lines on a flag.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Libraries that tell every step at `info`, or warn of what is ordinary here (a decided header that several nodes
/// publish); the user's filter comes after and may ask for more.
const QUIET: &str = "arc_malachitebft_core_consensus=warn,arc_malachitebft_core_driver=warn,\
    arc_malachitebft_core_votekeeper=warn,libp2p_gossipsub=error,libp2p_swarm=warn,sled=warn";

/// Starts logging by `filter`.
pub(crate) fn start(filter: &str, json: bool) -> Result<(), String> {
    let filter = format!("{QUIET},{filter}");
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).finish().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).finish().try_init()
    };
    started.map_err(|error| format!("logging cannot start: {error}"))
}
