//! Limits a job sets on its own process before it reads anything from strangers.

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use super::JobError;
use super::spec::Limits;

/// The priority jobs run at: the lowest, so that the node itself is never starved.
const NICE: i32 = 19;

/// Lowers the priority and applies the limits.
///
/// Memory beyond its limit aborts the process, processor time beyond its limit kills it,
/// and a file beyond its limit fails the write. Filters on system calls belong here too.
///
/// # Errors
/// [`JobError::Limit`] when the system refuses one.
pub(crate) fn apply(limits: &Limits) -> Result<(), JobError> {
    let refused = |what| move |source: rustix::io::Errno| JobError::Limit { what, source: source.into() };
    nice(NICE).map_err(refused("priority"))?;
    set(Resource::As, limits.memory_bytes_max).map_err(refused("memory"))?;
    set(Resource::Fsize, limits.file_bytes_max).map_err(refused("file size"))?;
    set(Resource::Cpu, limits.cpu_seconds_max).map_err(refused("processor time"))?;
    set(Resource::Core, Some(0)).map_err(refused("core dumps"))
}

/// Lowers one limit; never raises what the parent already set lower.
fn set(resource: Resource, wanted: Option<u64>) -> rustix::io::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let wanted = getrlimit(resource).maximum.map_or(wanted, |most| most.min(wanted));
    setrlimit(resource, Rlimit { current: Some(wanted), maximum: Some(wanted) })
}
