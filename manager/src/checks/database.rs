//! The database: reachable, new enough, our tables in it, ATRESYS's table as we read it, rights, clock.

use chrono::{DateTime, Utc};
use common::settings::Settings;
use common::store::examine::{Examination, examine};

use super::Check;

/// PostgreSQL 12, as it numbers itself.
const OLDEST: i32 = 120_000;
/// More seconds between two clocks than this are worth a word.
const APART: i64 = 60;

/// The columns of ATRESYS's table and the types that we read them from.
const COLUMNS: [(&str, &[&str]); 16] = [
    ("tape", TEXT),
    ("entered", STAMP),
    ("started", STAMP),
    ("repacked", STAMP),
    ("quarantined", STAMP),
    ("reclaimed", STAMP),
    ("finished", STAMP),
    ("files", NUMBER),
    ("bytes", NUMBER),
    ("usage", NUMBER),
    ("last_write_date", STAMP),
    ("mode", &["automation_modes"]),
    ("priority", NUMBER),
    ("mediatype", TEXT),
    ("tapepool", TEXT),
    ("responsible", TEXT),
];
const TEXT: &[&str] = &["character varying", "text", "character"];
const STAMP: &[&str] = &["timestamp without time zone"];
const NUMBER: &[&str] = &["bigint", "integer", "smallint"];

/// What depends on a connection.
const DEPENDENT: [&str; 9] = [
    "database-version",
    "database-writable",
    "tables",
    "table-definition",
    "edits-noted",
    "database-rights",
    "advisory-locks",
    "time-zone",
    "clock",
];

/// Asks the database everything.
pub async fn checks(settings: &Settings, actor: &str) -> Vec<Check> {
    let before = Utc::now();
    let examined = examine(settings, actor).await;
    judge(settings, &place(settings), examined.map_err(|error| format!("{error:#}")), before)
}

fn place(settings: &Settings) -> String {
    let database = &settings.database;
    format!("{}:{}/{}", database.host, database.port, database.name)
}

/// `before`: this host's clock when the questions began.
fn judge(settings: &Settings, place: &str, examined: Result<Examination, String>, before: DateTime<Utc>) -> Vec<Check> {
    let role = &settings.database.username;
    let seen = match examined {
        Ok(seen) => seen,
        Err(why) => {
            let mut checks = vec![Check::fails("database", place, why.clone(), unreachable(settings, &why))];
            checks.extend(DEPENDENT.map(|check| Check::not_asked(check, "", "the database cannot be reached")));
            return checks;
        }
    };
    vec![
        Check::ok("database", place, format!("answers role {role}")),
        version(&seen),
        writable(&seen),
        tables(settings, &seen),
        definition(settings, &seen),
        edits(settings, &seen),
        rights(role, &seen),
        advisory(&seen),
        zone(settings, &seen),
        clock(&seen, before),
    ]
}

/// What to do about a database that cannot be reached, by what it says.
fn unreachable(settings: &Settings, why: &str) -> String {
    let database = &settings.database;
    let try_it = format!("psql -h {} -p {} -U {} {}", database.host, database.port, database.username, database.name);
    if why.contains("(28P01)") || why.contains("(28000)") || why.contains("password") {
        return format!("correct database.username and its password, and pg_hba.conf on the server; try: {try_it}");
    }
    if why.contains("(3D000)") {
        return format!("createdb -h {} -p {} {}", database.host, database.port, database.name);
    }
    if why.contains("(42501)") {
        let schema = database.table.schema.as_deref().unwrap_or("public");
        return format!("psql -c 'GRANT USAGE ON SCHEMA {schema} TO {}'", database.username);
    }
    format!("start PostgreSQL there, or correct database.host and database.port; try: {try_it}")
}

fn version(seen: &Examination) -> Check {
    let found = format!("PostgreSQL {}", seen.version);
    if seen.version_number < OLDEST {
        return Check::fails("database-version", "", found, "upgrade to PostgreSQL 12 or newer");
    }
    Check::ok("database-version", "", found)
}

fn writable(seen: &Examination) -> Check {
    if seen.read_only {
        let mend = "set database.host to the primary; or, where it is one, ALTER DATABASE ... RESET default_transaction_read_only";
        return Check::fails("database-writable", "", "it is read-only: a standby, or set so", mend);
    }
    Check::ok("database-writable", "", "it takes changes")
}

const MIGRATE: &str = "cta-ops-repack-manager migrate";

