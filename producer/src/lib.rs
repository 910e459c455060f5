//! The producer: chooses and enters tapes, and sees to it that what is due is done.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line, under this program's name and under those of ATRESYS |
//! | [`commands`] | what each command does, from the configuration to the exit code |
//! | [`scan`] | which tapes are worth a repack |
//! | [`prepare`] | enters tapes, after every check |
//! | [`tick`] | what is due: published, or done here |
//! | [`edge`] | the database and the broker, the real ones or models of them |
//! | [`monitor`] | the table as JSON lines |
//! | [`statistics`] | the lines of ended repacks, into their file |
//! | [`append`] | files that others read while we add to them |
//! | [`observe`] | the picture of the site for Prometheus, after every tick |
//! | [`mail`], [`digest`], [`sendmail`] | the tapes that need a person: whether to tell, what, and to whom |
//! | [`output`] | reports for people |

pub mod append;
pub mod cli;
pub mod commands;
pub mod digest;
pub mod edge;
pub mod mail;
pub mod monitor;
pub mod observe;
pub mod output;
pub mod prepare;
pub mod scan;
pub mod sendmail;
pub mod statistics;
pub mod tick;
