//! The broker as a model: queues of messages, at least once, in any order.

use common::broker::Task as Message;
use common::stages::STAGES;

/// Redeliveries after which a message goes to the dead letters.
const DELIVERY_LIMIT: u32 = 20;

/// Where a message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Of this stage, by its place in the table.
    Stage(usize),
    /// The dead letters.
    Dead,
}

/// A message in a queue or in a consumer's hand.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its number.
    pub id: u64,
    /// What it says.
    pub message: Message,
    /// Where it lies.
    pub queue: Queue,
    /// Not delivered before.
    pub ready_at: i64,
    /// The process that has it in its hand.
    pub holder: Option<usize>,
    /// How often it came back.
    pub returned: u32,
}

/// The broker.
#[derive(Debug, Default)]
pub struct Broker {
    /// Whether it answers.
    pub down: bool,
    /// Everything that it holds.
    pub letters: Vec<Letter>,
    last: u64,
}

impl Broker {
    /// Stores a message.
    pub fn put(&mut self, message: Message, queue: Queue, ready_at: i64) {
        self.last += 1;
        self.letters.push(Letter { id: self.last, message, queue, ready_at, holder: None, returned: 0 });
    }

    /// What a passive declare says of a stage's queue.
    pub fn depth(&self, queue: Queue) -> usize {
        self.letters.iter().filter(|letter| letter.queue == queue && letter.holder.is_none()).count()
    }

    /// Takes a letter out for good.
    pub fn ack(&mut self, id: u64, holder: usize) -> bool {
        let before = self.letters.len();
        self.letters.retain(|letter| !(letter.id == id && letter.holder == Some(holder)));
        self.letters.len() != before
    }

    /// To the dead letters.
    pub fn reject(&mut self, id: u64, holder: usize) {
        for letter in self.letters.iter_mut().filter(|letter| letter.id == id && letter.holder == Some(holder)) {
            (letter.queue, letter.holder, letter.returned) = (Queue::Dead, None, 0);
        }
    }

    /// What these consumers held comes again.
    pub fn give_back(&mut self, holders: impl Fn(usize) -> bool) {
        for letter in self.letters.iter_mut().filter(|letter| letter.holder.is_some_and(&holders)) {
            letter.holder = None;
            letter.returned += 1;
            if letter.returned > DELIVERY_LIMIT && letter.queue != Queue::Dead {
                (letter.queue, letter.returned) = (Queue::Dead, 0);
            }
        }
    }
}

/// The queue of a stage.
pub fn stage_queue(stage: &str) -> Option<Queue> {
    STAGES.iter().position(|known| known.name == stage).map(Queue::Stage)
}