fn tables(settings: &Settings, seen: &Examination) -> Check {
    let table = plain(&settings.database.table.to_string());
    let newest = Examination::newest_migration();
    let missing: Vec<String> = seen.missing.iter().map(|name| plain(name)).collect();
    if !missing.is_empty() {
        // What is recorded as done is not done again; the steps create only what is missing.
        let mend = match &seen.migration {
            Ok(Some(_)) => format!("psql -c 'DELETE FROM {table}_migration', then {MIGRATE}"),
            _ => MIGRATE.to_owned(),
        };
        return Check::fails("tables", table, format!("not there: {}", missing.join(", ")), mend);
    }
    match &seen.migration {
        Ok(Some(at)) if *at > newest => {
            let found = format!("at version {at}, newer than the {newest} that this program knows");
            Check::fails("tables", table, found, "install the newer release on this host too")
        }
        Ok(Some(at)) if *at == newest => Check::ok("tables", table, format!("at version {at}")),
        Ok(Some(at)) => Check::fails("tables", table, format!("at version {at}, not {newest}"), MIGRATE),
        Ok(None) => Check::fails("tables", table, "no migration is recorded", MIGRATE),
        // Only the migration itself needs that table.
        Err(why) => Check::warning(
            "tables",
            table.clone(),
            format!("are there, but at which version cannot be read: {why}"),
            format!("psql -c 'GRANT SELECT ON {table}_migration TO {}'", settings.database.username),
        ),
    }
}

fn edits(settings: &Settings, seen: &Examination) -> Check {
    if !seen.missing.is_empty() {
        return Check::not_asked("edits-noted", "", "tables are missing, see there");
    }
    let table = plain(&settings.database.table.to_string());
    match &seen.edits_noted {
        Ok(true) => Check::ok("edits-noted", "", "rows that others write are noted by triggers"),
        Ok(false) => Check::warning(
            "edits-noted",
            "",
            "the triggers that note which rows others write are not all in force: every tick compares all rows, seconds for a million",
            format!("psql -c 'DELETE FROM {table}_migration WHERE number = 3', then {MIGRATE}"),
        ),
        Err(why) => Check::not_asked("edits-noted", "", why.clone()),
    }
}

