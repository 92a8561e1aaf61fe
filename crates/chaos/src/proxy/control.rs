//! What is wrong with a leg at the moment, and what went through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// What a proxy does to the traffic of its leg. Bytes first, then what only makes sense inside one protocol; in
/// another it does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Toxic {
    #[default]
    None,
    /// Connections are closed and new ones refused.
    Cut,
    /// Every connection is reset, once; then the leg behaves.
    Reset,
    /// Connections stay open and new ones are accepted, but no byte arrives in either direction. When this ends,
    /// connections that have lost bytes are reset, as by a peer that answers again and knows nothing of them.
    HalfOpen,
    /// Requests arrive and are applied; answers do not come back. Ends as `HalfOpen` does.
    SwallowAnswers,
    /// Every byte is late by this much, more or less, each way; none overtakes another.
    Latency { ms: u64, jitter_ms: u64 },
    /// A limit for each connection and direction.
    Slow { bytes_per_second: u64 },
    /// Kafka: an `EndTxn` request is held back while later requests on other connections pass, other `EndTxn`
    /// among them; what follows on its own connection waits behind it. It is delivered even if the client has
    /// hung up by then; with `hang_up`, the client's side is closed at once, so that it sends the request again.
    /// One is held at a time.
    HoldEndTxn { ms: u64, hang_up: bool },
    /// PostgreSQL: the next so many `COMMIT`s are applied, and the connection is cut before the answer is seen.
    LoseCommitAnswer { times: u32 },
    /// HTTP: this share of the requests is answered with 429 and never applied.
    TooManyRequests { share: f64 },
    /// OpenSearch: this share of the items of `_bulk` requests is answered with 429 and not applied; the others
    /// are.
    PartialBulk { share: f64 },
    /// HTTP: every request is answered with 503.
    Unavailable,
    /// Registry: 404 for schemas by id without a code of the registry's own, as by a gateway that lost its way.
    NotFound,
}

/// Since the proxy started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub connections: u64,
    pub open: u64,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
    /// How often a toxic of one protocol has struck: requests held, answers lost, requests or items refused.
    pub struck: u64,
}

const MILLION: u64 = 1_000_000;

/// One leg's switch and counters.
#[derive(Debug)]
pub struct Control {
    state: watch::Sender<State>,
    connections: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    struck: AtomicU64,
    holds: AtomicBool,
    /// How much of a share has gathered, in millionths: the next request is struck when it reaches one.
    share: AtomicU64,
}

/// What connections look at. A new toxic has a new number, so that the same one set twice strikes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct State {
    pub toxic: Toxic,
    pub number: u64,
    /// Connections older than this number of resets are to be reset.
    pub resets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            state: watch::Sender::new(State::default()),
            connections: AtomicU64::default(),
            open: AtomicU64::default(),
            to_server: AtomicU64::default(),
            to_client: AtomicU64::default(),
            struck: AtomicU64::default(),
            holds: AtomicBool::default(),
            share: AtomicU64::default(),
        }
    }
}

impl Control {
    /// From now on, in place of what was set before.
    pub fn set(&self, toxic: Toxic) {
        self.state.send_modify(|state| {
            state.number += 1;
            state.toxic = toxic;
            if toxic == Toxic::Reset {
                state.resets += 1;
                state.toxic = Toxic::None;
            }
        });
    }

    pub fn heal(&self) {
        self.set(Toxic::None);
    }

    pub fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: of(&self.connections),
            open: of(&self.open),
            bytes_to_server: of(&self.to_server),
            bytes_to_client: of(&self.to_client),
            struck: of(&self.struck),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn now(&self) -> State {
        *self.state.borrow()
    }

    pub(super) fn passed(&self, way: Way, bytes: usize) {
        let counter = match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn strike(&self, times: u64) {
        self.struck.fetch_add(times, Ordering::Relaxed);
    }

    /// Takes one of the `COMMIT`s whose answers are to be lost, if one is left.
    pub(super) fn take_commit(&self) -> bool {
        let taken = self.state.send_if_modified(|state| match &mut state.toxic {
            Toxic::LoseCommitAnswer { times } if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        });
        if taken {
            self.strike(1);
        }
        taken
    }

    /// For how long an `EndTxn` is to be held, unless one is held already.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Held> {
        let Toxic::HoldEndTxn { ms, hang_up } = self.now().toxic else { return None };
        if self.holds.swap(true, Ordering::SeqCst) {
            return None;
        }
        self.strike(1);
        Some(Held { time: Duration::from_millis(ms), hang_up, control: self.clone() })
    }

    /// Whether this request is among the share that is struck: evenly spread, and the same in every run.
    pub(super) fn is_struck(&self, share: f64) -> bool {
        let step = (share.clamp(0.0, 1.0) * MILLION as f64) as u64;
        let before = self.share.fetch_add(step, Ordering::SeqCst);
        let struck = (before % MILLION) + step >= MILLION;
        self.strike(u64::from(struck));
        struck
    }

    /// Counts a connection for as long as the result lives.
    pub(super) fn opened(&self) -> Open<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }
}

/// The one request of the leg that is held back, until this is dropped.
pub(super) struct Held {
    pub time: Duration,
    pub hang_up: bool,
    control: Arc<Control>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.control.holds.store(false, Ordering::SeqCst);
    }
}

pub(super) struct Open<'a>(&'a Control);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_evenly() {
        let control = Control::default();
        let struck: Vec<bool> = (0..8).map(|_| control.is_struck(0.25)).collect();
        assert_eq!(struck, [false, false, false, true, false, false, false, true]);
        assert!((0..9).all(|_| control.is_struck(1.0)) && !(0..9).any(|_| control.is_struck(0.0)));
        assert_eq!(control.counters().struck, 11);
    }

    #[test]
    fn one_request_is_held_at_a_time() {
        let control = Arc::new(Control::default());
        assert!(control.hold().is_none());
        control.set(Toxic::HoldEndTxn { ms: 5, hang_up: false });
        let held = control.hold();
        assert!(held.is_some() && control.hold().is_none());
        drop(held);
        assert!(control.hold().is_some());
    }
}
