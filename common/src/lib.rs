//! What the programs share.
//!
//! | module | what | touches the world |
//! |---|---|---|
//! | [`journey`] | states, modes, and the one law of how a tape moves | no |
//! | [`tape`] | the VID and the row as a value | no |
//! | [`task`] | the task row and its law: claim, last check, record, abandon | no |
//! | [`stages`] | the one ordered table of stages, a file for each | no |
//! | [`settings`] | the configuration file, checked | reads files |
//! | [`logging`] | lines for people on stderr, JSON lines in a file | writes files |
//! | [`cta`] | `cta-admin`: commands as values, replies as types, the process runner | runs programs |
//! | [`store`] | every SQL statement, as verbs | PostgreSQL |
//! | [`broker`] | queues, publish, consume | RabbitMQ |

pub mod cta;
pub mod journey;
pub mod logging;
pub mod settings;
pub mod tape;
