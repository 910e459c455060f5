//! The two gates, before `tape reclaim` and before the move to the destination pool: each condition false alone, and each
//! query failing in each way, keeps them closed.

use std::time::Duration;

use common::journey::{Mode, State};
use common::stages::STAGES;
use cta_sim::world::{Recycled, Request, Route, Status};
use cta_sim::{Action, Order, Run, TapeState, World};
use journeys::site::Site;
use journeys::steps::worked_on;

const MOVE: &str = "tape ch --tapepool tolabel_IBM1L9";

/// A gate: from where it leads, and the change behind it.
#[derive(Clone, Copy)]
struct Gate {
    before: State,
    change: &'static str,
}

const RECLAIM: Gate = Gate { before: State::Quarantined, change: "tape reclaim" };
const FINISH: Gate = Gate { before: State::Reclaimed, change: MOVE };

fn vids(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("V{:05}", 1000 + number)).collect()
}

fn fields(vids: &[String]) -> Vec<&str> {
    vids.iter().map(String::as_str).collect()
}

/// A site with `count` tapes before the gate, all on hold.
async fn before(gate: Gate, count: usize) -> (Site, Vec<String>) {
    let mut site = Site::new(World::new().with_full_tapes(u64::try_from(count).expect("few tapes"))).await;
    // Whatever hangs is given up soon; everything else takes some hundredths of a second.
    site.settings.cta_admin.timeout = Duration::from_secs(2);
    let names = vids(count);
    let all = fields(&names);
    site.enter(&all).await;
    site.bring(&all, gate.before).await;
    site.all_due().await;
    for vid in &all {
        site.hold(vid).await;
    }
    (site, names)
}

/// The stage behind the gate, once.
async fn knock(site: &Site, gate: Gate) -> Vec<String> {
    worked_on(&site.tick_of(&STAGES[gate.before as usize..=gate.before as usize]).await)
}

/// Ways in which a query fails. Each strikes once.
fn failures() -> Vec<(&'static str, Action)> {
    vec![
        ("exit 1", Action::Exit1("connection lost".into())),
        ("exit 2 with an empty list", Action::Exit2("unexpected".into())),
        ("text with exit 0", Action::Text("an error that the client swallowed".into())),
        ("a cut list with exit 0", Action::Cut(0)),
        ("a cut list with exit 1", Action::Cut(1)),
        ("nothing with exit 0", Action::EmptyStdout),
        ("garbage with exit 0", Action::Garbage),
        ("killed", Action::Die(9)),
        ("a hang", Action::Hang),
        ("a hang in the middle", Action::CutThenHang),
    ]
}

/// For each way to fail: the query fails at the gate, which stays closed; the next time it is answered and the gate opens.
async fn closed_by(gate: Gate, query: &str, skip: u32) {
    // An answer "no such request" is a refusal: this is how CTA says that there is none.
    let honest = |way: &str| query == "repack ls" && skip == 0 && way.starts_with("exit 2");
    let ways: Vec<_> = failures().into_iter().filter(|(way, _)| !honest(way)).collect();
    let (site, names) = before(gate, ways.len()).await;
    for (number, ((way, action), vid)) in ways.into_iter().zip(&names).enumerate() {
        site.release(vid).await;
        site.order(Order::once(query, action).after(skip));
        let worked = knock(&site, gate).await;
        let what = format!("{vid}: {query} (after {skip}): {way}");
        assert_eq!(site.fired()[number], 1, "{what}: the fault did not strike");
        assert_eq!(worked, [vid.as_str()], "{what}");
        assert_eq!(site.at(vid).await, (gate.before, Mode::Auto), "{what}");
        assert_eq!(site.tries(vid, gate.change), 0, "{what}");
        let (code, text) = site.why(vid).await;
        assert_eq!(code, "look-failed", "{what}: {text}");
        site.finish(vid).await;
        assert_eq!(site.times(vid, gate.change), 1, "{what}");
    }
}

