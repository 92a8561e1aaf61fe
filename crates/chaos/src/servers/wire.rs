//! The few requests of Kafka's protocol that no Rust client makes: moving leaders, changing one setting of a topic,
//! asking who coordinates. All in their flexible versions: lengths are varints plus one, structures end with tags.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(15);
/// Of one answer; more means that the bytes are not what they are taken for.
const LIMIT: usize = 16 << 20;

/// A request under way to being sent.
pub struct Request {
    api: i16,
    version: i16,
    body: Vec<u8>,
}

impl Request {
    pub fn new(api: i16, version: i16) -> Request {
        Request { api, version, body: Vec::new() }
    }

    pub fn int8(mut self, value: i8) -> Self {
        self.body.extend(value.to_be_bytes());
        self
    }

    pub fn int32(mut self, value: i32) -> Self {
        self.body.extend(value.to_be_bytes());
        self
    }

    pub fn string(mut self, text: &str) -> Self {
        self.varint(text.len() as u32 + 1);
        self.body.extend(text.as_bytes());
        self
    }

    pub fn null(mut self) -> Self {
        self.varint(0);
        self
    }

    /// An array, each element written by `write`.
    pub fn array<T>(
        mut self,
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.varint(items.len() as u32 + 1);
        items.fold(self, write)
    }

    /// The end of a structure: no tagged fields.
    pub fn end(self) -> Self {
        self.int8(0)
    }

    fn varint(&mut self, value: u32) {
        let mut rest = value;
        while rest > 127 {
            self.body.push(rest as u8 & 127 | 128);
            rest >>= 7;
        }
        self.body.push(rest as u8);
    }

    /// To the first of the brokers that takes it.
    pub fn send(&self, brokers: &str) -> Result<Response> {
        let mut last = None;
        for broker in brokers.split(',') {
            match self.exchange(broker) {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(error.context(format!("asking {broker}"))),
            }
        }
        Err(last.context("no brokers are named")?)
    }

    fn exchange(&self, broker: &str) -> Result<Response> {
        const CORRELATION: i32 = 1;
        const CLIENT: &str = "fhirehose-chaos";
        let address = broker.parse().with_context(|| format!("'{broker}' is no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut bytes = Vec::new();
        bytes.extend(self.api.to_be_bytes());
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(CORRELATION.to_be_bytes());
        // The client's name keeps the older form: a length of two bytes.
        bytes.extend((CLIENT.len() as i16).to_be_bytes());
        bytes.extend(CLIENT.as_bytes());
        bytes.push(0);
        bytes.extend(&self.body);
        stream.write_all(&(bytes.len() as u32).to_be_bytes())?;
        stream.write_all(&bytes)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= LIMIT, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        let mut response = Response { bytes: answer, at: 0 };
        ensure!(response.int32()? == CORRELATION, "an answer to something else");
        response.end()?;
        Ok(response)
    }
}

/// An answer, read field by field.
pub struct Response {
    bytes: Vec<u8>,
    at: usize,
}

impl Response {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes =
            self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).context("a short answer")?;
        self.at += N;
        Ok(*bytes)
    }

    pub fn int8(&mut self) -> Result<i8> {
        self.take().map(i8::from_be_bytes)
    }

    pub fn int16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub fn int32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub fn int64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<usize> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let [byte] = self.take()?;
            value |= usize::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
            shift += 7;
            ensure!(shift < 35, "a varint without an end");
        }
    }

    /// Null is empty.
    pub fn string(&mut self) -> Result<String> {
        let length = self.varint()?.saturating_sub(1);
        let bytes = self.bytes.get(self.at..self.at + length).context("a short answer")?;
        self.at += length;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    pub fn array<T>(&mut self, read: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let length = self.varint()?.saturating_sub(1);
        (0..length).map(|_| read(self)).collect()
    }

    /// The end of a structure; its tagged fields are passed over.
    pub fn end(&mut self) -> Result<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.at += size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let long = "x".repeat(300);
        let request = Request::new(1, 1)
            .int8(-3)
            .int32(7)
            .string(&long)
            .null()
            .array([1, 2].iter(), |request, n| request.int32(*n).end());
        let mut response = Response { bytes: request.end().body, at: 0 };
        assert_eq!((response.int8().unwrap(), response.int32().unwrap()), (-3, 7));
        assert_eq!((response.string().unwrap(), response.string().unwrap()), (long, String::new()));
        let numbers = response.array(|response| {
            let number = response.int32()?;
            response.end().map(|()| number)
        });
        assert_eq!(numbers.unwrap(), [1, 2]);
        response.end().unwrap();
        assert!(response.int16().is_err());
    }
}
