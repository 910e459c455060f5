//! In which order tapes are listed.

use std::cmp::Ordering;
use std::str::FromStr;

use super::Row;
use crate::filter::vid_of;

/// By what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Vid,
    State,
    Mode,
    Since,
    Pool,
    Priority,
    Why,
    Until,
    Files,
    Bytes,
}

const NAMES: [(&str, By); 10] = [
    ("vid", By::Vid),
    ("state", By::State),
    ("mode", By::Mode),
    ("since", By::Since),
    ("pool", By::Pool),
    ("priority", By::Priority),
    ("why", By::Why),
    ("until", By::Until),
    ("files", By::Files),
    ("bytes", By::Bytes),
];

/// A key of the order, and its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    by: By,
    descending: bool,
}

impl Key {
    /// The order in which the database gives the rows.
    pub fn is_the_order_of_the_database(self) -> bool {
        self.by == By::Vid && !self.descending
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let by = NAMES.iter().find(|(known, _)| *known == name).map(|(_, by)| *by);
        by.map(|by| Key { by, descending }).ok_or_else(|| {
            format!("expected one of {}, perhaps with - before it", NAMES.map(|(name, _)| name).join(", "))
        })
    }
}

/// Sorts by the keys in turn; rows that are equal stay in the order they have. Odd rows come last.
pub fn sort(rows: &mut [Row<'_>], keys: &[Key]) {
    if !keys.is_empty() {
        rows.sort_by(|one, other| {
            keys.iter().map(|key| compare(*key, one, other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
    }
}

fn compare(key: Key, one: &Row<'_>, other: &Row<'_>) -> Ordering {
    let turned = |order: Ordering| if key.descending { order.reverse() } else { order };
    let (a, b) = match (one.0.row.as_ref(), other.0.row.as_ref()) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(_), Err(_)) if key.by == By::Vid => return turned(vid_of(one.0).cmp(vid_of(other.0))),
        (a, b) => return a.is_err().cmp(&b.is_err()),
    };
    match key.by {
        By::Vid => turned(a.vid.cmp(&b.vid)),
        By::State => turned(a.state().cmp(&b.state())),
        By::Mode => turned(a.mode.label().cmp(b.mode.label())),
        // For how long: the shortest first.
        By::Since => turned(b.stamps.at(b.state()).cmp(&a.stamps.at(a.state()))),
        By::Pool => turned(a.tapepool.cmp(&b.tapepool)),
        By::Priority => turned(a.priority.cmp(&b.priority)),
        By::Why => turned((&one.1.code, &one.1.text).cmp(&(&other.1.code, &other.1.text))),
        // What has no end comes last, in both directions.
        By::Until => match (one.1.until, other.1.until) {
            (Some(a), Some(b)) => turned(a.cmp(&b)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        },
        By::Files => turned(a.files.cmp(&b.files)),
        By::Bytes => turned(a.bytes.cmp(&b.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_help_and_a_dash_turns_them_round() {
        let key: Key = "-since".parse().unwrap();
        assert!(key.descending && key.by == By::Since);
        assert!("vid".parse::<Key>().unwrap().is_the_order_of_the_database());
        assert!(!"-vid".parse::<Key>().unwrap().is_the_order_of_the_database());
        for bad in ["", "-", "age", "--vid", "VID"] {
            assert!(bad.parse::<Key>().unwrap_err().contains("until"), "{bad}");
        }
    }
}
