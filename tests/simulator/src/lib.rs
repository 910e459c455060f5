//! The whole protocol in one thread: the products' own code, run against models of database, broker and CTA by a seeded
//! scheduler with a clock of its own. After every step the invariants are checked; a failure is a seed and a trace.
//!
//! | module | what |
//! |---|---|
//! | [`mod@run`] | one seed: the scheduler, the faults, the end |
//! | [`world`] | clock, processes, what they share |
//! | [`profile`] | what a seed is like |
//! | [`database`], [`broker`], [`cta`], [`admin`] | the models |
//! | [`programs`] | workers and producers, around the products' code |
//! | [`people`] | operators, psql, others |
//! | [`check`] | what must hold |
//! | [`mutation`], [`blind`] | faults of the protocol put in on purpose |
//! | [`random`] | the dice |

pub mod admin;
pub mod blind;
pub mod broker;
pub mod check;
pub mod cta;
pub mod database;
pub mod mutation;
pub mod people;
pub mod profile;
pub mod programs;
pub mod random;
pub mod run;
pub mod world;

pub use mutation::Mutation;
pub use run::{Failure, run, traced};
pub use world::Tally;
