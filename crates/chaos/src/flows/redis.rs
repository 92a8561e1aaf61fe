//! sink-redis: a source whose rows change, fillers that cache them, quick and slow ones, and the events that make
//! entries stale; and poison.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use redis::Connection;
use serde_json::Value;

use super::avro::{Field, Schemas, Shape, loosened, named};
use super::redis_source::{Filler, Source};
use super::stores::{
    Inbox, RECORD_MAX_BYTES, TOO_LARGE, UNKNOWN_SCHEMA, at_ends, letter_print, load, locked, now_ms,
};
use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::load::Input;
use crate::ledger::postgres::Cell;
use crate::ledger::redis::{Fill, History, Told, connect, entries, run_id, stale, unlike};
use crate::ledger::state::{Row, Want};
use crate::ledger::topics::{Group, Record, Topics};
use crate::ledger::{Breaches, Violation};
use crate::world::World;

const NAME: &str = "sink-redis";
const TOPIC: &str = "cache.invalidation";
/// As the sink has it by default.
const CHANNEL: &str = "fhirehose:invalidated";
/// How much later than its stamp a change may show here: less than the sink settles for.
const VISIBLE_MS: i64 = 1_500;

pub struct RedisFlow;

impl Flow for RedisFlow {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Redis
    }

    fn inputs(&self) -> Vec<String> {
        vec![TOPIC.to_owned()]
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let mut schemas = Schemas::default();
        let (id, text) = schemas.add(&world.registry, TOPIC)?;
        let loose_text = loosened(&text, "LooseInvalidation", "source_ts")?;
        let loose = schemas.register(&world.registry, "chaos.loose.invalidation", &loose_text)?;
        let judge = Box::new(move |_: &str, record: &Record| judge(record, &schemas));
        Ok(Box::new(Running {
            partitions: Topics::connect(world)?.partitions(TOPIC)?,
            inbox: Inbox::open(world, run, NAME, &[TOPIC], &[], 1, judge)?,
            shapes: (Shape::of(id, &text)?, Shape::of(loose, &loose_text)?),
            script: fs::read_to_string(world.root.join("processors/sink-redis/scripts/fill.lua"))?,
            source: Source::new(&run.tag),
            watching: Group::connect(world, NAME)?,
            asking: Group::connect(world, NAME)?,
            redis: Mutex::new(None),
            server: run_id(&mut connect(&world.redis)?)?,
            newest: Mutex::new(BTreeMap::new()),
            fills: Mutex::new(HashMap::new()),
            listener: Listener::start(&world.redis, &run.tag)?,
            world: world.clone(),
            run: run.clone(),
        }))
    }
}

struct Running {
    world: World,
    run: Run,
    partitions: i32,
    inbox: Inbox,
    /// Of the topic, and one in which the stamp may be null.
    shapes: (Shape, Shape),
    script: String,
    source: Source,
    watching: Group,
    asking: Group,
    redis: Mutex<Option<Connection>>,
    /// The server's run as the run began.
    server: String,
    /// Stamps of the newest changes among the events folded.
    newest: Mutex<BTreeMap<String, i64>>,
    fills: Mutex<HashMap<String, Vec<Fill>>>,
    listener: Listener,
}

impl Running {
    fn fold(&self, books: &mut crate::ledger::state::Books, to: &crate::ledger::topics::Offsets) {
        let mut newest = locked(&self.newest);
        books.fold_to(to, |_, entry| {
            if let Want::Put { key, row, .. } = &entry.want {
                let stamp = newest.entry(key.to_string()).or_insert(0);
                *stamp = (*stamp).max(row.print.cast_signed());
            }
        });
    }

    fn entries(&self) -> Result<HashMap<String, i64>> {
        let mut kept = locked(&self.redis);
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(&self.world.redis)?,
        };
        let found = entries(&mut connection, &self.source.keys)?;
        *kept = Some(connection);
        Ok(found)
    }

    fn look(&self, found: &mut Breaches) -> Result<()> {
        let committed = self.watching.committed(self.inbox.starts().keys())?;
        let mut books = locked(&self.inbox.books);
        self.inbox.follow(&mut books, &committed);
        self.fold(&mut books, &committed);
        stale(&self.entries()?, |key| books.held(0, key).map(|(value, _)| value), found);
        Ok(())
    }

    fn event(&self, random: &mut ChaCha8Rng) -> Input {
        let (at, value) = self.source.change(random);
        let key = &self.source.keys[at];
        let stamp = now_ms() - random.random_range(0..VISIBLE_MS);
        let number = value.to_string();
        let fields = [
            ("key", Field::Text(key)),
            ("tenant", Field::Text(&self.run.tag)),
            ("source", Field::Text("chaos")),
            ("table", Field::Text("chaos.rows")),
            ("op", Field::Text("u")),
            ("source_ts", Field::Long(stamp)),
            ("source_position", Field::Text(&number)),
        ];
        self.input(at, Some(self.shapes.0.write(&fields)))
    }

    fn input(&self, at: usize, value: Option<Vec<u8>>) -> Input {
        let partition = Some(at as i32 % self.partitions.max(1));
        Input {
            topic: TOPIC.into(),
            partition,
            key: self.source.keys[at].clone().into_bytes(),
            value,
            headers: vec![],
            timestamp: None,
        }
    }

    /// What must be rejected. The change it is about never was.
    fn poisoned(&self, random: &mut ChaCha8Rng) -> Input {
        let at = random.random_range(0..self.source.keys.len());
        let fields = [("key", Field::Text(&self.source.keys[at])), ("tenant", Field::Text(&self.run.tag))];
        let mut value = self.shapes.1.write(&fields);
        match random.random_range(0..40) {
            // Without a stamp.
            0..10 => {}
            10..20 => value.truncate(random.random_range(1..value.len())),
            20..30 => value.push(7),
            30..39 => value[1..5].copy_from_slice(&UNKNOWN_SCHEMA.to_be_bytes()),
            _ => value.resize(TOO_LARGE, b'x'),
        }
        self.input(at, Some(value))
    }
}

