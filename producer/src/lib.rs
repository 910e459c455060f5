//! The producer: see `tick`.

pub mod statistics;
pub mod tick;
