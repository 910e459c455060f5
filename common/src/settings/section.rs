//! One section of the file: typed values out, problems noted, and at the end every key that nobody asked for judged.
//!
//! The keys that are asked for are the known keys; there is no second list of them. A section is seen through two
//! layers, the tool's own and the common one (`global:`), and each key comes from the first that has it.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Problem, shown};
use super::yaml::{self, Entry, Kind, Map, Node};

/// The longest time that makes sense anywhere: a hundred years. Keeps clock arithmetic far from its limits.
pub(super) const MAX_SECS: f64 = 100.0 * 365.0 * 86400.0;

/// Finding a line costs a pass over the text; nobody reads more problems than this.
const MOST_LINES: u32 = 200;

/// What is gathered while a file is read.
pub(super) struct Reader<'a> {
    text: &'a str,
    located: Cell<u32>,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// Every key asked for so far: section, name.
    known: RefCell<Vec<(String, &'static str)>>,
    /// Keys of our own part that nobody asked for, judged when all are known.
    unknown: RefCell<Vec<(String, &'a Entry)>>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            located: Cell::new(0),
            errors: RefCell::default(),
            warnings: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    fn problem(&self, id: Option<u32>, key: &str, value: String, expected: impl Into<String>) -> Problem {
        let line = id.filter(|_| self.located.get() < MOST_LINES).and_then(|id| {
            self.located.set(self.located.get() + 1);
            yaml::line_of(self.text, id)
        });
        Problem { line, key: key.to_owned(), value, expected: expected.into() }
    }

    pub fn error(&self, id: Option<u32>, key: &str, value: String, expected: impl Into<String>) {
        self.errors.borrow_mut().push(self.problem(id, key, value, expected));
    }

    pub fn warn(&self, id: Option<u32>, key: &str, value: String, expected: impl Into<String>) {
        self.warnings.borrow_mut().push(self.problem(id, key, value, expected));
    }

    /// A key that may not stand here, judged in [`Reader::finish`].
    pub fn unknown(&self, section: &str, entry: &'a Entry) {
        self.unknown.borrow_mut().push((section.to_owned(), entry));
    }

    /// A key given twice: whichever of the two counted, the other would be believed.
    pub fn refuse_duplicate(&self, path: &str, entry: &Entry) {
        if entry.duplicate {
            self.error(Some(entry.id), path, String::new(), "stands here a second time, keep one of the two");
        }
    }

    /// Judges the unknown keys and returns errors and warnings in the order of the lines.
    pub fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        for (section, entry) in self.unknown.take() {
            if !self.misplaced(&section, entry) {
                self.warn(
                    Some(entry.id),
                    &join(&section, &entry.name),
                    String::new(),
                    "not a key of ours, it has no effect",
                );
            }
        }
        let (mut errors, mut warnings) = (self.errors.into_inner(), self.warnings.into_inner());
        errors.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        warnings.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        (errors, warnings)
    }

    /// Reports keys that we do know, but elsewhere: wrongly indented, they would silently keep their default.
    pub fn misplaced(&self, section: &str, entry: &Entry) -> bool {
        // Words such as `name` and `prefix` stand in anybody's section.
        let telling = entry.name.len() >= 8 && entry.name.contains(['_', '-']);
        let home = self.known.borrow().iter().find(|(_, name)| telling && *name == entry.name).cloned();
        let path = join(section, &entry.name);
        if let Some((home, name)) = home {
            self.error(
                Some(entry.id),
                &path,
                String::new(),
                format!("has no effect here, it belongs at {}", join(&home, name)),
            );
            return true;
        }
        match &entry.value.kind {
            Kind::Map(map) => map.0.iter().fold(false, |found, entry| self.misplaced(&path, entry) | found),
            _ => false,
        }
    }
}

/// A section under both layers.
pub(super) struct Section<'a, 'r> {
    pub reader: &'r Reader<'a>,
    path: String,
    /// The section's own key.
    id: Option<u32>,
    tool: Option<&'a Map>,
    global: Option<&'a Map>,
    asked: RefCell<Vec<&'static str>>,
    ignored: &'static [&'static str],
    /// The file chooses the keys here, so none is unknown.
    open: Cell<bool>,
}

/// A key that is there.
pub(super) struct Found<'a> {
    /// Its path as problems show it.
    pub key: String,
    /// For its line.
    pub id: u32,
    /// What it holds.
    pub node: &'a Node,
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