macro_rules! queries {
    ($($name:ident: $gate:expr, $query:literal, $skip:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            closed_by($gate, $query, $skip).await;
        })*
    };
}

queries! {
    nothing_is_reclaimed_when_the_tape_cannot_be_asked_for: RECLAIM, "tape ls", 0;
    nothing_is_reclaimed_when_its_request_cannot_be_asked_for: RECLAIM, "repack ls", 0;
    nothing_is_reclaimed_when_the_list_of_requests_cannot_be_had: RECLAIM, "repack ls", 1;
    nothing_is_reclaimed_when_the_archive_routes_cannot_be_had: RECLAIM, "archiveroute ls", 0;
    nothing_is_reclaimed_when_the_recycle_log_cannot_be_had: RECLAIM, "recycletf ls", 0;
    nothing_is_reclaimed_when_its_files_cannot_be_listed: RECLAIM, "tapefile ls", 0;
    nothing_is_reclaimed_when_its_files_cannot_be_listed_twice: RECLAIM, "tapefile ls", 1;
    nothing_is_moved_when_the_tape_cannot_be_asked_for: FINISH, "tape ls", 0;
    nothing_is_moved_when_its_request_cannot_be_asked_for: FINISH, "repack ls", 0;
    nothing_is_moved_when_the_list_of_requests_cannot_be_had: FINISH, "repack ls", 1;
    nothing_is_moved_when_its_files_cannot_be_listed: FINISH, "tapefile ls", 0;
    nothing_is_moved_when_its_files_cannot_be_listed_twice: FINISH, "tapefile ls", 1;
}

/// Something in CTA that must keep the gate closed.
struct Condition {
    what: &'static str,
    spoil: fn(&mut World, &str),
    code: &'static str,
    /// How often the change may be tried: CTA itself refuses it.
    tries: usize,
}

const fn condition(what: &'static str, code: &'static str, spoil: fn(&mut World, &str)) -> Condition {
    Condition { what, spoil, code, tries: 0 }
}

fn tape<'a>(world: &'a mut World, vid: &str) -> &'a mut cta_sim::Tape {
    world.tapes.get_mut(vid).expect("the tape")
}

fn a_file() -> Run {
    Run { fseq: 1, count: 1, size: 1, archive_id: 1, class: "alpha_raw".into(), copy: 1 }
}

fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn somebodys_request(world: &mut World, vid: &str, status: Status) {
    let scheduler = world.frontends[0].scheduler.clone();
    let request = Request { vid: vid.into(), scheduler, status, created: seconds(), ..Request::default() };
    world.requests.push(request);
}

fn empty(tape: &mut cta_sim::Tape) {
    (tape.full, tape.occupancy, tape.last_fseq) = (false, 0, 0);
}

