//! Reads `cache.invalidation` and evicts the entries it names from Redis, telling a channel. Promises: an event
//! never evicts an entry read after its change, a value read before the change is not filled in after it, and
//! repeating events changes nothing. Never: writes a value, or reads one.

use std::sync::Arc;
use std::time::Duration;

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{Batch, Fault, OffsetsIn, Reason, Rejection, Sink, TopicPartition, Verdict, Verdicts};
use fhirehose_tape::{Tape, Value};
use redis::{Client, Connection, ErrorKind, RedisError, Script};

/// Script that cache fillers call to write an entry; see docs/cache.md.
pub const FILL_SCRIPT: &str = include_str!("../scripts/fill.lua");
const INVALIDATE_SCRIPT: &str = include_str!("../scripts/invalidate.lua");
/// Commands sent before their answers are read.
const PIPELINE: usize = 1_000;

/// How entries are evicted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Channel that is told of every eviction.
    pub channel: String,
    /// How much later than its `source_ts` a change may have become visible: databases stamp a change with the
    /// second its statement began. Reads up to this long after a change count as made before it.
    pub settle: Duration,
    /// Life of the marker that keeps values read before a change out; longer than the slowest filler takes.
    pub marker_life: Duration,
    /// Of connecting, and of every answer.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            channel: "fhirehose:invalidated".into(),
            settle: Duration::from_secs(5),
            marker_life: Duration::from_secs(600),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The sink.
pub struct SinkRedis {
    client: Client,
    connection: Option<Connection>,
    script: Script,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    options: Options,
    tape: Tape,
}

/// One call of the script.
struct Eviction {
    key: String,
    /// Milliseconds since the epoch.
    bound: i64,
    message: Vec<u8>,
}

impl SinkRedis {
    /// `url` as `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS. Connects when first needed.
    pub fn new(
        url: &str,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        options: Options,
    ) -> Result<Self, Fault> {
        let client = Client::open(url)
            .map_err(|_| Fault::fatal("the Redis URL is not of the form redis://host:port"))?;
        let script = match planted("guard-dropped") {
            // Planted: entries read after the change are evicted too.
            true => Script::new(&INVALIDATE_SCRIPT.replace("read_at >= bound", "false")),
            false => Script::new(INVALIDATE_SCRIPT),
        };
        Ok(SinkRedis { client, connection: None, script, schemas, options, tape: Tape::new() })
    }

    fn connect(&mut self) -> Result<&mut Connection, RedisError> {
        if self.connection.is_none() {
            let mut connection = self.client.get_connection_with_timeout(self.options.timeout)?;
            connection.set_read_timeout(Some(self.options.timeout))?;
            connection.set_write_timeout(Some(self.options.timeout))?;
            self.script.load(&mut connection)?;
            return Ok(self.connection.insert(connection));
        }
        self.connection.as_mut().ok_or_else(|| (ErrorKind::ClientError, "not connected").into())
    }

    /// Runs the script for each; answers in order whether something changed.
    fn evict(&mut self, evictions: &[&Eviction]) -> Result<Vec<bool>, RedisError> {
        // Planted: the marker is gone before a slow filler comes.
        let life = if planted("eviction-without-marker") { 1 } else { millis(self.options.marker_life) };
        let mut pipeline = redis::pipe();
        for eviction in evictions {
            pipeline
                .cmd("EVALSHA")
                .arg(self.script.get_hash())
                .arg(1)
                .arg(&eviction.key)
                .arg(eviction.bound)
                .arg(life)
                .arg(&self.options.channel)
                .arg(&eviction.message);
        }
        pipeline.query(self.connect()?)
    }

    fn read(&mut self, value: &[u8]) -> Result<Result<Eviction, Rejection>, Fault> {
        if let Err(error) = decode(value, &*self.schemas, &mut self.tape) {
            return error.rejection().map(Err);
        }
        let event = self.tape.root();
        let missing = |field: &str| Ok(Err(Rejection::new(Reason::MissingElement, field)));
        let Some(key) = event.get("key").and_then(Value::as_str) else { return missing("key") };
        let Some(source_ts) = event.get("source_ts").and_then(Value::as_i64) else {
            return missing("source_ts");
        };
        let mut message = Vec::new();
        event.write_json(&mut message);
        let bound = source_ts.saturating_add(millis(self.options.settle));
        Ok(Ok(Eviction { key: key.to_owned(), bound, message }))
    }
}

impl Sink for SinkRedis {
    fn offsets_in(&self) -> OffsetsIn {
        OffsetsIn::Kafka
    }

    fn claim(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
        Ok(vec![None; partitions.len()])
    }

    fn stage(&mut self, batch: &Batch) -> Result<Verdicts, Fault> {
        let mut read = Vec::with_capacity(batch.len());
        for record in batch.iter() {
            read.push(match record.value() {
                Some(value) => self.read(value)?.map_err(Verdict::from),
                None => Err(Verdict::Drop(Reason::Tombstone)),
            });
        }
        let evictions: Vec<&Eviction> = read.iter().filter_map(|read| read.as_ref().ok()).collect();
        let mut changed = Vec::with_capacity(evictions.len());
        for chunk in evictions.chunks(PIPELINE) {
            let answers = self.evict(chunk).map_err(|error| {
                // What of the chunk was done is not known, and doing it again is harmless.
                self.connection = None;
                fault(&error)
            })?;
            point("redis.evicted");
            changed.extend(answers);
        }
        let mut changed = changed.into_iter();
        let mut read = read.iter();
        batch.judge(|_| match read.next() {
            Some(Ok(_)) => Ok(match changed.next() {
                Some(true) => Verdict::Emit(1),
                Some(false) => Verdict::Drop(Reason::StaleVersion),
                None => return Err(Fault::transient("Redis sent fewer answers than it was asked for")),
            }),
            Some(Err(verdict)) => Ok(verdict.clone()),
            None => Err(Fault::fatal("a record of the batch was not read")),
        })
    }

    fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Nothing to undo: each eviction stands on its own and may be repeated.
    fn rollback(&mut self) {}
}

/// Server messages may quote keys: only codes and kinds are told.
fn fault(error: &RedisError) -> Fault {
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            Fault::fatal(format!("Redis refuses us: {}; check [redis] url", error.category()))
        }
        _ if error.is_timeout() => Fault::transient("Redis did not answer in time"),
        _ => Fault::transient(format!("Redis: {} ({})", error.category(), error.code().unwrap_or("no code"))),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
