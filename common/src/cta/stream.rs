//! From the bytes on standard output to the objects of one JSON array, with flat memory.
//!
//! The framing is checked here, byte by byte, whatever the size of the pieces; what is inside an object is serde's
//! business. Together they accept exactly the texts that are one JSON array of the expected objects.
//!
//! An object that lies whole in its piece is decoded where it lies, and serde says where it ends: every byte is read
//! once. Only what is cut by the end of a piece, or cannot be decoded like that, is cut out first.

use std::marker::PhantomData;
use std::mem;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Receiver;

/// What the objects of a list are decoded to, which may borrow from the text of the list.
pub trait Listed {
    /// One object. Whatever bytes an [ignored](serde::de::IgnoredAny) text in it consists of, it must be the same.
    type Object<'a>: Deserialize<'a>;
}

/// Objects that borrow nothing.
#[derive(Debug)]
pub struct Owned<T>(PhantomData<T>);

impl<T: DeserializeOwned> Listed for Owned<T> {
    type Object<'a> = T;
}

/// An object larger than this is no object of CTA's.
pub(super) const MAX_OBJECT: usize = 16 << 20;

/// How much of what does not belong there is kept for the error text.
pub(super) const KEPT: usize = 4 << 10;

/// How much more is read once the output is known to be no list, before the program is ended.
const DRAINED: usize = 1 << 20;

/// Where in the array the framing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the opening bracket.
    Start,
    /// Behind the opening bracket.
    First,
    /// Inside an object.
    Object,
    /// Behind an object.
    After,
    /// Behind a comma.
    Next,
    /// Behind the closing bracket.
    End,
}

/// Why the framing stopped.
#[derive(Debug)]
enum Broken<E> {
    /// A byte that cannot stand at this place; its index in the piece.
    Byte(usize),
    /// An object beyond [`MAX_OBJECT`].
    TooLarge,
    /// Whoever takes the objects does not want this one.
    Taker(E),
}

/// Who gets the objects.
trait Take<E> {
    /// Takes the object at the beginning of these bytes and says how long it is, unless that cannot be done: its end is
    /// missing, or it is not as expected. Nothing is taken then.
    fn begin(&mut self, bytes: &[u8]) -> Result<Option<usize>, E>;

    /// Takes an object that is exactly these bytes.
    fn whole(&mut self, object: &[u8]) -> Result<(), E>;
}

/// Cuts an array into its objects.
struct Framer {
    at: At,
    depth: usize,
    in_string: bool,
    escaped: bool,
    carry: Vec<u8>,
}

impl Framer {
    fn new() -> Framer {
        Framer { at: At::Start, depth: 0, in_string: false, escaped: false, carry: Vec::new() }
    }

    /// Takes the next piece and hands over every object that ends in it. `take` gets what is left of the piece and says
    /// how long the object is that it took from there, or gets an object that was cut out, with nothing behind it.
    fn push<E>(&mut self, piece: &[u8], take: &mut impl Take<E>) -> Result<(), Broken<E>> {
        let mut pos = 0;
        while pos < piece.len() {
            if self.at == At::Object {
                let rest = &piece[pos..];
                if self.depth == 0
                    && let Some(length) = take.begin(rest).map_err(Broken::Taker)?
                {
                    self.at = At::After;
                    pos += length;
                    continue;
                }
                let ended = self.scan(rest);
                let length = ended.unwrap_or(rest.len());
                if self.carry.len() + length > MAX_OBJECT {
                    return Err(Broken::TooLarge);
                }
                if ended.is_some() && self.carry.is_empty() {
                    take.whole(&rest[..length]).map_err(Broken::Taker)?;
                } else {
                    self.carry.extend_from_slice(&rest[..length]);
                    if ended.is_some() {
                        take.whole(&self.carry).map_err(Broken::Taker)?;
                        self.carry.clear();
                    }
                }
                if ended.is_some() {
                    self.at = At::After;
                }
                pos += length;
                continue;
            }
            match (self.at, piece[pos]) {
                (_, b' ' | b'\t' | b'\n' | b'\r') => pos += 1,
                (At::Start, b'[') => (self.at, pos) = (At::First, pos + 1),
                (At::First | At::After, b']') => (self.at, pos) = (At::End, pos + 1),
                (At::After, b',') => (self.at, pos) = (At::Next, pos + 1),
                (At::First | At::Next, b'{') => self.at = At::Object,
                _ => return Err(Broken::Byte(pos)),
            }
        }
        Ok(())
    }