fn of_reclaim() -> Vec<Condition> {
    vec![
        condition("it is in another pool", "wrong-pool", |world, vid| tape(world, vid).pool = "pool_beta_raw".into()),
        condition("the quarantine pool is routed to", "pool-is-routed", |world, _| {
            let pool = "quarantine".into();
            world.routes.push(Route { class: "alpha_raw".into(), copy: 2, repack: false, pool });
        }),
        condition("it is not full", "tape-changed", |world, vid| tape(world, vid).full = false),
        condition("it is REPACKING", "unexpected-state", |world, vid| tape(world, vid).state = TapeState::Repacking),
        condition("it is REPACKING_DISABLED", "unexpected-state", |world, vid| {
            tape(world, vid).state = TapeState::RepackingDisabled;
        }),
        condition("it is EXPORTED", "unexpected-state", |world, vid| tape(world, vid).state = TapeState::Exported),
        condition("somebody repacked it", "someone-elses-request", |world, vid| {
            somebodys_request(world, vid, Status::Complete);
        }),
        condition("somebody's repack failed", "someone-elses-request", |world, vid| {
            somebodys_request(world, vid, Status::Failed);
        }),
        condition("a file is on it", "files-left", |world, vid| tape(world, vid).files.push(a_file())),
        condition("it was written to", "tape-changed", |world, vid| tape(world, vid).last_fseq += 1),
        condition("its bytes are others", "tape-changed", |world, vid| tape(world, vid).occupancy += 1),
        condition("it was labelled again", "tape-changed", |world, vid| {
            tape(world, vid).label.as_mut().expect("a label").time += 1;
        }),
        condition("its files were moved only now", "recycle-log-young", |world, vid| {
            tape(world, vid).recycled.last_mut().expect("moved files").time = seconds();
        }),
        condition("a user deleted a file only now", "recycle-log-young", |world, vid| {
            let entry = Recycled { run: a_file(), time: seconds(), reason: "deleted by alice".into() };
            tape(world, vid).recycled.push(entry);
        }),
        condition("CTA does not know it", "tape-unknown", |world, vid| {
            world.tapes.remove(vid);
        }),
        Condition {
            tries: 1,
            ..condition("CTA's own delay is not over", "recycle-log-young", |world, _| {
                world.recycle_log_quarantine_secs = 100_000;
            })
        },
        condition("a reclaim broke off", "tape-changed", |world, vid| empty(tape(world, vid))),
        condition("it is empty and elsewhere", "wrong-pool", |world, vid| {
            let tape = tape(world, vid);
            empty(tape);
            tape.recycled.clear();
            tape.pool = "pool_beta_raw".into();
        }),
    ]
}

fn of_finish() -> Vec<Condition> {
    vec![
        condition("it is in another pool", "wrong-pool", |world, vid| tape(world, vid).pool = "pool_beta_raw".into()),
        condition("it is full", "used-meanwhile", |world, vid| tape(world, vid).full = true),
        condition("a file was written", "used-meanwhile", |world, vid| tape(world, vid).last_fseq = 1),
        condition("bytes were written", "used-meanwhile", |world, vid| tape(world, vid).occupancy = 1),
        condition("a file is on it", "used-meanwhile", |world, vid| tape(world, vid).files.push(a_file())),
        condition("somebody repacks it", "someone-elses-request", |world, vid| {
            somebodys_request(world, vid, Status::Failed);
        }),
        condition("CTA does not know it", "tape-unknown", |world, vid| {
            world.tapes.remove(vid);
        }),
        condition("its library has no destination", "no-destination", |world, vid| {
            tape(world, vid).logical_library = "IBM7".into();
        }),
        condition("it is in its destination, and used", "used-meanwhile", |world, vid| {
            let tape = tape(world, vid);
            tape.pool = "tolabel_IBM1L9".into();
            tape.last_fseq = 7;
        }),
    ]
}

/// Each condition false alone: the gate stays closed and says why; true again, the tape goes on and finishes.
async fn closed_while(site: &Site, gate: Gate, vid: &str, condition: &Condition) {
    let what = format!("{vid}: {}", condition.what);
    let good = site.world();
    site.edit(|world| (condition.spoil)(world, vid));
    site.release(vid).await;
    let worked = knock(site, gate).await;
    assert_eq!(worked, [vid], "{what}");
    let (code, text) = site.why(vid).await;
    assert_eq!(code, condition.code, "{what}: {text}");
    assert_eq!(site.at(vid).await.0, gate.before, "{what}");
    assert_eq!(site.tries(vid, gate.change), condition.tries, "{what}");
    assert_eq!(site.times(vid, gate.change), 0, "{what}");
    site.edit(|world| {
        world.tapes.insert(vid.into(), good.tapes[vid].clone());
        world.requests.clone_from(&good.requests);
        world.routes.clone_from(&good.routes);
        world.recycle_log_quarantine_secs = good.recycle_log_quarantine_secs;
    });
    site.requeue(vid).await;
    site.finish(vid).await;
    assert_eq!(site.times(vid, gate.change), 1, "{what}");
}

