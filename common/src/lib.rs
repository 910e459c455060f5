//! What the programs share.
//!
//! | module | what | touches the world |
//! |---|---|---|
//! | [`journey`] | states, modes, and the one law of how a tape moves | no |
//! | [`tape`] | the VID and the row as a value | no |
//! | [`task`] | the task row and its law: claim, last check, record, abandon | no |
//! | [`stages`] | the one ordered table of stages, a file for each | no |
//! | [`explain`] | why a tape waits, until when, what happens next | no |
//! | [`reason`] | why a tape waits or stopped: the codes | no |
//! | [`rights`] | the roles in the database, named where a login lacks a right | no |
//! | [`retry`] | how long to wait before the next attempt | no |
//! | [`settings`] | the configuration file, checked | reads files |
//! | [`logging`] | lines for people on stderr, JSON lines in a file | writes files |
//! | [`metrics`] | counters, durations and the picture of the site for Prometheus | listens |
//! | [`cta`] | `cta-admin`: commands as values, replies as types, the process runner | runs programs |
//! | [`store`] | every SQL statement, as verbs | PostgreSQL |
//! | [`broker`] | queues, publish, consume | RabbitMQ |
//! | [`tls`] | the one cryptography provider of the process, and TLS to PostgreSQL | reads files |
//! | [`actor`] | who is at the keyboard | asks for the login |
//! | [`failpoint`] | where tests break things; nothing in a product build | no |

pub mod actor;
pub mod broker;
pub mod cta;
pub mod explain;
pub mod failpoint;
pub mod journey;
pub mod logging;
pub mod metrics;
pub mod reason;
pub mod retry;
pub mod rights;
pub mod settings;
pub mod stages;
pub mod store;
pub mod tape;
pub mod task;
pub mod tls;