    /// Length up to and with the bracket that closes the object, if it is in these bytes.
    ///
    /// Brackets are counted, not matched: what is wrongly nested is wrong for serde too.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut pos = 0;
        while pos < bytes.len() {
            if mem::take(&mut self.escaped) {
                pos += 1;
            } else if self.in_string {
                pos += plain_prefix(&bytes[pos..]);
                match bytes.get(pos) {
                    Some(b'"') => self.in_string = false,
                    Some(_) => self.escaped = true,
                    None => return None,
                }
                pos += 1;
            } else {
                match bytes[pos] {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Some(pos + 1);
                        }
                    }
                    _ => {}
                }
                pos += 1;
            }
        }
        None
    }
}

/// How many bytes come before the next quote or backslash; eight at a time, as texts are most of a reply.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let has = |word: u64, byte: u8| {
        let differs = word ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs & HIGHS != 0
    };
    let (words, _) = bytes.as_chunks::<8>();
    let plain = words.iter().take_while(|word| {
        let word = u64::from_ne_bytes(**word);
        !has(word, b'"') && !has(word, b'\\')
    });
    let start = plain.count() * 8;
    let rest = bytes[start..].iter().position(|byte| matches!(byte, b'"' | b'\\'));
    rest.map_or(bytes.len(), |found| start + found)
}

/// What standard output turned out to be.
#[derive(Debug)]
pub(super) enum Verdict {
    /// One whole array of this many objects.
    Complete(u64),
    /// Anything else: why, and the bytes that do not belong there (none if something is missing).
    Garbage {
        /// In words.
        why: String,
        /// At most [`KEPT`] bytes.
        found: Vec<u8>,
    },
    /// Whoever takes the objects failed.
    Stopped(anyhow::Error),
}

/// Why one object was not taken.
enum NotTaken {
    Unreadable { why: String, found: Vec<u8> },
    Stopped(anyhow::Error),
}

/// Decodes objects, counts them, and hands them on.
struct Decode<L, F> {
    take: F,
    count: u64,
    as_what: PhantomData<L>,
}

impl<L, F> Take<NotTaken> for Decode<L, F>
where
    L: Listed,
    F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()>,
{
    fn begin(&mut self, bytes: &[u8]) -> Result<Option<usize>, NotTaken> {
        let mut objects = serde_json::Deserializer::from_slice(bytes).into_iter::<L::Object<'_>>();
        let Some(Ok(object)) = objects.next() else { return Ok(None) };
        let length = objects.byte_offset();
        if length > MAX_OBJECT {
            return Ok(None);
        }
        self.hand_over(object)?;
        Ok(Some(length))
    }

    /// People type comments, so bytes that are no UTF-8 become U+FFFD, which no name contains, instead of making the
    /// whole list unreadable.
    fn whole(&mut self, object: &[u8]) -> Result<(), NotTaken> {
        match serde_json::from_str::<L::Object<'_>>(&String::from_utf8_lossy(object)) {
            Ok(object) => self.hand_over(object),
            Err(error) => {
                let why = format!("object {} cannot be read: {error}", self.count + 1);
                Err(NotTaken::Unreadable { why, found: head(object) })
            }
        }
    }
}