fn definition(settings: &Settings, seen: &Examination) -> Check {
    let table = plain(&settings.database.table.to_string());
    if seen.columns.is_empty() {
        return Check::not_asked("table-definition", table, "the table is not there, or may not be seen");
    }
    let (mut wrong, mut mends) = (Vec::new(), Vec::new());
    for (name, kinds) in COLUMNS {
        match seen.columns.iter().find(|(column, _)| column == name) {
            None => {
                wrong.push(format!("column {name} is missing"));
                mends.push(format!("ADD COLUMN {name} {}", kinds[0]));
            }
            // A type in another schema is shown with the schema.
            Some((_, kind)) if !kinds.iter().any(|known| kind == known || kind.rsplit('.').next() == Some(known)) => {
                wrong.push(format!("column {name} is {kind}, not {}", kinds[0]));
                mends.push(format!("ALTER COLUMN {name} TYPE {}", kinds[0]));
            }
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return Check::ok("table-definition", table, "has the columns of ATRESYS's table");
    }
    let mend = format!("psql -c 'ALTER TABLE {table} {}', once it is clear who changed it", mends.join(", "));
    Check::fails("table-definition", table, wrong.join("; "), mend)
}

fn rights(role: &str, seen: &Examination) -> Check {
    if seen.columns.is_empty() && seen.lacking.is_empty() {
        return Check::not_asked("database-rights", role, "the table is not there, or may not be seen");
    }
    if seen.lacking.is_empty() {
        let beside = if seen.missing.is_empty() { "" } else { ", on the tables that are there" };
        return Check::ok("database-rights", role, format!("has all it needs{beside}"));
    }
    let mut by_name: Vec<(String, Vec<&str>)> = Vec::new();
    for (right, name) in &seen.lacking {
        match by_name.iter_mut().find(|(known, _)| *known == plain(name)) {
            Some((_, rights)) => rights.push(right),
            None => by_name.push((plain(name), vec![right])),
        }
    }
    let found: Vec<String> = by_name.iter().map(|(name, rights)| format!("{} on {name}", rights.join(", "))).collect();
    let grants: Vec<String> = by_name
        .iter()
        .map(|(name, rights)| {
            let kind = if name.ends_with("_seq") { "SEQUENCE " } else { "" };
            format!("GRANT {} ON {kind}{name} TO {role}", rights.join(", "))
        })
        .collect();
    let mend = format!(
        "run roles.sql on this database again and GRANT cta_repack_worker TO {role}; or, by hand as the owner of the tables: {}",
        grants.join("; ")
    );
    Check::fails("database-rights", role, format!("lacks {}", found.join("; ")), mend)
}

fn advisory(seen: &Examination) -> Check {
    match &seen.advisory_lock {
        Ok(()) => Check::ok("advisory-locks", "", "are given"),
        Err(why) => {
            let mend = "connect to PostgreSQL itself, not to a pooler that answers in its place; see database.host";
            Check::fails("advisory-locks", "", why.clone(), mend)
        }
    }
}

fn zone(settings: &Settings, seen: &Examination) -> Check {
    let zone = &settings.time_zone;
    match &seen.time_zone {
        Ok(()) => Check::ok("time-zone", zone, "the database knows it"),
        Err(why) => {
            let mend = "set time_zone to a name out of: psql -c 'SELECT name FROM pg_timezone_names'";
            Check::fails("time-zone", zone, why.clone(), mend)
        }
    }
}

/// Nothing is decided by a host's clock, but its logs are compared with the table's times.
fn clock(seen: &Examination, before: DateTime<Utc>) -> Check {
    let after = Utc::now();
    // Between the two the database's clock was read, so within them there is no difference to be seen.
    let apart = if seen.clock < before {
        (before - seen.clock).num_seconds()
    } else {
        (seen.clock - after).num_seconds().max(0)
    };
    let way = if seen.clock < before { "behind" } else { "ahead of" };
    match apart {
        0 => Check::ok("clock", "", "the database's and this host's do not differ by a second"),
        1..=APART => Check::ok("clock", "", format!("the database's is {apart} s {way} this host's")),
        _ => Check::warning(
            "clock",
            "",
            format!("the database's is {apart} s {way} this host's"),
            "chronyc tracking, on both hosts",
        ),
    }
}

fn plain(name: &str) -> String {
    name.replace('"', "")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::Verdict;
    use super::*;

    fn good() -> Examination {
        Examination {
            version: "16.4".into(),
            version_number: 160_004,
            read_only: false,
            clock: Utc::now(),
            time_zone: Ok(()),
            advisory_lock: Ok(()),
            migration: Ok(Some(Examination::newest_migration())),
            edits_noted: Ok(true),
            missing: Vec::new(),
            columns: COLUMNS.iter().map(|(name, kinds)| ((*name).to_owned(), kinds[0].to_owned())).collect(),
            lacking: Vec::new(),
        }
    }

    fn judged(seen: Examination) -> Vec<Check> {
        judge(&Settings::default(), "h:1/d", Ok(seen), Utc::now())
    }

    /// Exactly this check is not ok, and its mending has these words.
    fn only(seen: Examination, check: &str, result: Verdict, words: &str) {
        let odd: Vec<Check> = judged(seen).into_iter().filter(|check| check.result != Verdict::Ok).collect();
        assert_eq!(odd.len(), 1, "{odd:?}");
        assert_eq!((odd[0].check, odd[0].result), (check, result), "{odd:?}");
        assert!(odd[0].mend.as_ref().unwrap().contains(words), "{odd:?}");
    }

    #[test]
    fn a_good_database_passes_every_check() {
        let checks = judged(good());
        assert!(checks.iter().all(|check| check.result == Verdict::Ok), "{checks:?}");
        assert_eq!(checks.len(), DEPENDENT.len() + 1, "a check that is not asked must be named");
    }

    #[test]
    fn what_a_test_server_cannot_be_is_judged_too() {
        only(Examination { version_number: 110_022, ..good() }, "database-version", Verdict::Fails, "12");
        only(Examination { read_only: true, ..good() }, "database-writable", Verdict::Fails, "primary");
        let newer = Ok(Some(Examination::newest_migration() + 1));
        only(Examination { migration: newer, ..good() }, "tables", Verdict::Fails, "newer release");
        only(Examination { migration: Ok(Some(0)), ..good() }, "tables", Verdict::Fails, "migrate");
        only(Examination { migration: Err("no".into()), ..good() }, "tables", Verdict::Warning, "GRANT SELECT");
        only(Examination { edits_noted: Ok(false), ..good() }, "edits-noted", Verdict::Warning, "WHERE number = 3");
        for hours in [-1, 1] {
            let clock = Utc::now() + TimeDelta::hours(hours);
            only(Examination { clock, ..good() }, "clock", Verdict::Warning, "chronyc");
        }
        only(Examination { advisory_lock: Err("no".into()), ..good() }, "advisory-locks", Verdict::Fails, "pooler");
    }

    #[test]
    fn a_type_in_a_schema_is_the_same_type() {
        let mut seen = good();
        seen.columns.iter_mut().find(|(name, _)| name == "mode").unwrap().1 = "ops.automation_modes".into();
        assert!(judged(seen.clone()).iter().all(|check| check.result == Verdict::Ok));
        seen.columns.iter_mut().find(|(name, _)| name == "entered").unwrap().1 = "timestamp with time zone".into();
        only(seen, "table-definition", Verdict::Fails, "ALTER COLUMN entered TYPE timestamp without");
    }
}
