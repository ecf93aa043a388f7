//! The machine that the figures come from, as far as it tells.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// Facts of the machine at the start of a benchmark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    /// Mean number of running tasks over the last minute: well above 0 means that others used the machine.
    pub(crate) load_before: f64,
    /// Built with optimisation.
    pub(crate) optimised: bool,
}

impl Machine {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned());
        let memory_kb: f64 = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        Self {
            processor,
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gb: (memory_kb / 1e6 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            optimised: !cfg!(debug_assertions),
        }
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{}, {} cores, {} GB, Linux {}, load before {:.2}{}",
            self.processor,
            self.cores,
            self.memory_gb,
            self.kernel,
            self.load_before,
            if self.optimised { "" } else { ", NOT OPTIMISED" }
        )
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}
