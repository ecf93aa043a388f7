//! How much memory an input may cost.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Most bytes that an input may cost, whatever it claims (THREATS: 64 MB).
const BYTES_MAX: usize = 64 << 20;
/// Most bytes of memory for each byte that came in, beyond a base that small inputs need too.
const BYTES_PER_BYTE: usize = 2_048;
const BASE_BYTES: usize = 8 << 20;

/// Runs `work` and panics when it took more memory than its input may cost.
pub(crate) fn bounded(name: &str, input_bytes: usize, work: impl FnOnce()) {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    work();
    let cost = HEAP.peak_usage().saturating_sub(before);
    let allowed = BASE_BYTES.saturating_add(input_bytes.saturating_mul(BYTES_PER_BYTE)).min(BYTES_MAX);
    assert!(
        cost <= allowed,
        "{name}: {input_bytes} bytes cost {cost} bytes of memory, {allowed} are allowed"
    );
}
