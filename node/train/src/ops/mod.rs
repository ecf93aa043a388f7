//! The transformer's parts with hand-written gradients, and their seat on candle's tape.
//!
//! [`linear`] and [`block`] are plain functions over slices. [`tape`] wraps them as
//! candle custom operations: one per decoder layer and one for the head, so that the
//! tape stays a few nodes long and frozen weights never get a gradient.

pub(crate) mod block;
pub(crate) mod linear;
pub(crate) mod tape;
