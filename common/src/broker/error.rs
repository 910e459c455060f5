//! What can go wrong with the broker, in the words an operator needs.

use std::fmt;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Why the broker could not be used. Names the broker as `host:port/vhost`, never with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerError {
    /// The `broker` section cannot work as it is; trying again is useless.
    Settings(String),
    /// An exchange or queue exists with other properties than ours; trying again is useless. Nothing was changed or deleted.
    Mismatch {
        /// `queue 'atresys.v1.stage.start'` or `exchange '...'`.
        what: String,
        /// The property that differs, where the broker named it (`x-queue-type`, `durable`).
        argument: Option<String>,
        /// `host:port/vhost`.
        at: String,
        /// The broker's own words.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// The broker said no: login, virtual host, permission, missing queue. A person may put it right while we go on trying.
    Refused {
        /// What was tried: "connecting to RabbitMQ".
        doing: String,
        /// `host:port/vhost`.
        at: String,
        /// The broker's own words.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// No connection, or it was lost, or the broker did not answer in time.
    Lost {
        /// What was tried: "connecting to RabbitMQ".
        doing: String,
        /// `host:port/vhost`.
        at: String,
        /// Why, in words.
        why: String,
    },
    /// The broker ended a consumer: its queue was deleted, or a delivery was held too long.
    Ended {
        /// The queue.
        queue: String,
        /// `host:port/vhost`.
        at: String,
    },
}

impl BrokerError {
    /// Whether trying again cannot help before somebody changes the configuration or the broker's queues: stop the program.
    pub fn is_final(&self) -> bool {
        matches!(self, BrokerError::Settings(_) | BrokerError::Mismatch { .. })
    }

    /// Whether the broker is there but says no: alert a person, and go on trying.
    pub fn is_refusal(&self) -> bool {
        matches!(self, BrokerError::Refused { .. })
    }

    /// An answer that did not come in time.
    pub(super) fn late(doing: &str, at: &str, limit: std::time::Duration) -> BrokerError {
        BrokerError::Lost {
            doing: doing.to_owned(),
            at: at.to_owned(),
            why: format!(
                "no answer within {} s; is the broker up, and not short of disk or memory?",
                limit.as_secs_f64()
            ),
        }
    }

    /// Translates an error of the client library.
    pub(super) fn from_lapin(error: &lapin::Error, doing: &str, at: &str) -> BrokerError {
        let lost = |why: String| BrokerError::Lost { doing: doing.to_owned(), at: at.to_owned(), why };
        let refused = |why: String, advice: &str| BrokerError::Refused {
            doing: doing.to_owned(),
            at: at.to_owned(),
            why,
            advice: advice.to_owned(),
        };
        match error.kind() {
            ErrorKind::ProtocolError(error) => {
                let why = super::task::printable(error.get_message().as_str(), 500);
                match error.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if why.contains("Login was refused") => refused(
                        why,
                        "check the user in broker.url and its password (broker.password_file or CTA_OPS_BROKER_PASSWORD)",
                    ),
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => refused(
                        why,
                        "check the permissions of this user on the virtual host (rabbitmqctl list_permissions -p VHOST)",
                    ),
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => refused(
                        why,
                        "check the virtual host at the end of broker.url and the user's permissions on it (rabbitmqctl list_vhosts; \
                         rabbitmqctl list_permissions -p VHOST)",
                    ),
                    AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
                        refused(why, "it is declared again when the program reconnects; find out who deletes it")
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => refused(
                        why,
                        "a delivery was held longer than the broker's consumer_timeout, or a queue was changed; see the broker's log",
                    ),
                    AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => lost(format!("the broker says {why}")),
                }
            }
            ErrorKind::IOError(error) => lost(error.to_string()),
            ErrorKind::MissingHeartbeatError => lost("the broker fell silent (no heartbeat)".to_owned()),
            ErrorKind::InvalidConnectionState(_)
            | ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidChannel(_) => lost("the connection is closed".to_owned()),
            // The rest says nothing about the configuration; checked: none of these texts holds the url or the password.
            _ => lost(error.to_string()),
        }
    }
}

/// Whether the broker failed inside: it closes the connection, and the same request may well succeed a moment later.
pub(super) fn is_internal(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)))
}

/// The broker's words, if it closed the channel with 406.
pub(super) fn precondition(error: &lapin::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ProtocolError(error)
            if matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)) =>
        {
            Some(super::task::printable(error.get_message().as_str(), 500))
        }
        _ => None,
    }
}

/// Whether the broker closed the channel with 404.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerError::Settings(why) => f.write_str(why),
            BrokerError::Mismatch { what, argument, at, why, advice } => {
                write!(f, "{what} at {at} exists with ")?;
                match argument {
                    Some(argument) => write!(f, "another '{argument}'")?,
                    None => f.write_str("other properties")?,
                }
                write!(f, " than these programs need ({why}); nothing was changed; {advice}")
            }
            BrokerError::Refused { doing, at, why, advice } => {
                write!(f, "{doing} at {at}: the broker says {why}; {advice}")
            }
            BrokerError::Lost { doing, at, why } => write!(f, "{doing} at {at}: {why}"),
            BrokerError::Ended { queue, at } => write!(
                f,
                "the broker ended our consumer of queue '{queue}' at {at}: the queue was deleted, or a delivery was held longer than \
                 its consumer timeout"
            ),
        }
    }
}

impl std::error::Error for BrokerError {}