impl<L, F> Decode<L, F>
where
    L: Listed,
    F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()>,
{
    fn hand_over(&mut self, object: L::Object<'_>) -> Result<(), NotTaken> {
        self.count += 1;
        (self.take)(object).map_err(NotTaken::Stopped)
    }
}

/// A list that is being read, piece by piece.
pub(super) struct Reading<L, F> {
    framer: Framer,
    decode: Decode<L, F>,
    bytes: u64,
}

/// Why no more is to be read.
pub(super) struct Halted {
    broken: Broken<NotTaken>,
    /// What begins with the byte of [`Broken::Byte`].
    found: Vec<u8>,
}

impl<L, F> Reading<L, F>
where
    L: Listed,
    F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()>,
{
    /// Nothing read yet; `take` gets the objects.
    pub(super) fn new(take: F) -> Reading<L, F> {
        Reading { framer: Framer::new(), decode: Decode { take, count: 0, as_what: PhantomData }, bytes: 0 }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// When it is no list, or an object was not taken: the reading is over.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Halted> {
        self.framer.push(piece, &mut self.decode).map_err(|broken| {
            let from = if let Broken::Byte(index) = broken { index } else { piece.len() };
            Halted { broken, found: head(&piece[from..]) }
        })?;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// What it was, if no piece is missing.
    pub(super) fn end(&self) -> Verdict {
        let count = self.decode.count;
        match self.framer.at {
            At::End => Verdict::Complete(count),
            _ if self.bytes == 0 => Verdict::Garbage { why: "no output at all".to_owned(), found: Vec::new() },
            _ => Verdict::Garbage { why: format!("cut off after {count} whole objects"), found: Vec::new() },
        }
    }

    /// What it was, if reading ended like this.
    pub(super) fn halted(&self, halted: Halted) -> Verdict {
        let (why, found) = match halted.broken {
            Broken::Taker(NotTaken::Stopped(error)) => return Verdict::Stopped(error),
            Broken::Taker(NotTaken::Unreadable { why, found }) => (why, found),
            Broken::TooLarge => {
                (format!("object {} is larger than {} MiB", self.decode.count + 1, MAX_OBJECT >> 20), Vec::new())
            }
            Broken::Byte(index) => {
                (format!("no list: byte {} does not belong there", self.bytes + index as u64), halted.found)
            }
        };
        Verdict::Garbage { why, found }
    }
}

/// Reads pieces until there are no more, hands the objects to `take`, and says what it was.
///
/// Runs on a thread of its own: parsing and `take` may block.
pub(super) fn read<L, F>(mut pieces: Receiver<Vec<u8>>, take: F) -> Verdict
where
    L: Listed,
    F: for<'a> FnMut(L::Object<'a>) -> anyhow::Result<()>,
{
    let mut reading = Reading::<L, F>::new(take);
    while let Some(piece) = pieces.blocking_recv() {
        if let Err(mut halted) = reading.push(&piece) {
            if matches!(halted.broken, Broken::Byte(_)) {
                halted.found = drain(pieces, halted.found);
            }
            return reading.halted(halted);
        }
    }
    reading.end()
}

fn head(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(KEPT)].to_vec()
}

