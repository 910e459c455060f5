//! YAML text to a tree that forgets nothing: duplicate keys are kept, and every node can be asked for its line.
//!
//! `serde_yaml` is archived, so this is the only file that knows it; another parser costs an edit here. Its own `Value`
//! refuses the first duplicate key without naming its line, and has no lines at all. So the tree is built by a visitor
//! that numbers the nodes in the order of the text, and [`line_of`] asks the parser itself: it reads the text again and
//! stops with an error at the node of that number, which the parser then locates. No second scanner has to agree with
//! the parser on quotes, anchors and flow style.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// One node of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Its number in the order of the text, for [`line_of`].
    pub id: u32,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// `null`, `~`, or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction; may be NaN or infinite.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// The entries of a mapping in the order of the text, duplicates included; what `<<` merged in comes last.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Map(pub Vec<Entry>);

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The key as text (`10` and `"10"` are the same key), or what kind of thing was used as one.
    pub name: String,
    /// Number of the key's node.
    pub id: u32,
    /// The value.
    pub value: Node,
    /// An earlier entry of this mapping has the same name.
    pub duplicate: bool,
}

impl Map {
    /// The first entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }
}

/// Text that is no YAML.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NotYaml {
    /// Where the parser gave up.
    pub line: Option<usize>,
    /// Why. The parser quotes nothing of the text.
    pub why: String,
}

/// The text as a tree; no content at all is a null.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    if text.trim_start_matches('\u{feff}').lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        return Ok(Node { id: 0, kind: Kind::Null });
    }
    walk(text, None).map_err(|error| NotYaml {
        line: error.location().map(|at| at.line()),
        // The position is printed in one way for all problems, so it is cut off here.
        why: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })
}

/// The line, from 1, of the node of that number.
pub(super) fn line_of(text: &str, id: u32) -> Option<usize> {
    walk(text, Some(id)).err()?.location().map(|at| at.line())
}

fn walk(text: &str, stop: Option<u32>) -> Result<Node, serde_yaml::Error> {
    Walk { next: &Cell::new(0), stop }.deserialize(serde_yaml::Deserializer::from_str(text))
}

#[derive(Clone, Copy)]
struct Walk<'c> {
    next: &'c Cell<u32>,
    stop: Option<u32>,
}

impl Walk<'_> {
    fn number<E: Error>(self) -> Result<u32, E> {
        let id = self.next.get();
        self.next.set(id.saturating_add(1));
        if self.stop == Some(id) { Err(E::custom("here")) } else { Ok(id) }
    }

    fn leaf<E: Error>(self, kind: Kind) -> Result<Node, E> {
        Ok(Node { id: self.number()?, kind })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.leaf(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.leaf(Kind::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Kind::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Kind::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Kind::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Kind::Int(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(i128::try_from(value).map_or(Kind::Float(f64::INFINITY), Kind::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Kind::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.leaf(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let id = self.number()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node { id, kind: Kind::List(list) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let id = self.number()?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = HashSet::new();
        while let Some(key) = items.next_key_seed(self)? {
            let value = items.next_value_seed(self)?;
            let name = key_name(&key.kind);
            let duplicate = !names.insert(name.clone());
            entries.push(Entry { name, id: key.id, value, duplicate });
        }
        merge(&mut entries);
        Ok(Node { id, kind: Kind::Map(Map(entries)) })
    }

    /// A tag (`!name`) says nothing here; what it stands before is taken as it is.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, content): (String, _) = tagged.variant()?;
        content.newtype_variant_seed(self)
    }
}

fn key_name(kind: &Kind) -> String {
    match kind {
        Kind::Null => "null".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => value.to_string(),
        Kind::Text(text) => text.clone(),
        Kind::List(_) => "(a list as key)".to_owned(),
        Kind::Map(_) => "(a section as key)".to_owned(),
    }
}

/// Resolves `<<: *anchor` as YAML 1.1 parsers do: own keys win, then the first mapping that has the key.
fn merge(entries: &mut Vec<Entry>) {
    let mut merged = Vec::new();
    entries.retain(|entry| {
        let sources: Vec<&Node> = match (entry.name.as_str(), &entry.value.kind) {
            ("<<", Kind::Map(_)) => vec![&entry.value],
            ("<<", Kind::List(list)) if list.iter().all(|item| matches!(item.kind, Kind::Map(_))) => {
                list.iter().collect()
            }
            _ => return true,
        };
        for source in sources {
            if let Kind::Map(map) = &source.kind {
                merged.extend(map.0.iter().filter(|entry| !entry.duplicate).cloned());
            }
        }
        false
    });
    let mut names: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    entries.extend(merged.into_iter().filter(|entry| names.insert(entry.name.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, usize)> {
        fn collect(text: &str, node: &Node, found: &mut Vec<(String, usize)>) {
            if let Kind::Map(map) = &node.kind {
                for entry in &map.0 {
                    found.push((entry.name.clone(), line_of(text, entry.id).unwrap_or(0)));
                    collect(text, &entry.value, found);
                }
            }
        }
        let mut found = Vec::new();
        collect(text, &parse(text).unwrap(), &mut found);
        found
    }

    #[test]
    fn every_key_knows_its_line_in_block_style_flow_style_and_behind_quotes() {
        let text =
            "# a comment\na:\n  b: \"two\n    c: lines\"\n  'd': {e: 1,\n    f: 2}\n'g': |\n  h: no key\n? i\n: 1\n";
        let expected =
            [("a", 2), ("b", 3), ("d", 5), ("e", 5), ("f", 6), ("g", 7), ("i", 9)].map(|(k, l)| (k.to_owned(), l));
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn duplicates_are_kept_and_marked_also_when_one_is_quoted() {
        let Kind::Map(map) = parse("10: a\n\"10\": b\nc: d\n").unwrap().kind else { panic!("no map") };
        let marks: Vec<_> = map.0.iter().map(|entry| (entry.name.as_str(), entry.duplicate)).collect();
        assert_eq!(marks, [("10", false), ("10", true), ("c", false)]);
    }

    #[test]
    fn merge_keys_fill_in_what_is_missing_and_override_nothing() {
        let text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nuse:\n  <<: [*b, *o]\n  x: 9\n";
        let Kind::Map(map) = parse(text).unwrap().kind else { panic!("no map") };
        let Kind::Map(used) = &map.get("use").unwrap().value.kind else { panic!("no map") };
        let values: Vec<_> = used.0.iter().map(|entry| (entry.name.as_str(), entry.value.kind.clone())).collect();
        assert_eq!(values, [("x", Kind::Int(9)), ("y", Kind::Int(2)), ("z", Kind::Int(4))]);
    }

    #[test]
    fn tags_are_looked_through_and_broken_text_names_its_line() {
        assert_eq!(parse("a: !x 5").unwrap().kind, parse("a: 5").unwrap().kind);
        let error = parse("a: 1\nb: [1,\nc: }\n").unwrap_err();
        assert!(error.line.is_some_and(|line| line >= 2), "{error:?}");
        assert!(!error.why.contains(" at line "), "{error:?}");
    }

    #[test]
    fn an_alias_bomb_is_refused_instead_of_eaten() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("a{n}: &a{n} [{refs}]\n");
        }
        assert!(parse(&text).is_err());
    }
}
