//! Messages in the bytes of a PostgreSQL client: untyped ones until the session begins, then a letter and a length
//! each.

/// `COMMIT` as a simple query, which is how a transaction of the product ends.
const COMMIT: &[u8] = b"COMMIT\0";
/// Codes of the untyped messages that another untyped one follows: asking for TLS, asking for GSSAPI.
const ASKS: [u32; 2] = [80_877_103, 80_877_104];

/// Where a client's bytes stand.
#[derive(Default)]
pub(super) struct Messages {
    in_session: bool,
    /// The beginning of a message: as much as must be known of it.
    begun: Vec<u8>,
    /// Bytes of the message that need not be looked at.
    rest: usize,
}

impl Messages {
    /// Whether a `COMMIT` ends in these bytes.
    pub fn commits_in(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let now = bytes.len().min(self.rest);
                (self.rest, bytes) = (self.rest - now, &bytes[now..]);
                continue;
            }
            let now = bytes.len().min(self.needed() - self.begun.len());
            self.begun.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.begun.len() == self.needed() {
                found |= self.known();
            }
        }
        found
    }

    /// How much of the message begun must be known: a session's first eight bytes, then five, and all of a query
    /// that is as long as a `COMMIT`.
    fn needed(&self) -> usize {
        match self.in_session {
            false => 8,
            true if self.begun.len() >= 5 && self.may_commit() => 5 + COMMIT.len(),
            true => 5,
        }
    }

    fn may_commit(&self) -> bool {
        self.begun[0] == b'Q' && number(&self.begun[1..5]) as usize == 4 + COMMIT.len()
    }

    /// As much as is needed is there: says whether it is a `COMMIT`, and goes on to what follows.
    fn known(&mut self) -> bool {
        let commits = self.in_session && self.begun[5..].eq_ignore_ascii_case(COMMIT);
        let size = if self.in_session {
            1 + number(&self.begun[1..5]) as usize
        } else {
            self.in_session = !ASKS.contains(&number(&self.begun[4..8]));
            number(&self.begun[..4]) as usize
        };
        self.rest = size.saturating_sub(self.begun.len());
        self.begun.clear();
        commits
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untyped(code: u32, rest: &[u8]) -> Vec<u8> {
        [&(8 + rest.len() as u32).to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    }

    fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(4 + body.len() as u32).to_be_bytes(), body].concat()
    }

    #[test]
    fn only_a_commit_is_found_however_the_bytes_come() {
        let before = [
            untyped(ASKS[0], b""),
            untyped(196_608, b"user\0u\0\0"),
            typed(b'Q', b"BEGIN\0"),
            typed(b'd', b"COMMIT\0"),
            typed(b'Q', b"SELECT 'COMMIT'\0"),
            typed(b'Q', b"SELECT\0"),
            typed(b'S', b""),
        ]
        .concat();
        for size in [1, 3, 4, 11, 1000] {
            let mut messages = Messages::default();
            assert!(!before.chunks(size).any(|chunk| messages.commits_in(chunk)), "{size}");
            let commit = typed(b'Q', b"commit\0");
            let found: Vec<bool> = commit.chunks(size).map(|chunk| messages.commits_in(chunk)).collect();
            assert_eq!(found.iter().filter(|found| **found).count(), 1, "{size}");
            assert!(found[found.len() - 1]);
            assert!(!messages.commits_in(&typed(b'X', b"")));
        }
    }
}