/// Completes the text in which the list ended, so that the program can end by itself and say how.
fn drain(mut pieces: Receiver<Vec<u8>>, mut found: Vec<u8>) -> Vec<u8> {
    let mut drained = 0;
    while drained < DRAINED
        && let Some(piece) = pieces.blocking_recv()
    {
        drained += piece.len();
        let missing = KEPT.saturating_sub(found.len()).min(piece.len());
        found.extend_from_slice(&piece[..missing]);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    type Object = Map<String, Value>;

    /// Reads a text that arrives in pieces of these sizes, again and again.
    fn read_pieces<T: DeserializeOwned>(text: &[u8], sizes: &[usize]) -> (Verdict, Vec<T>) {
        let (give, pieces) = tokio::sync::mpsc::channel(text.len() + 1);
        let (mut rest, mut sizes) = (text, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            give.try_send(piece.to_vec()).unwrap();
            rest = others;
        }
        drop(give);
        let mut objects = Vec::new();
        let verdict = read::<Owned<T>, _>(pieces, |object| {
            objects.push(object);
            Ok(())
        });
        (verdict, objects)
    }

    /// What a parser that has the whole text says. The oracle of these tests.
    fn whole(text: &[u8]) -> Option<Vec<Object>> {
        serde_json::from_str(&String::from_utf8_lossy(text)).ok()
    }

    /// Invariant of this module: exactly the texts that are one array of objects are complete lists.
    fn check(text: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
        let (verdict, objects) = read_pieces::<Object>(text, sizes);
        match (verdict, whole(text)) {
            (Verdict::Complete(count), Some(expected)) => {
                prop_assert_eq!(count, expected.len() as u64);
                prop_assert_eq!(objects, expected);
            }
            (Verdict::Garbage { .. }, None) => {}
            (verdict, expected) => prop_assert!(false, "{:?}: {:?}, not {:?}", text.escape_ascii(), verdict, expected),
        }
        Ok(())
    }

    /// Bytes that are likely to come near a list.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        const TOKENS: [&[u8]; 20] = [
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"\"",
            b"\\",
            b" ",
            b"\n",
            b"{}",
            b"{\"a\":1}",
            b"\"a\"",
            b"1",
            b"null",
            b"[]",
            b"\xff",
            b"\xc3\xa9",
            b"\\\"",
            b"\0",
        ];
        prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..12).prop_map(|tokens| tokens.concat())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            r#"[\[\]{}"\\,]*"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,3}", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    fn list() -> impl Strategy<Value = Vec<u8>> {
        let objects = prop::collection::vec(prop::collection::hash_map("[a-z]{1,3}", value(), 0..4), 0..5);
        (objects, any::<bool>()).prop_map(|(objects, pretty)| {
            if pretty { serde_json::to_vec_pretty(&objects).unwrap() } else { serde_json::to_vec(&objects).unwrap() }
        })
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(1..20_usize, 1..4)
    }

    /// Borrows one text and ignores everything else, as those do that read long lists.
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Lean<'a> {
        #[serde(borrow, default)]
        a: Option<std::borrow::Cow<'a, str>>,
    }

    struct LeanList;

    impl Listed for LeanList {
        type Object<'a> = Lean<'a>;
    }

    /// As [`check`], for objects that borrow and ignore.
    fn check_lean(text: &[u8], size: usize) -> Result<(), TestCaseError> {
        let mut seen = Vec::new();
        let mut reading = Reading::<LeanList, _>::new(|object: Lean<'_>| {
            seen.push(object.a.map(std::borrow::Cow::into_owned));
            Ok(())
        });
        let halted = text.chunks(size).find_map(|piece| reading.push(piece).err());
        let verdict = halted.map_or_else(|| reading.end(), |halted| reading.halted(halted));
        let lossy = String::from_utf8_lossy(text);
        match (verdict, serde_json::from_str::<Vec<Lean<'_>>>(&lossy)) {
            (Verdict::Complete(count), Ok(expected)) => {
                prop_assert_eq!(count, expected.len() as u64);
                let expected: Vec<_> = expected.into_iter().map(|object| object.a.map(|a| a.into_owned())).collect();
                prop_assert_eq!(seen, expected);
            }
            (Verdict::Garbage { .. }, Err(_)) => {}
            (verdict, expected) => prop_assert!(false, "{:?}: {:?}, not {:?}", text.escape_ascii(), verdict, expected),
        }
        Ok(())
    }

    fn lean_list() -> impl Strategy<Value = Vec<u8>> {
        let object = (prop::option::of(".{0,6}"), prop::collection::hash_map("[b-d]{1,2}", value(), 0..3));
        prop::collection::vec(object, 0..5).prop_map(|objects| {
            let objects: Vec<Object> = objects
                .into_iter()
                .map(|(a, others)| others.into_iter().chain(a.map(|a| ("a".to_owned(), Value::from(a)))).collect())
                .collect();
            serde_json::to_vec(&objects).unwrap()
        })
    }

    proptest! {
        #[test]
        fn objects_that_borrow_and_ignore_are_judged_as_a_whole_parser_does(
            text in lean_list(), change: Option<(prop::sample::Index, u8)>, size in 1..40_usize,
        ) {
            let mut text = text;
            if let Some((at, byte)) = change {
                let index = at.index(text.len());
                text[index] = byte;
            }
            check_lean(&text, size)?;
            check_lean(&text, text.len())?;
        }

        #[test]
        fn arbitrary_bytes_are_a_complete_list_only_if_they_are_one(text: Vec<u8>, sizes in sizes()) {
            check(&text, &sizes)?;
        }

        #[test]
        fn bytes_that_look_like_a_list_are_one_only_if_they_are(text in nearly_json(), sizes in sizes()) {
            check(&text, &sizes)?;
            check(&[b"[".as_slice(), &text, b"]"].concat(), &sizes)?;
        }

        #[test]
        fn a_list_is_one_however_it_is_cut_into_pieces(text in list(), sizes in sizes()) {
            prop_assert!(whole(&text).is_some());
            check(&text, &sizes)?;
        }

        #[test]
        fn a_list_that_lost_its_end_is_none(text in list(), keep in 0.0..1.0_f64, sizes in sizes()) {
            let cut = &text[..(text.len() as f64 * keep) as usize];
            let (verdict, _) = read_pieces::<Object>(cut, &sizes);
            prop_assert!(matches!(verdict, Verdict::Garbage { .. }), "{:?}", verdict);
        }

        #[test]
        fn a_list_with_one_byte_changed_is_judged_as_a_whole_parser_does(
            text in list(), at: prop::sample::Index, byte: u8, sizes in sizes(),
        ) {
            let mut text = text;
            let index = at.index(text.len());
            text[index] = byte;
            check(&text, &sizes)?;
        }
    }

    #[test]
    fn an_object_may_be_as_large_as_the_limit_and_no_larger() {
        let of = |length: usize| format!(r#"[{{"a":"{}"}}]"#, "x".repeat(length - r#"{"a":""}"#.len()));
        for pieces in [&[usize::MAX][..], &[100_000]] {
            let (verdict, _) = read_pieces::<Object>(of(MAX_OBJECT).as_bytes(), pieces);
            assert!(matches!(verdict, Verdict::Complete(1)), "{verdict:?}");
            let (verdict, _) = read_pieces::<Object>(of(MAX_OBJECT + 1).as_bytes(), pieces);
            assert!(matches!(verdict, Verdict::Garbage { why, .. } if why == "object 1 is larger than 16 MiB"));
        }
    }

    #[test]
    fn the_text_in_which_a_list_ended_is_kept_across_pieces_and_bounded() {
        let text = [b"[{},".as_slice(), &[b'x'; 3 * KEPT]].concat();
        for sizes in [&[1][..], &[1000], &[usize::MAX]] {
            match read_pieces::<Object>(&text, sizes).0 {
                Verdict::Garbage { why, found } => {
                    assert_eq!(why, "no list: byte 4 does not belong there");
                    assert_eq!(found, [b'x'; KEPT]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_first_quote_or_backslash_is_found_wherever_it_is() {
        for length in 0..40 {
            let plain = vec![b'x'; length];
            assert_eq!(plain_prefix(&plain), length);
            for at in 0..length {
                for byte in [b'"', b'\\'] {
                    let mut bytes = plain.clone();
                    bytes[at] = byte;
                    assert_eq!(plain_prefix(&bytes), at);
                }
            }
        }
    }
}
