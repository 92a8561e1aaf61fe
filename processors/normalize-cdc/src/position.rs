//! Where changes stand in their source, and how far each partition has been read. Debezium sends changes again
//! after a crash; they come from the same place and are told by it.

use std::collections::HashMap;

use fhirehose_codec::{ChangeEvent, Op, Source};
use fhirehose_stream::{Fault, TopicPartition};

/// Place of a change in its source's log, comparable within one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    server: i64,
    place: Place,
    /// When the source committed it, milliseconds since the epoch.
    ts_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `half`: a moved primary key is a delete and then a create, both of the same row event.
    Binlog { file: u64, pos: i64, row: i64, half: u8 },
    /// One log record may hold several rows, so only an earlier one is known to have been seen.
    Lsn(i64),
}

impl Position {
    /// `None` for snapshots, which have no place of their own in the log, and where the source tells none.
    pub fn of(event: &ChangeEvent<'_>) -> Option<Position> {
        let source = &event.source;
        let place = match (source.file, source.pos, source.lsn) {
            _ if source.snapshot => return None,
            (Some(file), Some(pos), _) => {
                let half = u8::from(event.op != Op::Delete);
                Place::Binlog { file: file_number(file)?, pos, row: source.row, half }
            }
            (_, _, Some(lsn)) => Place::Lsn(lsn),
            _ => return None,
        };
        Some(Position { server: source.server_id, place, ts_ms: source.ts_ms })
    }

    /// Whether a partition read up to here has seen `other`. A log begun anew has lower places and later
    /// times, so that it is never taken for an old one.
    fn covers(&self, other: &Position) -> bool {
        let seen = match (&self.place, &other.place) {
            (Place::Binlog { file, pos, row, half }, Place::Binlog { file: f, pos: p, row: r, half: h }) => {
                (f, p, r, h) <= (file, pos, row, half)
            }
            (Place::Lsn(mine), Place::Lsn(theirs)) => theirs < mine,
            _ => false,
        };
        seen && self.server == other.server && other.ts_ms <= self.ts_ms
    }

    fn to_metadata(&self) -> String {
        let Position { server, ts_ms, .. } = self;
        match self.place {
            Place::Binlog { file, pos, row, half } => {
                format!("binlog {server} {ts_ms} {file} {pos} {row} {half}")
            }
            Place::Lsn(lsn) => format!("lsn {server} {ts_ms} {lsn}"),
        }
    }

    fn of_metadata(text: &str) -> Option<Position> {
        let mut parts = text.split(' ');
        let kind = parts.next()?;
        let numbers: Vec<i64> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
        let (server, ts_ms, place) = match (kind, numbers.as_slice()) {
            ("binlog", &[server, ts_ms, file, pos, row, half]) => {
                let (file, half) = (u64::try_from(file).ok()?, u8::try_from(half).ok()?);
                (server, ts_ms, Place::Binlog { file, pos, row, half })
            }
            ("lsn", &[server, ts_ms, lsn]) => (server, ts_ms, Place::Lsn(lsn)),
            _ => return None,
        };
        Some(Position { server, place, ts_ms })
    }
}

/// The number of a binlog file, `binlog.000012`.
fn file_number(file: &str) -> Option<u64> {
    file.rsplit('.').next()?.parse().ok()
}

/// The version id of what a change makes: `<file>.<pos>.<row>`, or the log sequence number. Rows of a snapshot
/// sort before every change of the log.
pub(crate) fn version_id(source: &Source<'_>) -> String {
    let file = source.file.and_then(file_number).filter(|_| !source.snapshot).unwrap_or(0);
    match (source.pos, source.lsn) {
        (Some(pos), _) => format!("{file}.{pos}.{}", source.row),
        (None, Some(lsn)) if !source.snapshot => format!("{lsn}.0.0"),
        (None, lsn) => format!("0.{}.0", lsn.unwrap_or(0)),
    }
}

/// How far each partition has been read, as of the last commit and in the transaction since.
#[derive(Default)]
pub(crate) struct Watermarks {
    committed: HashMap<TopicPartition, Position>,
    pending: HashMap<TopicPartition, Position>,
}

impl Watermarks {
    fn get(&self, at: &TopicPartition) -> Option<&Position> {
        self.pending.get(at).or_else(|| self.committed.get(at))
    }

    pub fn covers(&self, at: &TopicPartition, position: &Position) -> bool {
        self.get(at).is_some_and(|mark| mark.covers(position))
    }

    /// The position of a change that was not covered.
    pub fn raise(&mut self, at: &TopicPartition, position: Position) {
        self.pending.insert(at.clone(), position);
    }

    pub fn commit(&mut self) {
        self.committed.extend(self.pending.drain());
    }

    pub fn abort(&mut self) {
        self.pending.clear();
    }

    /// Starts from what the last offset commit holds. Text that is not ours is refused rather than guessed at.
    pub fn restore(&mut self, at: &TopicPartition, metadata: Option<&str>) -> Result<(), Fault> {
        self.forget(std::slice::from_ref(at));
        match metadata.filter(|text| !text.is_empty()).map(Position::of_metadata) {
            Some(Some(position)) => {
                self.committed.insert(at.clone(), position);
                Ok(())
            }
            Some(None) => Err(Fault::fatal(format!(
                "the offset commit of {} {} holds metadata that is no source position: commit its offset again \
                 without metadata",
                at.topic, at.partition
            ))),
            None => Ok(()),
        }
    }

    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.committed.remove(at);
            self.pending.remove(at);
        }
    }

    pub fn metadata(&self, at: &TopicPartition) -> Option<String> {
        self.get(at).map(Position::to_metadata)
    }
}
