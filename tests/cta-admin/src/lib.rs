//! A simulated CTA for tests and the quickstart: a world kept in a directory, and a `cta-admin` that works on it.
//!
//! No product crate depends on this one and it depends on none: both sides implement CTA's behaviour on their own, so
//! that a shared misunderstanding cannot hide.
//!
//! - [`world`]: what exists (tapes, pools, requests) and how this CTA behaves (transport, scheduler, version, faults)
//! - [`generated`]: tapes computed from a number, for worlds too large to keep
//! - [`cli`]: command line to [`cli::Call`], with CTA's usage errors
//! - [`frontend`]: a call applied to a world, with CTA's checks and messages
//! - [`daemon`]: what happens by itself as time passes: pending states, repacks, late effects
//! - [`render`]: rows as CTA prints them
//! - [`mod@orders`]: faults that a test asks for
//! - [`mod@journal`]: what was called and what came of it
//! - [`store`]: the directory, its lock, atomic writes
//! - [`profile`]: ready-made worlds
//! - [`run`]: one invocation of the program

pub mod cli;
pub mod daemon;
pub mod frontend;
pub mod generated;
pub mod journal;
pub mod orders;
pub mod profile;
pub mod render;
pub mod run;
pub mod store;
pub mod world;

pub use generated::generated_tape;
pub use journal::{Effect, Entry, Kind, View, effects, journal, max_active, overlaps};
pub use orders::{Action, Order, forget_orders, order, orders};
pub use run::program;
pub use store::config_path;
pub use world::{Frontend, Keyset, Mode, Plan, Run, Scheduler, Tape, TapeState, Transport, World};
