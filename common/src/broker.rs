//! RabbitMQ: the queues of the stages, publish with confirms, consume, dead letters.
//!
//! A message is a nudge: it names a tape and a stage and says nothing else. Losing one, getting one twice or late is harmless; what
//! this module must never do is pretend: a publish is confirmed, returned, refused or *unknown*; a consumer that ended is an
//! error; an acknowledgement that was not sent is an error.
//!
//! Nothing here reconnects by itself. Any error means: drop [`Publisher`] or [`Consumer`], wait ([`crate::retry::Delays`]), declare the
//! [`Topology`] and connect again. A client that repairs itself piece by piece can end up connected and deaf.
//!
//! Publishing and consuming use separate connections: a broker short of disk or memory stops reading from publishing connections,
//! and acknowledgements must not wait behind that.

mod consume;
mod error;
mod greeting;
mod link;
mod parked;
mod publish;
mod task;
mod topology;

pub use consume::{Consumer, Death, Delivery, Source};
pub use error::BrokerError;
pub use link::{Depth, Link};
pub use parked::{Parked, ParkedMessage};
pub use publish::{PublishError, Publisher};
pub use task::{NotATask, Task, is_stage_name};
pub use topology::{Examination, There, Topology};
