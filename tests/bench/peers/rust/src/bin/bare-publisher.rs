//! `bare-publisher QUEUE MESSAGES CHANNELS`: the least that it takes to put so many confirmed messages into a quorum queue, as a bound for
//! our producer: one connection, one publish in flight on each channel, persistent, `mandatory`, confirmed, with headers like ours. It reads
//! no database and keeps nothing. Prints the seconds between the first publish and the last confirmation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bench_peers::Failure;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

fn message(number: u64) -> Result<(Vec<u8>, BasicProperties), Failure> {
    let tape = format!("L{number:06}");
    let body = format!(r#"{{"v":1,"tape":"{tape}","stage":"finish","generation":{number}}}"#);
    let mut headers = FieldTable::default();
    headers.insert("tape".into(), AMQPValue::LongString(tape.as_str().into()));
    headers.insert("stage".into(), AMQPValue::LongString("finish".into()));
    headers.insert("generation".into(), AMQPValue::LongLongInt(number.try_into()?));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("task".into())
        .with_message_id(format!("{tape}.finish.{number}").into())
        .with_app_id("bare-publisher".into())
        .with_timestamp(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
        .with_delivery_mode(2)
        .with_headers(headers);
    Ok((body.into_bytes(), properties))
}

/// Publishes on this channel until all messages are taken.
async fn publish(channel: Channel, queue: String, next: Arc<AtomicU64>, messages: u64) -> Result<(), Failure> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed) + 1;
        if number > messages {
            return Ok(());
        }
        let (body, properties) = message(number)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await?;
        match confirm.await? {
            Confirmation::Ack(None) => {}
            other => return Err(format!("message {number} was not taken: {other:?}").into()),
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [queue, messages, channels] = args.as_slice() else { return Err("QUEUE MESSAGES CHANNELS".into()) };
    let (messages, channels): (u64, usize) = (messages.parse()?, channels.parse()?);
    let connection = Connection::connect(&std::env::var("BENCH_AMQP")?, ConnectionProperties::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    connection.create_channel().await?.queue_declare(queue.as_str().into(), durable, arguments).await?;
    let mut open = Vec::new();
    for _ in 0..channels {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        open.push(channel);
    }
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let publishing = open.into_iter().map(|channel| publish(channel, queue.clone(), Arc::clone(&next), messages));
    let tasks: Vec<_> = publishing.map(tokio::spawn).collect();
    for task in tasks {
        task.await??;
    }
    println!("{}", begun.elapsed().as_secs_f64());
    // Whatever it says of channels that are closing themselves: everything was confirmed.
    let _ = connection.close(200, "done".into()).await;
    Ok(())
}
