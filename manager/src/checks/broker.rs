//! The broker: reachable, queues as we declare them, somebody at work, nothing parked.

use common::broker::{BrokerError, Depth, Examination, There, Topology};
use common::settings::Settings;
use common::stages::STAGES;

use super::Check;

/// Asks the broker everything, if one is configured.
pub async fn checks(settings: &Settings) -> Vec<Check> {
    let Some(broker) = &settings.broker else {
        return vec![Check::ok("broker", "", "none is configured: the commands do the work themselves")];
    };
    let topology = match Topology::new(&broker.prefix, STAGES.map(|stage| stage.name)) {
        Ok(topology) => topology,
        Err(error) => return vec![Check::fails("broker", "", error.to_string(), "correct broker.prefix")],
    };
    match topology.examine(broker, "cta-ops-repack-manager").await {
        Ok(seen) => judge(&topology, &seen),
        Err(error) => {
            let why = "the broker cannot be reached";
            let mut checks = vec![Check::fails("broker", "", error.to_string(), connect(&error))];
            checks.extend(
                ["exchange", "queue", "parked", "broker-takes-messages"].map(|check| Check::not_asked(check, "", why)),
            );
            checks
        }
    }
}

/// What to do when there is no connection.
fn connect(error: &BrokerError) -> String {
    match error {
        BrokerError::Refused { advice, .. } => advice.clone(),
        BrokerError::Settings(_) => "correct the section broker of the configuration".to_owned(),
        _ => "start RabbitMQ there (on its host: systemctl status rabbitmq-server), or correct broker.url".to_owned(),
    }
}

fn judge(topology: &Topology, seen: &Examination) -> Vec<Check> {
    let mut checks = vec![Check::ok("broker", &seen.at, "answers")];
    for (name, there) in &seen.exchanges {
        checks.push(match there {
            There::Good(_) => Check::ok("exchange", name, "as it should be"),
            There::Missing => missing("exchange", name),
            There::Bad(error) => bad("exchange", name, error),
        });
    }
    for (name, there) in &seen.queues {
        let stage = topology.stages().iter().find(|stage| topology.stage_queue(stage) == *name);
        let parked = *name == topology.parked_queue();
        checks.push(match there {
            There::Missing => missing("queue", name),
            There::Bad(error) => bad("queue", name, error),
            There::Good(depth) => {
                let depth = depth.unwrap_or(Depth { messages: 0, consumers: 0 });
                if parked { parking(name, depth) } else { consumed(name, stage.map(String::as_str), depth) }
            }
        });
    }
    checks.push(takes(seen));
    checks
}

fn missing(check: &'static str, name: &str) -> Check {
    let mend = "start a worker, or let the producer tick once: cta-ops-repack-producer tick";
    Check::warning(check, name, "is not there; the programs create it when they start", mend)
}

fn bad(check: &'static str, name: &str, error: &BrokerError) -> Check {
    let mend = match error {
        BrokerError::Mismatch { advice, .. } | BrokerError::Refused { advice, .. } => advice.clone(),
        _ => "look at the broker's log".to_owned(),
    };
    Check::fails(check, name, error.to_string(), mend)
}

fn consumed(name: &str, stage: Option<&str>, depth: Depth) -> Check {
    let found = format!("{} messages ready, {} consumers", depth.messages, depth.consumers);
    match (depth.consumers, stage) {
        (0, Some(stage)) => Check::warning(
            "queue",
            name,
            format!("{found}: no worker serves {stage}"),
            format!("cta-ops-repack-worker --stages {stage}, or start its service on a worker host"),
        ),
        (0, None) => Check::warning(
            "queue",
            name,
            format!("{found}: no worker handles dead letters"),
            "start a worker: each handles dead letters too",
        ),
        _ => Check::ok("queue", name, found),
    }
}

fn parking(name: &str, depth: Depth) -> Check {
    match depth.messages {
        0 => Check::ok("parked", name, "holds nothing"),
        count => Check::warning(
            "parked",
            name,
            format!("holds {count} messages that name no tape"),
            "cta-ops-repack-manager dead ls",
        ),
    }
}

fn takes(seen: &Examination) -> Check {
    match &seen.takes {
        None => Check::not_asked("broker-takes-messages", "", "there is no exchange to publish to"),
        Some(Ok(())) => Check::ok("broker-takes-messages", "", "it took one that no queue is bound for"),
        Some(Err(error @ BrokerError::Refused { advice, .. })) => {
            Check::fails("broker-takes-messages", "", error.to_string(), advice.clone())
        }
        Some(Err(error)) => {
            let mend = "rabbitmq-diagnostics check_local_alarms, on the broker's host: free disk or memory";
            Check::fails("broker-takes-messages", "", error.to_string(), mend)
        }
    }
}
