//! One connection: bytes from the client to the server and back, with whatever is wrong with the leg.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::control::{Control, Held, State, Toxic, Way};
use super::kafka::Requests;
use super::postgres::Messages;

/// At most so many pieces wait between a reader and its writer, so that a slow leg pushes back.
const QUEUE: usize = 64;
const BUFFER: usize = 64 * 1024;

/// One end of a connection.
pub(super) trait Peer: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes dropping it a reset rather than a close, where it is a socket.
    fn reset_when_dropped(&self) {}
}

impl Peer for TcpStream {
    fn reset_when_dropped(&self) {
        // A socket that cannot be told is broken already.
        let _ = self.set_zero_linger();
    }
}

impl Peer for DuplexStream {}

/// Finds requests in the bytes of a client.
pub(super) enum Framing {
    None,
    Kafka(Requests),
    Postgres(Messages),
}

/// What both directions of a connection know of each other.
#[derive(Default)]
struct Shared {
    /// Bytes were swallowed: the two ends no longer agree on where they are.
    lost: AtomicBool,
    /// A `COMMIT` went through whose answer must not.
    cut_at_answer: AtomicBool,
    /// The client is to be hung up on, while its requests are still delivered.
    hang_up: Notify,
}

/// Bytes on their way.
struct Piece {
    bytes: Vec<u8>,
    /// Not before then, as long as the leg's state is the one of this number.
    due: Option<(Instant, u64)>,
    /// Freed once the bytes are written, or will never be.
    held: Option<Held>,
}

enum End {
    Close,
    Reset,
}

/// Serves the connection to its end.
pub(super) async fn run(
    mut client: TcpStream,
    mut server: impl Peer,
    control: Arc<Control>,
    framing: Framing,
) {
    let _open = control.opened();
    let watch = control.watch();
    let shared = Shared::default();
    let end = {
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_server, to_server) = tokio::io::split(&mut server);
        let requests = direction(from_client, to_server, Way::ToServer, framing, &control, &shared);
        let answers = direction(from_server, to_client, Way::ToClient, Framing::None, &control, &shared);
        tokio::select! {
            _ = async { tokio::try_join!(requests, answers) } => End::Close,
            end = sentence(watch, &shared) => end,
        }
    };
    if let End::Reset = end {
        client.reset_when_dropped();
        server.reset_when_dropped();
    }
}

/// Waits until the leg's state ends this connection.
async fn sentence(mut watch: watch::Receiver<State>, shared: &Shared) -> End {
    let resets = watch.borrow_and_update().resets;
    loop {
        let state = *watch.borrow_and_update();
        if state.resets > resets {
            return End::Reset;
        }
        match state.toxic {
            Toxic::Cut => return End::Close,
            Toxic::HalfOpen | Toxic::SwallowAnswers => {}
            _ if shared.lost.load(Ordering::SeqCst) => return End::Reset,
            _ => {}
        }
        if watch.changed().await.is_err() {
            return End::Close;
        }
    }
}

fn swallows(toxic: Toxic, way: Way) -> bool {
    toxic == Toxic::HalfOpen || (toxic == Toxic::SwallowAnswers && way == Way::ToClient)
}

/// Copies until the reader's end. An error ends the whole connection.
async fn direction(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    way: Way,
    framing: Framing,
    control: &Arc<Control>,
    shared: &Shared,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let ((), ()) = tokio::try_join!(
        read(from, sender, way, framing, control, shared),
        write(to, receiver, way, control, shared)
    )?;
    Ok(())
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    queue: mpsc::Sender<Piece>,
    way: Way,
    mut framing: Framing,
    control: &Arc<Control>,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut random = ChaCha8Rng::seed_from_u64(control.counters().connections);
    loop {
        let room = match control.now().toxic {
            Toxic::Slow { bytes_per_second } => (bytes_per_second as usize / 20).clamp(1, BUFFER),
            _ => BUFFER,
        };
        // A reset by the peer is an end like another: what it had sent before is still delivered.
        let count = from.read(&mut buffer[..room]).await.unwrap_or(0);
        let State { toxic, number, .. } = control.now();
        if swallows(toxic, way) {
            shared.lost.store(true, Ordering::SeqCst);
            if count == 0 {
                // The other end does not learn of it either, until the leg's state ends the connection.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if way == Way::ToClient && shared.cut_at_answer.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if count == 0 {
            return Ok(());
        }
        let bytes = &buffer[..count];
        let pieces = match &mut framing {
            Framing::None => vec![(bytes.to_vec(), None)],
            Framing::Kafka(requests) => requests.part(bytes, || control.hold()),
            Framing::Postgres(messages) => {
                if messages.commits_in(bytes) && control.take_commit() {
                    shared.cut_at_answer.store(true, Ordering::SeqCst);
                }
                vec![(bytes.to_vec(), None)]
            }
        };
        for (bytes, held) in pieces {
            if held.as_ref().is_some_and(|held| held.hang_up) {
                shared.hang_up.notify_one();
            }
            let delay = match (&held, toxic) {
                (Some(held), _) => Some(held.time),
                (None, Toxic::Latency { ms, jitter_ms }) => {
                    let jitter = random.random_range(0..=2 * jitter_ms);
                    Some(Duration::from_millis((ms + jitter).saturating_sub(jitter_ms)))
                }
                _ => None,
            };
            // What comes later waits behind it in the queue.
            let due = delay.map(|delay| (Instant::now() + delay, number));
            if queue.send(Piece { bytes, due, held }).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Piece>,
    way: Way,
    control: &Control,
    shared: &Shared,
) -> io::Result<()> {
    let mut watch = control.watch();
    let mut gone = false;
    loop {
        let piece = tokio::select! {
            piece = queue.recv() => piece,
            () = shared.hang_up.notified(), if way == Way::ToClient && !gone => {
                let _ = to.shutdown().await;
                gone = true;
                continue;
            }
        };
        let Some(piece) = piece else { break };
        let number = watch.borrow_and_update().number;
        if let Some((due, _)) = piece.due.filter(|(_, under)| *under == number) {
            // Another state of the leg sets free what waited under this one.
            tokio::select! {
                () = sleep_until(due) => {}
                _ = watch.changed() => {}
            }
        }
        // Before it goes on: what was read before the leg became slow, all at once, is as slow.
        if let Toxic::Slow { bytes_per_second } = control.now().toxic {
            let time = Duration::from_secs_f64(piece.bytes.len() as f64 / bytes_per_second.max(1) as f64);
            tokio::select! {
                () = sleep(time) => {}
                _ = watch.changed() => {}
            }
        }
        if !gone {
            match to.write_all(&piece.bytes).await {
                Ok(()) => control.passed(way, piece.bytes.len()),
                Err(error) if way == Way::ToServer => return Err(error),
                // The client hung up: its requests are still delivered, answers go nowhere.
                Err(_) => gone = true,
            }
        }
        drop(piece.held);
    }
    // It may be gone, which is as good.
    let _ = to.shutdown().await;
    Ok(())
}
