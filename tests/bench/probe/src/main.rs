//! `probe-scan CTA_ADMIN`: the least that a scan has to do, as a bound for ours: read the list through a pipe into one buffer, take six
//! fields of each object without copying them, keep the ten tapes with the lowest usage. It checks nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};

use serde::Deserialize;

type Failure = Box<dyn std::error::Error>;

/// Where the buffer begins; it grows where an object is larger.
const BUFFER: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tape<'a> {
    #[serde(borrow)]
    vid: Cow<'a, str>,
    #[serde(borrow)]
    tapepool: Cow<'a, str>,
    #[serde(borrow)]
    occupancy: Cow<'a, str>,
    #[serde(borrow)]
    master_data_in_bytes: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    full: bool,
}

/// Ten VIDs by usage in millionths of a millionth.
#[derive(Default)]
struct Best(BTreeSet<(u128, String)>);

impl Best {
    fn consider(&mut self, tape: &Tape<'_>) -> Result<(), Failure> {
        let fit = tape.full && (tape.state == "ACTIVE" || tape.state == "DISABLED") && tape.tapepool != "quarantine";
        let (live, written): (u128, u128) = (tape.master_data_in_bytes.parse()?, tape.occupancy.parse()?);
        let usage = (live * 1_000_000_000_000).checked_div(written).unwrap_or_default();
        if !fit || usage >= 400_000_000_000 || (self.0.len() == 10 && self.0.last().is_some_and(|last| last.0 < usage))
        {
            return Ok(());
        }
        self.0.insert((usage, tape.vid.to_string()));
        if self.0.len() > 10 {
            self.0.pop_last();
        }
        Ok(())
    }
}

/// Takes the whole objects at the beginning of `bytes`, and says how many bytes that were.
fn take(bytes: &[u8], best: &mut Best) -> Result<usize, Failure> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().take_while(|byte| b"[], \n\r\t".contains(byte)).count();
        let mut objects = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Tape<'_>>();
        match objects.next() {
            Some(Ok(tape)) => {
                best.consider(&tape)?;
                at += objects.byte_offset();
            }
            Some(Err(error)) if !error.is_eof() => return Err(error.into()),
            _ => return Ok(at),
        }
    }
}

fn main() -> Result<(), Failure> {
    let program = std::env::args().nth(1).ok_or("no cta-admin is named")?;
    let mut child = Command::new(program).args(["--json", "tape", "ls", "--all"]).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    let mut buffer = vec![0; BUFFER];
    let (mut filled, mut best) = (0, Best::default());
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        let length = pipe.read(&mut buffer[filled..])?;
        filled += length;
        if length > 0 && filled < buffer.len() / 2 {
            continue;
        }
        let taken = take(&buffer[..filled], &mut best)?;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        if length == 0 {
            break;
        }
    }
    child.wait()?;
    let vids: Vec<String> = best.0.into_iter().map(|(_, vid)| vid).collect();
    println!("{}", vids.join(" "));
    Ok(())
}