/// What the sink must do with a record: evict the key of that change's number. The hash is the change's stamp.
fn judge(record: &Record, schemas: &Schemas) -> Want {
    let Some(value) = &record.value else { return Want::Drop };
    let read = if value.len() > RECORD_MAX_BYTES { None } else { schemas.read(value) };
    let fields = read.unwrap_or_default();
    match (named(&fields, "key"), named(&fields, "source_ts"), named(&fields, "source_position")) {
        (Some(Cell::Text(key)), Some(Cell::Int(stamp)), Some(Cell::Text(number))) => {
            let row = Row { version: number.parse().unwrap_or(0), print: stamp.cast_unsigned() };
            Want::Put { table: 0, key: key.as_str().into(), row }
        }
        _ => Want::Reject(letter_print(record)),
    }
}

impl Live for Running {
    fn load(&self, stop: &Halt) -> Result<u64> {
        let filled = Halt::default();
        let (source, script, url, fills) = (&self.source, &*self.script, &*self.world.redis, &self.fills);
        let mut random = ChaCha8Rng::seed_from_u64(self.run.seed);
        thread::scope(|scope| {
            let filler = Filler { source, script, url, fills };
            let until = filled.clone();
            scope.spawn(move || filler.run(self.run.seed, &until));
            let loaded = load(&self.world, &self.run, stop, || {
                if random.random_bool(self.run.poison) {
                    self.poisoned(&mut random)
                } else if random.random_bool(0.002) {
                    let at = random.random_range(0..self.source.keys.len());
                    self.input(at, None)
                } else {
                    self.event(&mut random)
                }
            });
            filled.halt();
            loaded
        })
    }

    fn watch(&self) -> Vec<Violation> {
        let mut found = Breaches::default();
        // A server that cannot be asked is no breach.
        drop(self.look(&mut found));
        found.into_vec()
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        self.asking.progress(self.inbox.starts().keys())
    }

    fn check(&self) -> Result<Vec<Violation>> {
        let mut found = Breaches::default();
        let mut books = locked(&self.inbox.books);
        let ends = self.inbox.finish(&mut books)?;
        at_ends(&self.asking.committed(ends.keys())?, &ends, &mut found);
        self.fold(&mut books, &ends);
        let entries = self.entries()?;
        // A key that never changed has the value it began with.
        unlike(&entries, |key| Some(books.held(0, key).map_or(0, |(value, _)| value)), &mut found);
        let (told, gaps) = self.listener.stop();
        // Messages to nobody, and what a server forgot as it ended, are nobody's breach.
        if !gaps && run_id(&mut connect(&self.world.redis)?)? == self.server {
            let (newest, fills) = (locked(&self.newest).clone(), locked(&self.fills).clone());
            History { newest, fills, told }.check(&entries, &mut found);
        }
        self.inbox.check_letters(&books, &mut found)?;
        Ok(found.into_vec())
    }
}

/// Hears what the channel tells of this run.
struct Listener {
    heard: Arc<Mutex<(Vec<Told>, bool)>>,
    stop: Halt,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Listener {
    fn start(url: &str, tag: &str) -> Result<Listener> {
        let (heard, stop) = (Arc::new(Mutex::new((Vec::new(), false))), Halt::default());
        let mut connection = connect(url)?;
        let (url, tag, until, into) = (url.to_owned(), tag.to_owned(), stop.clone(), heard.clone());
        let (ready, begun) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            while !until.halted() {
                let ready = ready.clone();
                drop(listen(&mut connection, &tag, &until, &into, move || ready.send(()).is_ok()));
                if until.halted() {
                    return;
                }
                locked(&into).1 = true;
                sleep(Duration::from_millis(500));
                if let Ok(made) = connect(&url) {
                    connection = made;
                }
            }
        });
        begun.recv_timeout(Duration::from_secs(10))?;
        Ok(Listener { heard, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Everything heard, and whether there was a time of which nothing was.
    fn stop(&self) -> (Vec<Told>, bool) {
        self.stop.halt();
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            return (Vec::new(), true);
        }
        std::mem::take(&mut *locked(&self.heard))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.halt();
    }
}

fn listen(
    connection: &mut Connection,
    tag: &str,
    stop: &Halt,
    into: &Mutex<(Vec<Told>, bool)>,
    ready: impl FnOnce() -> bool,
) -> Result<()> {
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut channel = connection.as_pubsub();
    channel.subscribe(CHANNEL)?;
    // Nobody waits for it the second time.
    ready();
    while !stop.halted() {
        let message = match channel.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => continue,
            Err(error) => return Err(error.into()),
        };
        let told: Value = serde_json::from_slice(message.get_payload_bytes())?;
        if told["tenant"] == tag {
            let (key, stamp) = (told["key"].as_str().unwrap_or_default(), told["source_ts"].as_i64());
            let told = Told { key: key.to_owned(), source_ts: stamp.unwrap_or(0), heard: now_ms() };
            locked(into).0.push(told);
        }
    }
    Ok(())
}
