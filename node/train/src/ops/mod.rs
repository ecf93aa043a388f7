//! The transformer's parts with hand-written gradients.
//!
//! [`linear`] and [`block`] are plain functions over slices. [`tape`] wraps them as
//! candle custom operations: one per decoder layer and one for the head, so that frozen
//! weights never get a gradient. [`chain`] runs them forward and back.

pub(crate) mod block;
pub(crate) mod chain;
pub(crate) mod image;
pub(crate) mod linear;
pub(crate) mod tape;
