//! One program for all targets: `TILTYARD_FUZZ` names the target, libFuzzer does the rest.
//!
//! Each target takes any bytes. It must not panic, must not take memory beyond a bound, and what it accepts must encode
//! to the very bytes that came in. `scripts/fuzz.sh` builds and runs it; seeds come from `proto/golden`, and `corpus/`
//! keeps the few inputs that were once interesting.
//!
//! Deliberately absent: targets that need a disk or a network. Those have their own tests.
#![no_main]

mod decoders;
mod http;
mod ledger;
mod memory;
mod seeds;
#[cfg(feature = "train")]
mod train;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// A target: its name, the kinds of golden bytes that seed it, and what is done with an input.
pub(crate) type Target = (&'static str, &'static [&'static str], fn(&[u8]));

fn targets() -> Vec<Target> {
    let mut all = decoders::targets();
    all.extend(http::targets());
    all.extend(ledger::targets());
    #[cfg(feature = "train")]
    all.extend(train::targets());
    all
}

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// Chooses the target, or lists them all when none is named.
fn choose() -> Target {
    let name = std::env::var("TILTYARD_FUZZ").unwrap_or_default();
    let all = targets();
    let Some(target) = all.iter().find(|(known, ..)| *known == name) else {
        for (known, ..) in &all {
            println!("{known}");
        }
        std::process::exit(if name.is_empty() { 0 } else { 2 });
    };
    if let Some(folder) = std::env::var_os("TILTYARD_FUZZ_SEEDS") {
        seeds::write(target, folder.as_ref());
    }
    *target
}

fuzz_target!(
    init: {
        CHOSEN.get_or_init(choose);
    },
    |data: &[u8]| {
        let (name, _, run) = CHOSEN.get_or_init(choose);
        memory::bounded(name, data.len(), || run(data));
    }
);
