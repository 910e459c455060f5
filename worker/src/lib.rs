//! The worker: claims a tape, looks, acts through `cta-admin`, looks again, records.
//!
//! | module | what |
//! |---|---|
//! | [`delivery`] | the life of one delivery, with a broker and without |
//! | [`look`] | what a stage wants to see, asked of CTA |
//! | [`edge`] | the database and CTA, the real ones or models of them |
//! | [`listing`] | the listing of a tape's files, written before its repack |
//! | [`dead_letter`] | dead letters: mode error, if a Stop is behind them |
//! | [`cleanup`] | listings of this host that nobody needs any more |
//! | [`service`] | consuming: connections, concurrency, outages, the end |
//! | [`notify`] | what the service manager is told |
//! | [`program`] | how a program begins and ends; the producer's too |
//! | [`cli`] | the worker's command line |

pub mod cleanup;
pub mod cli;
pub mod dead_letter;
pub mod delivery;
pub mod edge;
pub mod listing;
pub mod look;
pub mod notify;
pub mod program;
pub mod service;
