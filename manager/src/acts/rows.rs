//! Changes of the row itself: its mode and values, and its removal.

use common::explain::ago;
use common::journey::{self, Event, Mode, State};
use common::task::RowChange;
use serde_json::{Value, json};

use super::{Case, Judged, Plan};

impl Case<'_> {
    pub(super) fn change(mut self, mode: Option<Mode>, priority: Option<i16>, responsible: Option<&str>) -> Judged {
        if self.tape.state() == State::Finished {
            return self.over();
        }
        let priority = priority.filter(|priority| *priority != self.tape.priority);
        let responsible = responsible.filter(|responsible| *responsible != self.tape.responsible);
        let mut judged = match mode {
            None => Judged::new(Plan::Already(String::new())),
            Some(Mode::Auto) => Case { task: self.task.clone(), ..self }.requeue(false, false, false),
            Some(Mode::Manual) => Case { task: self.task.clone(), ..self }.take_over(),
            Some(Mode::Error) => Judged::refused(
                "mode error needs a reason that the automation knows, so only the automation sets it",
                format!("'cta-ops-repack-manager ch {} --mode manual' takes it out of its hands", self.tape.vid),
            ),
        };
        if matches!(judged.plan, Plan::Refused { .. }) || (priority.is_none() && responsible.is_none()) {
            if judged.plan == Plan::Already(String::new()) {
                judged.plan = Plan::Already("it has these values".to_owned());
            }
            return judged;
        }
        let (mut what, remarks) = match judged.plan {
            Plan::Change { what, remarks } => (what, remarks),
            Plan::Already(_) | Plan::Refused { .. } | Plan::Missing => (Vec::new(), Vec::new()),
        };
        let mut detail = serde_json::Map::new();
        if let Some(priority) = priority {
            what.push(format!("priority {} -> {priority}", self.tape.priority));
            detail.insert("priority".to_owned(), json!({"from": self.tape.priority, "to": priority}));
        }
        if let Some(responsible) = responsible {
            what.push(format!("responsible {} -> {responsible}", self.tape.responsible));
            detail.insert("responsible".to_owned(), json!({"from": self.tape.responsible, "to": responsible}));
        }
        judged.notes.push(self.note("changed", Value::Object(detail)));
        self.task = judged.task.take().unwrap_or(self.task);
        Judged {
            task: Some(self.task),
            priority,
            responsible: responsible.map(str::to_owned),
            plan: Plan::Change { what, remarks },
            ..judged
        }
    }

    fn take_over(mut self) -> Judged {
        if self.tape.mode == Mode::Manual {
            return Judged::new(Plan::Already("in mode manual".to_owned()));
        }
        if let Err(refused) = journey::change(self.tape.state(), self.tape.mode, Event::TakeOver) {
            return Judged::refused(refused.to_string(), self.command("show"));
        }
        let what = vec![format!("mode {} -> manual", self.tape.mode)];
        let note = self.note("mode", json!({"from": self.tape.mode, "to": Mode::Manual}));
        let mut remarks = self.remarks();
        if self.task.slot_since.is_some() {
            remarks.push("it keeps its slot as long as CTA repacks it".to_owned());
        }
        self.task.taken_over(self.ground);
        Judged {
            task: Some(self.task),
            mode: Some(Mode::Manual),
            notes: vec![note],
            ..Judged::new(Plan::Change { what, remarks })
        }
    }

    pub(super) fn remove(mut self) -> Judged {
        let abort = format!("{} gives the tape back first", self.command("abort"));
        if let Some(owner) = &self.task.owner {
            let why = format!("{owner} is working on it, or was when it was last heard of");
            return Judged::refused(why, format!("wait until it is done; {abort}"));
        }
        if let Some(intent) = &self.task.intent {
            return Judged::refused(format!("a command is unanswered: {}", intent.command), abort);
        }
        if let Some(until) = self.task.settle_until.filter(|until| *until > self.ground.now) {
            let why = format!("a command ended unclear and may still take effect for {}", ago(until - self.ground.now));
            return Judged::refused(why, format!("wait until then; {abort}"));
        }
        let memory = &self.task.memory;
        let state = self.tape.state();
        if matches!(state, State::Started | State::Repacked) {
            return Judged::refused(
                format!("it is {state}: it is in REPACKING, or CTA holds our request for it"),
                abort,
            );
        }
        if state == State::Entered && (memory.asked || memory.request.is_some()) {
            return Judged::refused("CTA may hold a repack request that we made for it", abort);
        }
        if state == State::Entered && memory.issued.contains_key("set-repacking") {
            return Judged::refused("it may be in REPACKING by our doing", abort);
        }
        let mut what = vec![format!("its row ({state}, mode {}) goes to the history", self.tape.mode)];
        if let Some(wanted) = self.task.wanted {
            what.push(format!("what was asked for is dropped ({})", wanted.name()));
        }
        let remarks: Vec<String> = self.left_in_cta().into_iter().collect();
        let note =
            self.note("removed", json!({"state": state, "mode": self.tape.mode, "responsible": self.tape.responsible}));
        self.task.removed(self.ground);
        Judged {
            task: Some(self.task),
            change: RowChange::Remove,
            notes: vec![note],
            ..Judged::new(Plan::Change { what, remarks })
        }
    }

    /// How CTA's tape is left where its row goes after quarantine began, and what gives it back or takes it on.
    fn left_in_cta(&self) -> Option<String> {
        let state = self.tape.state();
        let memory = &self.task.memory;
        let was_disabled = memory.source_state.as_deref() == Some("DISABLED");
        let disabled = was_disabled || memory.issued.contains_key("set-disabled");
        let (named, pool) = (if disabled { "DISABLED " } else { "" }, &self.ground.settings.quarantine_pool);
        let left = format!("nothing is changed in CTA: by what was recorded it stays {named}in pool {pool}");
        let requeue = self.command("requeue");
        match state {
            State::Quarantined if memory.issued.contains_key("reclaim") => {
                Some(format!("{left}, and a reclaim of it may have happened; {requeue} finds out and goes on instead"))
            }
            State::Quarantined => {
                let back = match &memory.source_state {
                    Some(before) => format!("state {before} and pool {}", self.tape.tapepool),
                    None => format!("the state it had and pool {}", self.tape.tapepool),
                };
                Some(format!("{left}; {} gives it {back} back instead", self.command("abort")))
            }
            State::Reclaimed => Some(format!(
                "{left}, empty: nobody else moves it to its destination; it cannot be given back any more, {requeue} lets finish move it"
            )),
            State::Entered | State::Started | State::Repacked | State::Finished => None,
        }
    }
}