impl<'a, 'r> Section<'a, 'r> {
    /// The outermost section: ours under `tools:`, over `global:`.
    pub fn root(reader: &'r Reader<'a>, tool: Option<&'a Map>, global: Option<&'a Map>) -> Section<'a, 'r> {
        Section {
            reader,
            path: String::new(),
            id: None,
            tool,
            global,
            asked: RefCell::default(),
            ignored: &[],
            open: Cell::new(false),
        }
    }

    /// Keys of other tools' business that stand here by right.
    pub fn ignore(&mut self, names: &'static [&'static str]) {
        self.ignored = names;
    }

    fn global_path(&self) -> String {
        if self.path.is_empty() { "global".to_owned() } else { format!("global.{}", self.path) }
    }

    fn ask(&self, name: &'static str) {
        self.asked.borrow_mut().push(name);
        self.reader.known.borrow_mut().push((self.path.clone(), name));
    }

    /// Both layers' entries of that name, ours first.
    fn layers(&self, name: &str) -> [Option<Found<'a>>; 2] {
        let found = |map: Option<&'a Map>, section: &str| {
            let entry = map?.get(name)?;
            Some(Found { key: join(section, name), id: entry.id, node: &entry.value })
        };
        [found(self.tool, &self.path), found(self.global, &self.global_path())]
    }

    /// The entry that counts.
    pub fn get(&self, name: &'static str) -> Option<Found<'a>> {
        self.ask(name);
        let [tool, global] = self.layers(name);
        tool.or(global)
    }

    /// Reads the section of that name; what it does not ask for is judged afterwards.
    pub fn section<T>(&self, name: &'static str, read: impl FnOnce(&mut Section<'a, 'r>) -> T) -> T {
        self.ask(name);
        self.inner(name, read)
    }

    /// As [`Section::section`], for a name that the file chose.
    pub fn inner<T>(&self, name: &str, read: impl FnOnce(&mut Section<'a, 'r>) -> T) -> T {
        let layers = self.layers(name);
        let id = layers.iter().flatten().next().map(|found| found.id);
        let [tool, global] = layers.map(|found| {
            found.and_then(|found| match &found.node.kind {
                Kind::Map(map) => Some(map),
                Kind::Null => None,
                _ => {
                    let expected = "expected a section, that is: indented lines of 'key: value'";
                    self.reader.error(Some(found.id), &found.key, shown(found.node), expected);
                    None
                }
            })
        });
        let mut section = Section {
            reader: self.reader,
            path: join(&self.path, name),
            id,
            tool,
            global,
            asked: RefCell::default(),
            ignored: &[],
            open: Cell::new(false),
        };
        let result = read(&mut section);
        section.finish();
        result
    }

    /// Names in either layer, ours first, each once: for sections whose keys the file chooses. All are then known.
    pub fn names(&self) -> Vec<(String, u32)> {
        self.open.set(true);
        let mut names: Vec<(String, u32)> = Vec::new();
        for (map, path) in [(self.tool, self.path.clone()), (self.global, self.global_path())] {
            for entry in map.into_iter().flat_map(|map| &map.0) {
                self.reader.refuse_duplicate(&join(&path, &entry.name), entry);
                if !names.iter().any(|(name, _)| *name == entry.name) {
                    names.push((entry.name.clone(), entry.id));
                }
            }
        }
        names
    }

    /// The entry that counts, of a name that the file chose, or without asking for it.
    pub fn leaf(&self, name: &str) -> Option<Found<'a>> {
        let [tool, global] = self.layers(name);
        tool.or(global)
    }

    /// An error at a key in here, or at the section where the key is missing.
    pub fn error_at(&self, name: &str, value: &str, expected: impl Into<String>) {
        let id = self.leaf(name).map(|found| found.id).or(self.id);
        self.reader.error(id, &join(&self.path, name), value.to_owned(), expected);
    }

    /// As [`Section::error_at`], for a key of a section in here that is read already.
    pub fn inner_error(&self, section: &str, name: &str, value: &str, expected: &str) {
        let entry = self.leaf(section).and_then(|found| match &found.node.kind {
            Kind::Map(map) => map.get(name).map(|entry| entry.id),
            _ => Some(found.id),
        });
        self.reader.error(entry, &join(section, name), value.to_owned(), expected);
    }

    /// Judges the keys that nobody asked for.
    pub fn finish(&self) {
        if self.open.get() {
            return;
        }
        let asked = self.asked.borrow();
        let known = |entry: &Entry| asked.iter().chain(self.ignored).any(|name| *name == entry.name);
        for entry in self.tool.into_iter().flat_map(|map| &map.0) {
            if known(entry) {
                self.reader.refuse_duplicate(&join(&self.path, &entry.name), entry);
            } else if self.global.is_none_or(|global| global.get(&entry.name).is_none()) {
                match near_miss(&entry.name, &asked) {
                    Some(meant) => self.did_you_mean(&self.path, entry, meant),
                    None => self.reader.unknown(&self.path, entry),
                }
            }
        }
        let path = self.global_path();
        for entry in self.global.into_iter().flat_map(|map| &map.0) {
            if known(entry) {
                self.reader.refuse_duplicate(&join(&path, &entry.name), entry);
            } else if let Some(meant) = near_miss(&entry.name, &asked) {
                // `global` belongs to all tools: one letter in a short word may well be another tool's word.
                if meant.len() > 5 || same_letters(&entry.name, meant) {
                    self.did_you_mean(&path, entry, meant);
                } else {
                    let remark = format!("not a key of ours; if '{meant}' is meant, it has no effect");
                    self.reader.warn(Some(entry.id), &join(&path, &entry.name), String::new(), remark);
                }
            }
        }
    }

    fn did_you_mean(&self, section: &str, entry: &Entry, meant: &str) {
        let remark = format!("not a known key, did you mean '{meant}'?");
        self.reader.error(Some(entry.id), &join(section, &entry.name), String::new(), remark);
    }

    /// A value, or the default where there is none; where it cannot be converted, a problem and the default.
    pub fn read<T>(
        &self,
        name: &'static str,
        default: T,
        expected: &str,
        convert: impl FnOnce(&'a Node) -> Option<T>,
    ) -> T {
        let Some(found) = self.get(name) else { return default };
        convert(found.node).unwrap_or_else(|| {
            self.reader.error(Some(found.id), &found.key, shown(found.node), format!("expected {expected}"));
            default
        })
    }

    /// As [`Section::read`] for a conversion that says itself what it expected.
    pub fn checked<T>(&self, name: &'static str, default: T, convert: impl FnOnce(&str) -> Result<T, String>) -> T {
        let Some(found) = self.get(name) else { return default };
        let converted = match as_text(found.node) {
            Some(text) => convert(&text),
            None => Err("text".to_owned()),
        };
        converted.unwrap_or_else(|expected| {
            self.reader.error(Some(found.id), &found.key, shown(found.node), format!("expected {expected}"));
            default
        })
    }

    /// Text that is not empty.
    pub fn text(&self, name: &'static str, default: &str) -> String {
        self.read(name, default.to_owned(), "text, not empty, on one line", as_text)
    }

    /// Text, or none where the key is missing or has no value.
    pub fn optional_text(&self, name: &'static str, default: Option<String>) -> Option<String> {
        self.read(name, default, "text on one line, or nothing", |node| match node.kind {
            Kind::Null => Some(None),
            _ => as_text(node).map(Some),
        })
    }

    /// A path from `/`.
    pub fn path_of(&self, name: &'static str, default: &std::path::Path) -> PathBuf {
        self.read(name, default.to_owned(), "a path that begins with '/'", |node| {
            as_text(node).filter(|text| text.starts_with('/')).map(PathBuf::from)
        })
    }

    /// A path from `/`, or none where the key is missing or has no value.
    pub fn optional_path(&self, name: &'static str, default: Option<PathBuf>) -> Option<PathBuf> {
        self.read(name, default, "a path that begins with '/', or nothing", |node| match node.kind {
            Kind::Null => Some(None),
            _ => as_text(node).filter(|text| text.starts_with('/')).map(|text| Some(PathBuf::from(text))),
        })
    }

    /// Yes or no, in the words of YAML 1.1 too.
    pub fn flag(&self, name: &'static str, default: bool) -> bool {
        self.read(name, default, "true or false", |node| match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// A whole number in a range, which must lie within `T`.
    pub fn whole<T: TryFrom<i128>>(&self, name: &'static str, default: T, range: RangeInclusive<i128>) -> T {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, default, &expected, |node| {
            as_whole(node).filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok())
        })
    }

    /// A number in a range.
    pub fn number(&self, name: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, default, &expected, |node| as_number(node).filter(|value| range.contains(value)))
    }

    /// A time in units of `unit` seconds, fractions allowed; `zero`: whether it may be 0.
    pub fn time(&self, name: &'static str, default: Duration, unit: (f64, &str), zero: bool) -> Duration {
        let (secs, unit) = unit;
        let least = if zero { "0 or more" } else { "more than 0" };
        let expected = format!("a number of {unit}, {least}, at most {:.0}, fractions allowed", MAX_SECS / secs);
        self.read(name, default, &expected, |node| {
            let value = as_number(node)? * secs;
            // What is smaller than the clock's step would be rounded to the 0 that was refused.
            let enough = if zero { value >= 0.0 } else { value >= 1e-6 };
            if enough && value <= MAX_SECS { Duration::try_from_secs_f64(value).ok() } else { None }
        })
    }

    /// One of some words, in any case.
    pub fn choice<T: Copy>(&self, name: &'static str, default: T, words: &[(&str, T)]) -> T {
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.read(name, default, &list.join(" or "), |node| {
            let text = as_text(node)?;
            words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)).map(|(_, value)| *value)
        })
    }

    /// A list of texts.
    pub fn texts(&self, name: &'static str, default: &[String]) -> Vec<String> {
        self.read(name, default.to_vec(), "a list of names, such as [a, b]", |node| match &node.kind {
            Kind::List(items) => items.iter().map(as_text).collect(),
            _ => None,
        })
    }
}

