//! Alone in a program of its own: it counts the threads of its process, whoever runs the tests.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does, by a panic")]

use std::time::Duration;

use common::broker::{BrokerError, Link};
use common::settings::{self, Secret};

/// Settings for a broker that is not one.
fn broker_at(address: std::net::SocketAddr) -> settings::Broker {
    settings::Broker {
        url: format!("amqp://user@{address}/v"),
        password: Some(Secret::new("geheim")),
        prefix: "test".into(),
        tls: Default::default(),
    }
}

#[tokio::test]
async fn a_connect_to_a_broker_that_says_nothing_is_given_up_and_leaves_nothing_behind() {
    // The kernel accepts for a process that does not, as for a broker that is stopped.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = broker_at(listener.local_addr().unwrap());
    let connected = tokio::time::timeout(Duration::from_secs(20), Link::connect(&broker, "journeys"))
        .await
        .expect("a limit of its own");
    assert!(matches!(connected, Err(BrokerError::Lost { .. })), "{connected:?}");
    // A broker that hangs for days must not collect a thread for every attempt.
    assert_eq!(client_threads_once_quiet().await, 0);
}

/// Threads of the client library in this process, asked until there are none or for long enough.
async fn client_threads_once_quiet() -> usize {
    let mut left = 0;
    for _ in 0..100 {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        left = names.filter(|name| name.trim() == "lapin-io-loop").count();
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    left
}
