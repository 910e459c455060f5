//! The first words of a broker: which product it is, and which release. The client library reads them and keeps them to itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest greeting: a kilobyte is usual.
const LONGEST: usize = 64 << 10;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Product and release (`RabbitMQ 4.1.3`) of the broker at `host:port`, without TLS. None: it does not say, or not in time. The
/// connection is given up before anybody logs in.
pub(super) async fn release(address: &str) -> Option<String> {
    let greeted = tokio::time::timeout(PATIENCE, payload(address)).await.ok()?.ok()?;
    let fields = properties(&greeted)?;
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    Some(super::task::printable(&format!("{} {}", field("product")?, field("version")?), 100))
}

async fn payload(address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let size = usize::try_from(size).ok().filter(|size| head[0] == 1 && *size <= LONGEST);
    let size = size.ok_or_else(|| std::io::Error::other("no AMQP 0-9-1"))?;
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

/// The texts among the server properties of `connection.start`.
fn properties(payload: &[u8]) -> Option<Vec<(String, String)>> {
    // Class 10, method 10, version 0-9.
    let mut rest = payload.strip_prefix(&[0, 10, 0, 10, 0, 9])?;
    let mut table = take_long(&mut rest)?;
    let mut texts = Vec::new();
    while let Some((length, after)) = table.split_first() {
        let (key, after) = after.split_at_checked(usize::from(*length))?;
        let (kind, after) = after.split_first()?;
        table = after;
        match kind {
            b'S' => {
                let value = take_long(&mut table)?;
                texts.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
            }
            b'F' | b'A' | b'x' => _ = take_long(&mut table)?,
            b't' | b'b' | b'B' => table = table.get(1..)?,
            b's' | b'u' => table = table.get(2..)?,
            b'I' | b'i' | b'f' => table = table.get(4..)?,
            b'L' | b'l' | b'd' | b'T' => table = table.get(8..)?,
            b'V' => {}
            _ => return None,
        }
    }
    Some(texts)
}

/// What stands behind its length.
fn take_long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (taken, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [length.to_be_bytes().as_slice(), bytes].concat()
    }

    fn start(table: &[u8]) -> Vec<u8> {
        [b"\x00\x0a\x00\x0a\x00\x09", long(table).as_slice(), b"what follows"].concat()
    }

    fn text(key: &str, value: &str) -> Vec<u8> {
        [&[u8::try_from(key.len()).unwrap()], key.as_bytes(), b"S", &long(value.as_bytes())].concat()
    }

    #[test]
    fn texts_are_found_wherever_they_stand_among_other_kinds() {
        let odd =
            [b"\x01cF".as_slice(), &long(b"\x01xt\x01"), b"\x01bt\x01", b"\x01iI\x00\x00\x00\x01", b"\x01vV"].concat();
        let table = [text("product", "RabbitMQ"), odd, text("version", "4.1.3")].concat();
        let expected = [("product", "RabbitMQ"), ("version", "4.1.3")];
        assert_eq!(
            properties(&start(&table)).unwrap(),
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_greeting_that_was_cut_or_is_another_says_nothing_and_harms_nothing() {
        let whole = start(&[text("product", "RabbitMQ"), text("version", "4")].concat());
        let table = whole.len() - b"what follows".len();
        for length in 0..table {
            assert_eq!(properties(&whole[..length]), None, "{length}");
        }
        assert!(properties(&whole[..table]).is_some());
        assert_eq!(properties(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(properties(&start(b"\x01kZ")), None);
    }
}