/// Tapes that went into quarantine two hours ago, at a site with an hour of quarantine: everything allows the reclaim.
async fn ripe(count: usize) -> (Site, Vec<String>) {
    let mut site = Site::new(World::new().with_full_tapes(u64::try_from(count).expect("few tapes"))).await;
    let names = vids(count);
    let all = fields(&names);
    site.enter(&all).await;
    let table = site.table();
    site.sql(&format!("UPDATE {table} SET entered = entered - interval '2 hours'")).await;
    site.bring(&all, State::Quarantined).await;
    site.sql(&format!("UPDATE {table} SET started = entered, repacked = entered, quarantined = entered")).await;
    for vid in &all {
        site.hold(vid).await;
        site.edit(|world| world.age_recycle_log(vid, 7200));
    }
    site.settings.quarantine = Duration::from_secs(3600);
    (site, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reclaimed_while_cta_shows_a_condition_false() {
    let conditions = of_reclaim();
    let (site, names) = ripe(conditions.len()).await;
    for (condition, vid) in conditions.iter().zip(&names) {
        closed_while(&site, RECLAIM, vid, condition).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_moved_to_its_destination_while_cta_shows_a_condition_false() {
    let conditions = of_finish();
    let (site, names) = before(FINISH, conditions.len()).await;
    for (condition, vid) in conditions.iter().zip(&names) {
        closed_while(&site, FINISH, vid, condition).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reclaimed_before_the_quarantine_is_over_by_the_databases_clock() {
    let (site, names) = ripe(1).await;
    let vid = &names[0];
    let table = site.table();
    site.sql(&format!("UPDATE {table} SET quarantined = (clock_timestamp() AT TIME ZONE 'UTC')::timestamp(0)")).await;
    site.release(vid).await;
    assert_eq!(knock(&site, RECLAIM).await, Vec::<String>::new(), "it is not even due");
    // Whoever makes it due all the same stands before the gate.
    site.sql(&format!("UPDATE {} SET next_attempt_at = NULL", site.beside("_task"))).await;
    assert_eq!(knock(&site, RECLAIM).await, [vid.as_str()]);
    assert_eq!(site.why(vid).await.0, "quarantine-not-over");
    assert_eq!(site.tries(vid, RECLAIM.change), 0);
    site.sql(&format!("UPDATE {table} SET quarantined = entered")).await;
    site.finish(vid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_that_somebody_else_reclaimed_in_quarantine_is_believed_and_said_so() {
    let (site, names) = ripe(1).await;
    let vid = &names[0];
    site.edit(|world| {
        let tape = tape(world, vid);
        empty(tape);
        tape.recycled.clear();
    });
    site.release(vid).await;
    site.finish(vid).await;
    assert_eq!(site.tries(vid, RECLAIM.change), 0);
    assert_eq!(site.events_of(vid, "reclaimed-by-someone-else").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_denies_a_request_opens_no_gate_while_the_list_shows_one() {
    for gate in [RECLAIM, FINISH] {
        let (site, names) = before(gate, 1).await;
        let vid = &names[0];
        site.edit(|world| somebodys_request(world, vid, Status::Failed));
        site.order(Order::once("repack ls", Action::Exit2("No repack request for this tape".into())).for_vid(vid));
        site.release(vid).await;
        knock(&site, gate).await;
        assert_eq!(site.fired(), [1]);
        assert_eq!(site.why(vid).await.0, "someone-elses-request");
        assert_eq!(site.at(vid).await, (gate.before, Mode::Error));
        assert_eq!(site.tries(vid, gate.change), 0);
    }
}

/// What an operator can do to keep a tape from being worked on.
#[derive(Debug, Clone, Copy)]
enum Veto {
    Manual,
    Error,
    Hold,
    Pause,
}

impl Veto {
    const ALL: [Veto; 4] = [Veto::Manual, Veto::Error, Veto::Hold, Veto::Pause];

    async fn say(self, site: &Site, gate: Gate, vid: &str) {
        match self {
            Veto::Manual => {
                site.sql(&format!("UPDATE {} SET mode = 'manual' WHERE tape = '{vid}'", site.table())).await
            }
            Veto::Error => site.sql(&format!("UPDATE {} SET mode = 'error' WHERE tape = '{vid}'", site.table())).await,
            Veto::Hold => site.hold(vid).await,
            Veto::Pause => {
                let stage = STAGES[gate.before as usize].name;
                site.store().set_control("pause", stage, "a test", None).await.expect("the pause");
            }
        }
    }

    async fn take_back(self, site: &Site, gate: Gate, vid: &str) {
        match self {
            Veto::Manual | Veto::Error => {
                site.sql(&format!("UPDATE {} SET mode = 'auto' WHERE tape = '{vid}'", site.table())).await;
            }
            Veto::Hold => site.release(vid).await,
            Veto::Pause => {
                let stage = STAGES[gate.before as usize].name;
                assert!(site.store().drop_control("pause", stage).await.expect("the pause"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_veto_given_before_the_gate_is_obeyed() {
    for gate in [RECLAIM, FINISH] {
        let (site, names) = before(gate, Veto::ALL.len()).await;
        for (veto, vid) in Veto::ALL.into_iter().zip(&names) {
            let so_far = site.begun(vid).len();
            site.release(vid).await;
            veto.say(&site, gate, vid).await;
            assert_eq!(knock(&site, gate).await, Vec::<String>::new(), "{veto:?}");
            assert_eq!(site.begun(vid).len(), so_far, "{veto:?}");
            veto.take_back(&site, gate, vid).await;
            site.finish(vid).await;
            assert_eq!(site.times(vid, gate.change), 1, "{veto:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_veto_given_while_the_gate_is_looked_through_is_obeyed() {
    for gate in [RECLAIM, FINISH] {
        let (mut site, names) = before(gate, Veto::ALL.len()).await;
        let barrier = site.barrier();
        for (veto, vid) in Veto::ALL.into_iter().zip(&names) {
            let so_far = site.begun(vid).len();
            site.release(vid).await;
            barrier.raise(&format!("tapefile ls --vid {vid}"));
            let veto_in_time = async {
                barrier.reached().await;
                veto.say(&site, gate, vid).await;
                barrier.open();
            };
            tokio::join!(knock(&site, gate), veto_in_time);
            assert_eq!(site.begun(vid).len(), so_far, "{veto:?}");
            assert_eq!(site.at(vid).await.0, gate.before, "{veto:?}");
            assert_eq!(site.events_of(vid, "denied").await.len(), 1, "{veto:?}");
            veto.take_back(&site, gate, vid).await;
            site.finish(vid).await;
            assert_eq!(site.times(vid, gate.change), 1, "{veto:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opened_a_gate_is_in_the_history_before_the_command_runs() {
    let (mut site, names) = before(RECLAIM, 1).await;
    let vid = names[0].as_str();
    site.release(vid).await;
    let barrier = site.barrier();
    for (gate, words, proven) in [
        (
            RECLAIM,
            format!("tape reclaim --vid {vid}"),
            &["quarantine_over", "tape", "marks", "request", "files", "recycle_log"][..],
        ),
        (
            FINISH,
            format!("tape ch --vid {vid} --tapepool"),
            &["tapepool", "full", "last_fseq", "occupancy", "request", "files"][..],
        ),
    ] {
        site.bring(&[vid], gate.before).await;
        barrier.raise(&words);
        let look = async {
            barrier.reached().await;
            let intents = site.events_of(vid, "intent").await;
            let proof = &intents.last().expect("an intent").detail["proof"];
            for part in proven {
                assert!(proof.get(part).is_some(), "{part} is not in {proof}");
            }
            assert_eq!((&proof["files"], &proof["request"]), (&0.into(), &serde_json::Value::Null));
            barrier.open();
        };
        let (worked, ()) = tokio::join!(knock(&site, gate), look);
        assert_eq!(worked, [vid]);
        assert_eq!(site.times(vid, gate.change), 1);
    }
}
