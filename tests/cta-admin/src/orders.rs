//! Faults that a test asks for: the next matching invocations misbehave.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::store::Session;

/// What a matching invocation does instead of its work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its work (of use with `sleep_ms`).
    #[default]
    Proceed,
    /// Nothing, until it is killed.
    Hang,
    /// Exit 1 with this text on stderr; nothing is done.
    Exit1(String),
    /// Exit 2 with this text on stderr and, with `--json`, `[]`; nothing is done.
    Exit2(String),
    /// Exit 0 with this text on stdout; nothing is done.
    Text(String),
    /// Does its work, prints half of it and exits with this code.
    Cut(i32),
    /// Does its work, prints half of it and hangs.
    CutThenHang,
    /// Does its work and prints it in ten parts, with so many milliseconds before each.
    Trickle(u64),
    /// This exit code and nothing else; nothing is done.
    Exit(u8),
    /// Exit 0 with nothing on stdout; nothing is done.
    EmptyStdout,
    /// Exit 0 with something that is neither JSON nor UTF-8; nothing is done.
    Garbage,
    /// Exit 0 after so many bytes of a JSON string that never ends; nothing is done.
    Huge(u64),
    /// Does its work, then says that the connection was lost, exit 1.
    ApplyThenExit1,
    /// Does its work, then exits 2 with this text (and `[]`): what a front end says that repeated, after a lost database
    /// connection, what it had already done.
    ApplyThenExit2(String),
    /// Does its work, then hangs.
    ApplyThenHang,
    /// Connection lost, exit 1; the front end does the work so many real milliseconds later.
    LateExit1(u64),
    /// Hangs; the front end does the work so many real milliseconds after the beginning.
    LateHang(u64),
    /// Dies by this signal before doing anything.
    Die(i32),
    /// Does its work, then dies by this signal without printing anything.
    ApplyThenDie(i32),
    /// Leaves a child in its process group that holds its stdout for so many milliseconds, and does its work.
    Grandchild(u64),
    /// Leaves such a child and hangs.
    GrandchildThenHang(u64),
}

/// An order: which invocations, how often, what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Command words in long form: `tape reclaim`, or `tape` for all of its subcommands, or empty for any.
    pub command: String,
    /// Only for this tape.
    pub vid: Option<String>,
    /// Only on this front end (`all`, `user`, `repack`).
    pub frontend: Option<String>,
    /// Only with this argument among the others (`--state`, `REPACKING`, `--all` ...).
    pub argument: Option<String>,
    /// So many matching invocations go through first.
    pub skip: u32,
    /// So many misbehave; `None`: all.
    pub remaining: Option<u32>,
    /// Wait before, in real milliseconds.
    pub sleep_ms: u64,
    /// What happens.
    pub action: Action,
    /// How often it struck.
    pub fired: u32,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            command: String::new(),
            vid: None,
            frontend: None,
            argument: None,
            skip: 0,
            remaining: Some(1),
            sleep_ms: 0,
            action: Action::Proceed,
            fired: 0,
        }
    }
}

impl Order {
    /// Once, for a command (`tape reclaim`).
    pub fn once(command: &str, action: Action) -> Order {
        Order { command: command.into(), action, ..Order::default() }
    }

    /// Every time, for a command.
    pub fn always(command: &str, action: Action) -> Order {
        Order { remaining: None, ..Order::once(command, action) }
    }

    /// Only for this tape.
    pub fn for_vid(mut self, vid: &str) -> Order {
        self.vid = Some(vid.into());
        self
    }

    /// Only on this front end.
    pub fn on(mut self, frontend: &str) -> Order {
        self.frontend = Some(frontend.into());
        self
    }

    /// Only with this argument.
    pub fn with_argument(mut self, argument: &str) -> Order {
        self.argument = Some(argument.into());
        self
    }

    /// So many times instead of once.
    pub fn times(mut self, count: u32) -> Order {
        self.remaining = Some(count);
        self
    }

    /// After so many that go through.
    pub fn after(mut self, skip: u32) -> Order {
        self.skip = skip;
        self
    }

    /// Waits before it acts.
    pub fn sleeping(mut self, ms: u64) -> Order {
        self.sleep_ms = ms;
        self
    }

    fn matches(&self, call: &Matched<'_>) -> bool {
        let command = self.command.is_empty()
            || call.command == self.command
            || call.command.split(' ').next() == Some(self.command.as_str());
        command
            && self.vid.as_deref().is_none_or(|vid| call.vid == Some(vid))
            && self.frontend.as_deref().is_none_or(|name| call.frontend == name)
            && self.argument.as_deref().is_none_or(|word| call.argv.iter().any(|arg| arg == word))
    }
}

/// What an order is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    /// Command words in long form.
    pub command: &'a str,
    /// The tape.
    pub vid: Option<&'a str>,
    /// The front end.
    pub frontend: &'a str,
    /// All arguments.
    pub argv: &'a [String],
}

/// The first order that strikes a call; counts are updated.
pub(crate) fn take(orders: &mut [Order], call: &Matched<'_>) -> Option<Order> {
    for order in orders {
        if order.remaining == Some(0) || !order.matches(call) {
            continue;
        }
        if order.skip > 0 {
            order.skip -= 1;
            continue;
        }
        order.remaining = order.remaining.map(|remaining| remaining - 1);
        order.fired += 1;
        return Some(order.clone());
    }
    None
}

/// Adds an order to a world's directory.
///
/// # Errors
/// If there is no world, or a file cannot be read or written.
pub fn order(dir: &Path, order: Order) -> Result<()> {
    let session = Session::open(dir)?;
    let mut orders = session.orders()?;
    orders.push(order);
    session.set_orders(&orders)?;
    session.commit().map(|_| ())
}

/// Takes all orders back.
///
/// # Errors
/// If there is no world, or a file cannot be written.
pub fn forget_orders(dir: &Path) -> Result<()> {
    let session = Session::open(dir)?;
    session.set_orders(&[])?;
    session.commit().map(|_| ())
}

/// All orders, with how often each struck.
///
/// # Errors
/// If there is no world, or a file cannot be read.
pub fn orders(dir: &Path) -> Result<Vec<Order>> {
    Session::open(dir)?.orders()
}