/// Text without control characters and with something in it; surrounding blanks do not count.
pub(super) fn as_text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => {
            Some(text.trim()).filter(|t| !t.is_empty() && !t.contains(char::is_control)).map(str::to_owned)
        }
        // A name that happens to look like a number.
        Kind::Int(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A whole number, quoted or not. `010` is 8 to some readers of YAML and 10 to others, so it is no number here.
pub(super) fn as_whole(node: &Node) -> Option<i128> {
    match &node.kind {
        Kind::Int(value) => Some(*value),
        Kind::Text(text) => {
            let digits = text.trim();
            let unambiguous = digits == "0" || !digits.starts_with('0');
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain && unambiguous { digits.parse().ok() } else { None }
        }
        _ => None,
    }
}

fn as_number(node: &Node) -> Option<f64> {
    let value = match &node.kind {
        #[expect(clippy::cast_precision_loss, reason = "no range here reaches 2^53")]
        Kind::Int(value) => *value as f64,
        Kind::Float(value) => *value,
        Kind::Text(text) => {
            let digits = text.trim();
            let integral = digits.split('.').next().unwrap_or_default();
            let ambiguous = integral.len() > 1 && integral.starts_with('0');
            let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if plain && !ambiguous { digits.parse().ok()? } else { return None }
        }
        _ => return None,
    };
    value.is_finite().then_some(value)
}

/// The known key that was probably meant.
pub(super) fn near_miss<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    known
        .iter()
        .map(|meant| (distance(name, meant), *meant))
        .filter(|(distance, meant)| *distance <= if meant.len() <= 5 { 1 } else { 2 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, meant)| meant)
}

