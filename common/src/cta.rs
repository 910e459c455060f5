//! `cta-admin`: commands as values, replies as types, the process runner.
//!
//! Exit status before output; 64-bit integers as strings or numbers; unknown keys tolerated; a reply that did not parse
//! whole is an error, never an empty list.

pub mod command;
pub mod reply;
