//! The `tiltyard` binary.
fn main() {}
