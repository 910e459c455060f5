//! The broker module against a real RabbitMQ.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does, by a panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::broker::{BrokerError, Consumer, Delivery, Link, PublishError, Publisher, Source, Task, Topology};
use common::settings::{self, Secret};
use journeys::proxy::Proxy;
use journeys::services::{Services, TestVhost};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

const APP: &str = "journeys";
const STAGES: [&str; 5] = ["start", "end", "quarantine", "reclaim", "finish"];

/// A bound for what must happen soon: a test that waits longer has failed.
const SOON: Duration = Duration::from_secs(20);

fn topology() -> Topology {
    Topology::new("test", STAGES).unwrap()
}

async fn declared() -> (TestVhost, Topology) {
    let (vhost, topology) = (Services::get().fresh_vhost(), topology());
    topology.declare(&vhost.broker(), APP).await.unwrap();
    (vhost, topology)
}

fn task(number: u32) -> Task {
    Task { tape: format!("V{number:05}").parse().unwrap(), stage: "start".into(), generation: 7 }
}

async fn consumer(vhost: &TestVhost, prefetch: u16) -> Consumer {
    Consumer::connect(&vhost.broker(), &topology(), &["start".to_owned()], prefetch, APP).await.unwrap()
}

async fn publisher(vhost: &TestVhost) -> Publisher {
    Publisher::connect(&vhost.broker(), APP, 1).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, BrokerError> {
    tokio::time::timeout(SOON, consumer.next()).await.expect("the consumer says something soon")
}

async fn delivered(consumer: &mut Consumer) -> Delivery {
    next(consumer).await.unwrap()
}

/// How many messages a queue holds, asked until it is `expected` or for long enough: what a broken client leaves behind goes back a
/// little later.
async fn holds(vhost: &TestVhost, queue: &str, expected: u32) -> bool {
    let link = Link::connect(&vhost.broker(), APP).await.unwrap();
    for _ in 0..200 {
        if link.depth(queue).await.unwrap().map(|depth| depth.messages) == Some(expected) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// The broker of this virtual host behind a proxy, `query` at the end of its url.
async fn behind_a_proxy(vhost: &TestVhost, query: &str) -> (Proxy, settings::Broker) {
    let proxy = Proxy::to(&vhost.address()).await;
    let broker = vhost.broker();
    let url = format!("{}{query}", broker.url.replace(&vhost.address(), &proxy.address()));
    (proxy, settings::Broker { url, ..broker })
}

/// Settings for a broker that is not one.
fn broker_at(address: std::net::SocketAddr) -> settings::Broker {
    settings::Broker {
        url: format!("amqp://user@{address}/v"),
        password: Some(Secret::new("geheim")),
        prefix: "test".into(),
        tls: Default::default(),
    }
}

/// A plain client: what an operator or another program does to the queues.
async fn foreign(vhost: &TestVhost) -> (Connection, Channel) {
    let broker = vhost.broker();
    let mut uri: lapin::uri::AMQPUri = broker.url.parse().unwrap();
    uri.authority.userinfo.password = broker.password.unwrap().reveal().to_owned();
    let connection = Connection::connect_uri(uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

#[tokio::test]
async fn declaring_again_changes_nothing() {
    let (vhost, topology) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();
    topology.declare(&vhost.broker(), APP).await.unwrap();
    assert!(holds(&vhost, "test.v1.stage.start", 1).await);
}

#[tokio::test]
async fn the_queues_have_exactly_the_properties_that_keep_messages() {
    let (vhost, _) = declared().await;
    let (_, queues) = vhost.api("GET", &format!("/api/queues/{}", vhost.name()), None).unwrap();
    let mut seen = BTreeSet::new();
    for queue in queues.as_array().unwrap() {
        let name = queue["name"].as_str().unwrap();
        let expected = if name.starts_with("test.v1.stage.") {
            serde_json::json!({
                "x-queue-type": "quorum", "x-dead-letter-exchange": "test.v1.dead", "x-dead-letter-routing-key": "dead",
                "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-delivery-limit": 20,
            })
        } else {
            serde_json::json!({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000})
        };
        assert_eq!(queue["arguments"], expected, "{name}");
        assert_eq!(queue["durable"], true, "{name}");
        seen.insert(name.to_owned());
    }
    let expected = STAGES.map(|stage| format!("test.v1.stage.{stage}")).into_iter();
    assert_eq!(seen, expected.chain(["test.v1.dead".to_owned(), "test.v1.parked".to_owned()]).collect());
}

#[tokio::test]
async fn many_clients_may_declare_at_once() {
    let vhost = Services::get().fresh_vhost();
    let declaring = (0..8).map(|_| {
        let broker = vhost.broker();
        tokio::spawn(async move { topology().declare(&broker, APP).await })
    });
    for declared in declaring.collect::<Vec<_>>() {
        declared.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_queue_with_other_properties_is_named_and_left_alone() {
    let vhost = Services::get().fresh_vhost();
    let (_connection, channel) = foreign(&vhost).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("test.v1.stage.end".into(), options, FieldTable::default()).await.unwrap();
    channel
        .basic_publish(
            "".into(),
            "test.v1.stage.end".into(),
            lapin::options::BasicPublishOptions::default(),
            b"precious",
            lapin::BasicProperties::default(),
        )
        .await
        .unwrap()
        .await
        .unwrap();

    let error = topology().declare(&vhost.broker(), APP).await.unwrap_err();
    assert!(error.is_final());
    let BrokerError::Mismatch { what, argument, .. } = &error else { panic!("{error:?}") };
    assert_eq!(what, "queue 'test.v1.stage.end'");
    assert!(argument.as_deref().is_some_and(|argument| argument.starts_with("x-")), "{argument:?}");
    let text = error.to_string();
    for word in ["test.v1.stage.end", vhost.name(), "inequivalent arg", "nothing was changed", "delete_queue"] {
        assert!(text.contains(word), "{text} does not say {word}");
    }
    assert!(holds(&vhost, "test.v1.stage.end", 1).await, "the foreign queue and its message are still there");
}

#[tokio::test]
async fn a_published_task_arrives_with_its_properties() {
    let (vhost, _) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();

    let (_connection, channel) = foreign(&vhost).await;
    let got = channel.basic_get("test.v1.stage.start".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(Task::decode(&got.delivery.data).unwrap(), task(1));
    let properties = &got.delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.kind()).as_deref(), Some("task"));
    assert_eq!(text(properties.app_id()).as_deref(), Some(APP));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(text(properties.message_id()).is_some_and(|id| id.starts_with("V00001.start.7.")));
    assert!(properties.timestamp().is_some_and(|seconds| seconds > 1_700_000_000));
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers.get("tape"), Some(&AMQPValue::LongString("V00001".into())));
    assert_eq!(headers.get("stage"), Some(&AMQPValue::LongString("start".into())));
    assert_eq!(headers.get("generation"), Some(&AMQPValue::LongLongInt(7)));
}

#[tokio::test]
async fn an_acknowledged_task_is_gone_for_good() {
    let (vhost, _) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();
    let mut consumer = consumer(&vhost, 1).await;
    let delivery = delivered(&mut consumer).await;
    assert_eq!(delivery.source, Source::Stage("start".into()));
    assert!(!delivery.redelivered);
    assert!(delivery.deaths.is_empty());
    delivery.ack().await.unwrap();
    consumer.close().await;
    assert!(holds(&vhost, "test.v1.stage.start", 0).await);
}

#[tokio::test]
async fn a_task_that_no_queue_takes_comes_back() {
    let (vhost, topology) = declared().await;
    vhost.unbind("test.v1.stage.start", "test.v1.tasks", "start");
    let publisher = publisher(&vhost).await;
    let error = publisher.publish(&task(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable(_)), "{error:?}");
    assert!(error.to_string().contains("V00001"), "{error}");
    // The publisher is still good, and so is the next message once the binding is back.
    assert!(!publisher.is_broken());
    topology.declare(&vhost.broker(), APP).await.unwrap();
    publisher.publish(&task(2)).await.unwrap();
    assert!(holds(&vhost, "test.v1.stage.start", 1).await);
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_publisher_lives_on() {
    let (vhost, _) = declared().await;
    vhost.policy("short", "^test\\.v1\\.stage\\.", &serde_json::json!({"max-length": 1}));
    let publisher = publisher(&vhost).await;
    // A quorum queue overshoots its length a little before it refuses.
    let mut refused = None;
    for number in 1..200 {
        if let Err(error) = publisher.publish(&task(number)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(PublishError::Nack(_))), "{refused:?}");
    let other = Task { stage: "end".into(), ..task(1) };
    publisher.publish(&other).await.unwrap();
}

#[tokio::test]
async fn without_the_exchange_a_task_is_refused_and_certainly_not_delivered() {
    let vhost = Services::get().fresh_vhost();
    let publisher = publisher(&vhost).await;
    let error = publisher.publish(&task(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused(BrokerError::Refused { .. })), "{error:?}");
    assert!(error.is_broken() && publisher.is_broken());
    assert!(error.to_string().contains("test.v1.tasks"), "{error}");
    let error = publisher.publish(&task(2)).await.unwrap_err();
    assert!(matches!(error, PublishError::Closed(_)), "{error:?}");
}

#[tokio::test]
async fn of_many_tasks_at_once_each_gets_its_own_answer() {
    let (vhost, _) = declared().await;
    vhost.unbind("test.v1.stage.end", "test.v1.tasks", "end");
    let publisher = Arc::new(Publisher::connect(&vhost.broker(), APP, 4).await.unwrap());
    let publishing: Vec<_> = (0..200)
        .map(|number| {
            let publisher = Arc::clone(&publisher);
            let routable = number % 2 == 0;
            let task = Task { stage: if routable { "start" } else { "end" }.into(), ..task(number) };
            tokio::spawn(async move { (routable, publisher.publish(&task).await) })
        })
        .collect();
    for published in publishing {
        match published.await.unwrap() {
            (true, answer) => assert_eq!(answer, Ok(())),
            (false, answer) => assert!(matches!(answer, Err(PublishError::Unroutable(_))), "{answer:?}"),
        }
    }
    let mut consumer = consumer(&vhost, 200).await;
    let mut arrived = BTreeSet::new();
    for _ in 0..100 {
        let delivery = delivered(&mut consumer).await;
        arrived.insert(Task::decode(&delivery.body).unwrap().tape.to_string());
        delivery.ack().await.unwrap();
    }
    assert_eq!(arrived, (0..200).step_by(2).map(|number| format!("V{number:05}")).collect());
}

#[tokio::test]
async fn a_publish_given_up_half_way_does_not_lend_its_answer_to_the_next() {
    let (vhost, _) = declared().await;
    let publisher = publisher(&vhost).await;
    {
        let (task, mut context) = (task(1), std::task::Context::from_waker(std::task::Waker::noop()));
        let mut publishing = Box::pin(publisher.publish(&task));
        assert!(std::future::Future::poll(publishing.as_mut(), &mut context).is_pending());
    }
    assert!(publisher.is_broken());
    let error = publisher.publish(&task(2)).await.unwrap_err();
    assert!(matches!(error, PublishError::Closed(_)), "{error:?}");
}

#[tokio::test]
async fn those_who_wait_for_a_channel_are_told_when_the_publisher_breaks() {
    let (vhost, _) = declared().await;
    let (proxy, broker) = behind_a_proxy(&vhost, "").await;
    let publisher = Publisher::connect(&broker, APP, 1).await.unwrap().with_limit(Duration::from_millis(300));
    proxy.freeze();
    let (one, two) = (task(1), task(2));
    let both = async { tokio::join!(publisher.publish(&one), publisher.publish(&two)) };
    let (first, second) = tokio::time::timeout(SOON, both).await.expect("nobody waits for ever");
    assert!(matches!(first, Err(PublishError::Unknown(_))), "{first:?}");
    assert!(matches!(second, Err(PublishError::Closed(_))), "{second:?}");
}

#[tokio::test]
async fn a_publish_that_is_not_answered_in_time_is_unknown_and_may_be_there_nevertheless() {
    let (vhost, _) = declared().await;
    let (proxy, broker) = behind_a_proxy(&vhost, "").await;
    let publisher = Publisher::connect(&broker, APP, 1).await.unwrap().with_limit(Duration::from_millis(300));
    publisher.publish(&task(1)).await.unwrap();
    proxy.freeze_answers();
    let error = publisher.publish(&task(2)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unknown(_)), "{error:?}");
    assert!(publisher.is_broken());
    assert!(holds(&vhost, "test.v1.stage.start", 2).await, "only the confirm was lost");
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_by_its_heartbeat() {
    let (vhost, _) = declared().await;
    let (proxy, broker) = behind_a_proxy(&vhost, "?heartbeat=1").await;
    let mut consumer = Consumer::connect(&broker, &topology(), &["start".to_owned()], 1, APP).await.unwrap();
    proxy.freeze();
    let error = next(&mut consumer).await.unwrap_err();
    assert!(matches!(error, BrokerError::Lost { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_over_a_silent_connection_does_not_wait_for_ever() {
    let (vhost, _) = declared().await;
    let (proxy, broker) = behind_a_proxy(&vhost, "").await;
    let link = Link::connect(&broker, APP).await.unwrap();
    proxy.freeze();
    let asked = tokio::time::timeout(SOON, link.depth("test.v1.stage.start")).await.expect("a limit of its own");
    assert!(matches!(asked, Err(BrokerError::Lost { .. })), "{asked:?}");
}

#[tokio::test]
async fn a_lost_connection_breaks_the_publisher_at_once() {
    let (vhost, _) = declared().await;
    let publisher = publisher(&vhost).await;
    publisher.publish(&task(1)).await.unwrap();
    assert_eq!(vhost.cut_connections(APP), 1);
    let error = tokio::time::timeout(SOON, async {
        loop {
            if let Err(error) = publisher.publish(&task(2)).await {
                break error;
            }
        }
    })
    .await
    .expect("a cut connection is noticed soon");
    assert!(matches!(error, PublishError::Unknown(_)), "{error:?}");
    assert!(publisher.is_broken());
}

#[tokio::test]
async fn a_rejected_task_arrives_as_a_dead_letter_and_says_so() {
    let (vhost, _) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();
    let mut consumer = consumer(&vhost, 1).await;
    delivered(&mut consumer).await.reject().await.unwrap();
    let dead = delivered(&mut consumer).await;
    assert_eq!(dead.source, Source::Dead);
    assert_eq!(Task::decode(&dead.body).unwrap(), task(1));
    let newest = &dead.deaths[0];
    assert_eq!((newest.reason.as_str(), newest.queue.as_str(), newest.count), ("rejected", "test.v1.stage.start", 1));
    dead.ack().await.unwrap();
}

#[tokio::test]
async fn a_task_that_comes_back_too_often_becomes_a_dead_letter() {
    let (vhost, _) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();
    let mut consumer = consumer(&vhost, 1).await;
    for returned in 0..30 {
        let delivery = delivered(&mut consumer).await;
        if delivery.source == Source::Dead {
            assert!(returned >= 20, "after {returned} returns");
            assert_eq!(delivery.deaths[0].reason, "delivery_limit");
            return delivery.ack().await.unwrap();
        }
        delivery.give_back().await.unwrap();
    }
    panic!("returned for ever");
}

#[tokio::test]
async fn a_body_that_names_no_tape_is_parked_with_its_reason() {
    let (vhost, topology) = declared().await;
    publisher(&vhost).await.park(b"\xff\x00garbage", "test.v1.stage.start", "not a task:\nwhy").await.unwrap();
    let (_connection, channel) = foreign(&vhost).await;
    let parked = channel.basic_get(topology.parked_queue().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(parked.delivery.data, b"\xff\x00garbage");
    let headers = parked.delivery.properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers.get("from"), Some(&AMQPValue::LongString("test.v1.stage.start".into())));
    assert_eq!(headers.get("why"), Some(&AMQPValue::LongString("not a task:\\nwhy".into())));
}

/// With small frames the broker would close our connection instead of sending the header that a stranger wrote, again and again.
#[tokio::test]
async fn a_message_of_many_frames_with_a_header_larger_than_a_frame_arrives_whole() {
    let (vhost, topology) = declared().await;
    let (_connection, channel) = foreign(&vhost).await;
    let body: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut headers = FieldTable::default();
    headers.insert("note".into(), AMQPValue::LongString("x".repeat(100_000).into()));
    let properties = BasicProperties::default().with_headers(headers);
    let queue = topology.stage_queue("start");
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, &body, properties).await.unwrap().await.unwrap();
    let delivery = delivered(&mut consumer(&vhost, 5).await).await;
    assert!(delivery.body == body, "{} bytes", delivery.body.len());
    publisher(&vhost).await.park(&body, "test.v1.stage.start", "not a task").await.unwrap();
    let parked = channel.basic_get(topology.parked_queue().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(parked.delivery.data == body, "{} bytes", parked.delivery.data.len());
}

#[tokio::test]
async fn at_most_the_prefetch_is_in_hand() {
    let (vhost, _) = declared().await;
    let publisher = publisher(&vhost).await;
    for number in 0..5 {
        publisher.publish(&task(number)).await.unwrap();
    }
    let mut consumer = consumer(&vhost, 2).await;
    let in_hand = [delivered(&mut consumer).await, delivered(&mut consumer).await];
    assert!(holds(&vhost, "test.v1.stage.start", 3).await);
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    for delivery in in_hand {
        delivery.ack().await.unwrap();
    }
    delivered(&mut consumer).await.ack().await.unwrap();
}

#[tokio::test]
async fn a_deleted_queue_ends_the_consumer_with_an_error() {
    let (vhost, _) = declared().await;
    let mut consumer = consumer(&vhost, 1).await;
    vhost.delete_queue("test.v1.stage.start");
    let error = next(&mut consumer).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Ended { queue, .. } if queue == "test.v1.stage.start"), "{error:?}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn a_deleted_dead_letter_queue_ends_the_consumer_too() {
    let (vhost, topology) = declared().await;
    let mut consumer = consumer(&vhost, 1).await;
    vhost.delete_queue(&topology.dead_queue());
    assert!(matches!(next(&mut consumer).await.unwrap_err(), BrokerError::Ended { .. }));
}

#[tokio::test]
async fn a_lost_connection_ends_the_consumer_and_answers_in_hand_are_errors() {
    let (vhost, _) = declared().await;
    publisher(&vhost).await.publish(&task(1)).await.unwrap();
    let mut consumer = consumer(&vhost, 1).await;
    let in_hand = delivered(&mut consumer).await;
    assert!(vhost.cut_connections(APP) >= 1);
    let error = next(&mut consumer).await.unwrap_err();
    assert!(matches!(error, BrokerError::Lost { .. }), "{error:?}");
    let error = in_hand.ack().await.unwrap_err();
    assert!(error.to_string().contains("comes again"), "{error}");

    let mut again = self::consumer(&vhost, 1).await;
    let delivery = delivered(&mut again).await;
    assert!(delivery.redelivered);
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_consumer_of_a_missing_queue_is_refused_with_its_name() {
    let vhost = Services::get().fresh_vhost();
    let error = Consumer::connect(&vhost.broker(), &topology(), &["start".to_owned()], 1, APP).await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("test.v1.stage.start"), "{error}");
}

#[tokio::test]
async fn a_consumer_that_stops_taking_loses_nothing_and_may_answer_what_it_holds() {
    let (vhost, _) = declared().await;
    let publisher = publisher(&vhost).await;
    for number in 0..5 {
        publisher.publish(&task(number)).await.unwrap();
    }
    let mut consumer = consumer(&vhost, 3).await;
    let in_hand = delivered(&mut consumer).await;
    assert!(holds(&vhost, "test.v1.stage.start", 2).await, "three are with the consumer, one of them in hand");
    consumer.stop_taking().await.unwrap();
    assert!(holds(&vhost, "test.v1.stage.start", 4).await, "what was not handed out is back");
    in_hand.ack().await.unwrap();
    assert!(next(&mut consumer).await.is_err());
    consumer.close().await;
    assert!(holds(&vhost, "test.v1.stage.start", 4).await, "the one in hand was acknowledged");
}

#[tokio::test]
async fn the_depth_of_a_queue_is_exact_and_a_missing_one_is_no_error() {
    let (vhost, _) = declared().await;
    let publisher = publisher(&vhost).await;
    assert_eq!(publisher.depth("test.v1.stage.nothing").await.unwrap(), None);
    publisher.publish(&task(1)).await.unwrap();
    let depth = publisher.depth("test.v1.stage.start").await.unwrap().unwrap();
    assert_eq!((depth.messages, depth.consumers), (1, 0));
    let _consumer = consumer(&vhost, 1).await;
    assert_eq!(publisher.depth("test.v1.stage.start").await.unwrap().unwrap().consumers, 1);
}

#[tokio::test]
async fn connections_and_consumers_say_whose_they_are() {
    let (vhost, _) = declared().await;
    let _consumer = consumer(&vhost, 1).await;
    let expected = ["start", "dead"].map(|label| format!(":{}:{label}", std::process::id()));
    let mut tags = Vec::new();
    // The management plugin lists consumers some seconds late.
    for _ in 0..1200 {
        let (_, consumers) = vhost.api("GET", &format!("/api/consumers/{}", vhost.name()), None).unwrap();
        let listed = consumers.as_array().unwrap().iter();
        tags = listed.filter_map(|consumer| consumer["consumer_tag"].as_str().map(str::to_owned)).collect();
        if tags.len() == expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for end in expected {
        assert!(tags.iter().any(|tag| tag.ends_with(&end)), "{tags:?} has none with {end}");
    }
    assert_eq!(vhost.cut_connections(&format!("{APP}@")), 1);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_shown_nowhere() {
    let vhost = Services::get().fresh_vhost();
    let broker = settings::Broker { password: Some(Secret::new("hunter2-geheim")), ..vhost.broker() };
    let error = Link::connect(&broker, APP).await.unwrap_err();
    assert!(error.is_refusal(), "{error:?}");
    let text = format!("{error} {error:?} {broker:?}");
    assert!(!text.contains("hunter2"), "{text}");
    for word in ["Login was refused", "password_file", &vhost.address()] {
        assert!(error.to_string().contains(word), "{error} does not say {word}");
    }
    let in_url = settings::Broker {
        url: format!("amqp://guest:hunter2-geheim@{}/{}", vhost.address(), vhost.name()),
        password: None,
        prefix: "test".into(),
        tls: Default::default(),
    };
    let error = Link::connect(&in_url, APP).await.unwrap_err();
    assert!(error.is_refusal() && !format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_password_of_odd_characters_works() {
    let vhost = Services::get().fresh_vhost();
    let password = "p@ss/w:rd#?%2f ü";
    let user = vhost.user(password);
    vhost.allow(&user, ".*", ".*", ".*");
    let broker = settings::Broker {
        url: format!("amqp://{user}@{}/{}", vhost.address(), vhost.name()),
        password: Some(Secret::new(password)),
        prefix: "test".into(),
        tls: Default::default(),
    };
    topology().declare(&broker, APP).await.unwrap();
    let link = Link::connect(&broker, APP).await.unwrap();
    assert!(!format!("{link:?}").contains("p@ss"));
}

#[tokio::test]
async fn missing_rights_and_a_missing_vhost_say_what_to_check() {
    let (vhost, _) = declared().await;
    let user = vhost.user("geheim");
    let with = |vhost_name: &str| settings::Broker {
        url: format!("amqp://{user}@{}/{vhost_name}", vhost.address()),
        password: Some(Secret::new("geheim")),
        prefix: "test".into(),
        tls: Default::default(),
    };
    // No rights in the virtual host at all, then none to write.
    let error = Link::connect(&with(vhost.name()), APP).await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("permissions"), "{error}");
    let error = Link::connect(&with("no-such-vhost"), APP).await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("no-such-vhost"), "{error}");
    vhost.allow(&user, "", "", "");
    let publisher = Publisher::connect(&with(vhost.name()), APP, 1).await.unwrap();
    let error = publisher.publish(&task(1)).await.unwrap_err();
    assert!(matches!(&error, PublishError::Refused(_)) && error.to_string().contains("list_permissions"), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_outage_and_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let broker = broker_at(address);
    let error = Link::connect(&broker, APP).await.unwrap_err();
    assert!(matches!(error, BrokerError::Lost { .. }) && !error.is_final(), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn tls_where_the_broker_speaks_none_is_an_error_not_a_panic() {
    let vhost = Services::get().fresh_vhost();
    let broker = vhost.broker();
    let broker = settings::Broker { url: broker.url.replace("amqp://", "amqps://"), ..broker };
    let error = tokio::time::timeout(SOON, Link::connect(&broker, APP)).await.expect("an answer soon").unwrap_err();
    assert!(matches!(error, BrokerError::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains(&vhost.address()), "{error}");
}