fn distance(name: &str, meant: &str) -> usize {
    if same_letters(name, meant) || stem(name) == stem(meant) {
        return 0;
    }
    // Quadratic in time; no near miss is that much longer.
    if name.len() > 2 * meant.len() + 8 { usize::MAX } else { strsim::osa_distance(&folded(name), &folded(meant)) }
}

fn folded(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['-', ' ', '.'], "_")
}

/// Whether two names differ only in case, `-` and `_`, or the order of their letters.
fn same_letters(name: &str, meant: &str) -> bool {
    let sorted = |name: &str| {
        let mut letters: Vec<char> = folded(name).chars().filter(|c| *c != '_').collect();
        letters.sort_unstable();
        letters
    };
    sorted(name) == sorted(meant)
}

/// A name without its unit: `quarantine`, `quarantine_hours` and `quarantine_days` mean the same to whoever typed them.
fn stem(name: &str) -> String {
    let name = folded(name);
    for unit in
        ["ms", "s", "sec", "secs", "second", "seconds", "min", "mins", "minutes", "hour", "hours", "day", "days"]
    {
        if let Some(stem) = name.strip_suffix(unit).and_then(|name| name.strip_suffix('_')) {
            return stem.to_owned();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_case_dashes_units_and_a_slip_or_two() {
        let known = ["quarantine_days", "max_active_repacks", "url", "repack-end-json-path", "lease_secs", "tape"];
        for (typed, meant) in [
            ("quarantine_day", "quarantine_days"),
            ("Quarantine-Days", "quarantine_days"),
            ("quarantine_hours", "quarantine_days"),
            ("quarantine", "quarantine_days"),
            ("qaurantine_days", "quarantine_days"),
            ("max_active_repack", "max_active_repacks"),
            ("max-actve-repacks", "max_active_repacks"),
            ("repack_end_json_path", "repack-end-json-path"),
            ("uri", "url"),
            ("lease_seconds", "lease_secs"),
            ("taep", "tape"),
        ] {
            assert_eq!(near_miss(typed, &known), Some(meant), "{typed}");
        }
        for other in ["email", "default_user", "table_format", "colors", "drives", "max_files", "x", ""] {
            assert_eq!(near_miss(other, &known), None, "{other}");
        }
    }
}
