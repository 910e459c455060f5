//! `cta-admin`: commands as values, replies as types, the process runner.
//!
//! Exit status before output; 64-bit integers as strings or numbers; unknown keys tolerated; a reply that did not parse
//! whole is an error, never an empty list.

pub mod command;
pub mod guard;
pub mod reference;
pub mod reply;
mod run;
mod stream;
mod trouble;

pub use command::{Command, Frontend, Query, typed};
pub use guard::Deadline;
pub use reply::Version;
pub use run::{Cta, SECRETS};
pub use stream::{Listed, Owned};
pub use trouble::{Answer, Trouble, site_level};
