//! What a seed is like: how many of everything, and which faults happen how often.

use std::time::Duration;

use common::settings::{Broker, QuarantineState, Settings};

use crate::random::Random;

/// What a seed is like. A fault happens once in so many chances; 0: never.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Tapes in the library.
    pub tapes: usize,
    /// Hosts with a worker each.
    pub workers: usize,
    /// Deliveries at once on each.
    pub concurrency: usize,
    /// Producers.
    pub producers: usize,
    /// An inline run beside them.
    pub inline: bool,
    /// Slots.
    pub slots: u32,
    /// How long there are faults, in milliseconds.
    pub storm: i64,
    /// Only outages of database, broker and site: none may put a tape into mode error.
    pub outages_only: bool,
    /// A tape goes through REPACKING_PENDING.
    pub pends: bool,
    /// A tape rests ACTIVE in quarantine.
    pub active: bool,
    /// A repack takes more than one round.
    pub rounds: bool,
    /// Programs killed.
    pub crash: u64,
    /// Processes stopped for a while.
    pub stop: u64,
    /// Messages lost, copied, late; queues purged; strangers' messages.
    pub letters: u64,
    /// The broker away, or its answer lost.
    pub broker: u64,
    /// A transaction fails, or its answer is lost.
    pub database: u64,
    /// CTA away.
    pub site: u64,
    /// A query fails.
    pub query: u64,
    /// A changing command ends unclear, is refused, or does nothing.
    pub command: u64,
    /// Operators with the manager.
    pub operator: bool,
    /// Somebody with psql.
    pub psql: bool,
    /// People with cta-admin, users, drives.
    pub others: bool,
}

impl Profile {
    /// One of many.
    pub fn of(random: &mut Random) -> Profile {
        let outages_only = random.once_in(6);
        let mut some = |rates: &[u64]| if random.once_in(3) { 0 } else { *random.pick(rates) };
        let (crash, stop, letters) = (some(&[150, 400, 1500]), some(&[150, 500, 2000]), some(&[30, 100, 400]));
        let (broker, database, site) = (some(&[30, 100, 400]), some(&[30, 100, 400]), some(&[3000, 9000]));
        let (query, command) = (some(&[20, 60, 200]), some(&[3, 6, 15]));
        let tapes = 1 + random.index(4);
        let mut flag = |n| random.once_in(n);
        let people = !outages_only;
        let (operator, psql, others) = (people && flag(2), people && flag(2), people && flag(2));
        let (inline, pends, active, rounds) = (flag(5), flag(2), flag(3), flag(4));
        Profile {
            tapes,
            workers: 1 + random.index(3),
            concurrency: 1 + random.index(2),
            producers: 1 + random.index(2),
            inline,
            slots: 1 + u32::from(random.once_in(2)),
            storm: random.of(1..12) * 3_600_000,
            outages_only,
            pends,
            active,
            rounds,
            crash: if outages_only { 0 } else { crash },
            stop,
            letters,
            broker,
            database,
            site: if outages_only { 2000 } else { site },
            query: if outages_only { 0 } else { query },
            command: if outages_only { 0 } else { command },
            operator,
            psql,
            others,
        }
    }

    /// The configuration of the programs.
    pub fn settings(&self) -> Settings {
        let quarantine_state = if self.active { QuarantineState::Active } else { QuarantineState::Disabled };
        let mut settings = Settings {
            max_active_repacks: self.slots,
            quarantine: Duration::from_secs(3 * 3600),
            stall: Duration::from_secs(4 * 3600),
            quarantine_state,
            broker: Some(Broker {
                url: "amqp://model".to_owned(),
                password: None,
                prefix: "p".to_owned(),
                tls: Default::default(),
            }),
            ..Settings::default()
        };
        settings.producer.interval = Duration::from_secs(300);
        settings
    }
}
