//! Requests in the bytes of a Kafka client: a length of four bytes, then the number of the API in two.

use super::control::Held;

const END_TXN: u16 = 26;
const HEAD: usize = 6;

/// Where a client's bytes stand.
#[derive(Default)]
pub(super) struct Requests {
    /// The beginning of a request that is too short to tell what it is, or of an `EndTxn` that is not complete.
    begun: Vec<u8>,
    /// Bytes that still belong to a request which passes as it comes.
    rest: usize,
}

impl Requests {
    /// Parts the bytes so that each `EndTxn` that is to be held is a piece of its own, complete.
    pub fn part(&mut self, bytes: &[u8], hold: impl Fn() -> Option<Held>) -> Vec<(Vec<u8>, Option<Held>)> {
        let mut pieces = Vec::new();
        let mut passing = Vec::new();
        let mut bytes = bytes;
        loop {
            let now = bytes.len().min(self.rest);
            passing.extend_from_slice(&bytes[..now]);
            (self.rest, bytes) = (self.rest - now, &bytes[now..]);
            if bytes.is_empty() {
                break;
            }
            let missing = match Head::of(&self.begun) {
                None => HEAD - self.begun.len(),
                Some(head) => head.size - self.begun.len(),
            };
            let now = bytes.len().min(missing);
            self.begun.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            let Some(head) = Head::of(&self.begun) else { continue };
            if head.api != END_TXN {
                self.rest = head.size - self.begun.len();
                passing.append(&mut self.begun);
            } else if self.begun.len() == head.size {
                let request = std::mem::take(&mut self.begun);
                match hold() {
                    None => passing.extend(request),
                    Some(held) => {
                        if !passing.is_empty() {
                            pieces.push((std::mem::take(&mut passing), None));
                        }
                        pieces.push((request, Some(held)));
                    }
                }
            }
        }
        if !passing.is_empty() {
            pieces.push((passing, None));
        }
        pieces
    }
}

struct Head {
    api: u16,
    /// Of the whole request, its length included.
    size: usize,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Head> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (api, _) = rest.split_first_chunk()?;
        let size = 4 + u32::from_be_bytes(*length) as usize;
        Some(Head { api: u16::from_be_bytes(*api), size: size.max(HEAD) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::control::{Control, Toxic};
    use super::*;

    fn request(api: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((body.len() + 2) as u32).to_be_bytes().to_vec();
        bytes.extend(api.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn an_end_of_a_transaction_is_found_however_the_bytes_come() {
        let whole = [request(0, &[7; 90]), request(END_TXN, b"txn"), request(3, b""), request(END_TXN, b"x")];
        let stream = whole.concat();
        for size in [1, 2, 5, 7, 64, 1000] {
            let control = Arc::new(Control::default());
            control.set(Toxic::HoldEndTxn { ms: 1, hang_up: false });
            let mut requests = Requests::default();
            let parted = stream.chunks(size).flat_map(|chunk| requests.part(chunk, || control.hold()));
            let (mut all, mut held) = (Vec::new(), Vec::new());
            for (bytes, is_held) in parted {
                all.extend_from_slice(&bytes);
                held.extend(is_held.map(|_| bytes));
            }
            assert_eq!(all, stream, "nothing is lost or moved");
            assert_eq!(held.first(), Some(&whole[1]), "{size}");
        }
    }

    #[test]
    fn nothing_is_held_unless_asked() {
        let control = Arc::new(Control::default());
        let stream = request(END_TXN, b"txn");
        let pieces = Requests::default().part(&stream, || control.hold());
        assert!(pieces.len() == 1 && pieces[0].1.is_none());
    }
}
