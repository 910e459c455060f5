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
            let mut checks = vec![Check::fails("broker", "", said(&error), connect(&error))];
            checks.extend(
                ["broker-version", "exchange", "queue", "parked", "broker-takes-messages"]
                    .map(|check| Check::not_asked(check, "", why)),
            );
            checks
        }
    }
}

/// What went wrong, without the advice, which stands where all advice stands.
fn said(error: &BrokerError) -> String {
    match error {
        BrokerError::Mismatch { argument: Some(argument), why, .. } => {
            format!("has another '{argument}' than these programs need: {why}")
        }
        BrokerError::Mismatch { why, .. } => format!("has other properties than these programs need: {why}"),
        BrokerError::Refused { doing, at, why, .. } => format!("{doing} at {at}: the broker says {why}"),
        other => other.to_string(),
    }
}

/// The advice, with the virtual host filled in.
fn advised(error: &BrokerError) -> Option<String> {
    let (BrokerError::Mismatch { advice, at, .. } | BrokerError::Refused { advice, at, .. }) = error else {
        return None;
    };
    let vhost = at.split_once('/').map_or("/", |(_, vhost)| if vhost == "%2f" { "/" } else { vhost });
    Some(advice.replace("-p VHOST", &format!("-p {vhost}")))
}

/// What to do when there is no connection.
fn connect(error: &BrokerError) -> String {
    match error {
        BrokerError::Refused { .. } => advised(error).unwrap_or_default(),
        BrokerError::Settings(_) => "correct the section broker of the configuration".to_owned(),
        _ => "start RabbitMQ there (on its host: systemctl status rabbitmq-server), or correct broker.url".to_owned(),
    }
}

fn judge(topology: &Topology, seen: &Examination) -> Vec<Check> {
    let mut checks = vec![Check::ok("broker", &seen.at, "answers"), release(seen)];
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

/// Quorum queues with dead letters at least once came with RabbitMQ 3.10.
fn release(seen: &Examination) -> Check {
    let Some(release) = &seen.release else {
        return Check::not_asked("broker-version", "", "it is told only without TLS, and was not");
    };
    let number = release.strip_prefix("RabbitMQ ").and_then(|version| {
        let mut parts = version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    match number {
        Some(number) if number < (3, 10) => {
            Check::fails("broker-version", "", release.as_str(), "upgrade to RabbitMQ 3.10 or newer")
        }
        Some(_) => Check::ok("broker-version", "", release.as_str()),
        None => Check::warning("broker-version", "", release.as_str(), "RabbitMQ 3.10 or newer is what was tested"),
    }
}

fn missing(check: &'static str, name: &str) -> Check {
    let mend = "start a worker, or let the producer tick once: cta-ops-repack-producer tick";
    Check::warning(check, name, "is not there; the programs create it when they start", mend)
}

fn bad(check: &'static str, name: &str, error: &BrokerError) -> Check {
    let mend = advised(error).unwrap_or_else(|| "look at the broker's log".to_owned());
    Check::fails(check, name, said(error), mend)
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
        Some(Err(error)) => {
            let alarms = "rabbitmq-diagnostics check_local_alarms, on the broker's host: free disk or memory";
            Check::fails("broker-takes-messages", "", said(error), advised(error).unwrap_or_else(|| alarms.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn releases_before_those_with_the_queues_we_need_are_refused() {
        for (text, expected) in [
            (Some("RabbitMQ 3.9.29"), Verdict::Fails),
            (Some("RabbitMQ 3.10.0"), Verdict::Ok),
            (Some("RabbitMQ 4.1.3"), Verdict::Ok),
            (Some("RabbitMQ 4.2.0-beta.1"), Verdict::Ok),
            (Some("LavinMQ 2.0.0"), Verdict::Warning),
            (None, Verdict::NotAsked),
        ] {
            let seen = Examination {
                at: "h:1/v".into(),
                release: text.map(str::to_owned),
                exchanges: Vec::new(),
                queues: Vec::new(),
                takes: None,
            };
            assert_eq!(release(&seen).result, expected, "{text:?}");
        }
    }

    #[test]
    fn advice_names_the_virtual_host_that_is_meant() {
        for (at, vhost) in [("h:1/v", "-p v "), ("h:1/%2f", "-p / ")] {
            let (advice, at) = ("rabbitmqctl -p VHOST x".to_owned(), at.to_owned());
            let error = BrokerError::Mismatch { what: "queue".into(), argument: None, at, why: "no".into(), advice };
            assert!(bad("queue", "q", &error).mend.is_some_and(|mend| mend.contains(vhost)));
        }
    }
}
