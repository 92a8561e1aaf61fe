//! A table built anew on the real servers, with the command and the sink in processes of their own: killed in the
//! middle, with records that arrive meanwhile, it ends as one that was filled so from the beginning.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../pgsink/tests/support/mod.rs"]
mod database;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use database::{TestDatabase, repository};
use fhirehose_codec::AvroEncoder;
use fhirehose_pgsink::postgres::Client;
use fhirehose_runtime::{RegistryConfig, SchemaRegistry};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use shapes::own_shapes;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fhirehose");
const TABLE: &str = "fact.encounter_fact";
const PATIENTS: u32 = 20;

/// The product with tables of a directory and a database of its own.
struct Product<'d> {
    shapes: &'d Path,
    database: &'d TestDatabase,
    prefix: String,
}

impl Product<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .current_dir(repository())
            .arg("--shapes")
            .arg(self.shapes)
            .args(arguments)
            .env("FHIREHOSE__POSTGRES__URL", &self.database.url)
            .env("FHIREHOSE__KAFKA__GROUP_PREFIX", &self.prefix)
            .env("FHIREHOSE__RUNTIME__BATCH_MAX_RECORDS", "100")
            .env("FHIREHOSE__SOURCES__TESTS__TENANT", "t")
            .env("FHIREHOSE__SOURCES__TESTS__ZONE", "UTC")
            .env_remove("FHIREHOSE__SEARCH__URL")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn say(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let log = tempfile::NamedTempFile::new().unwrap();
        let both = || log.reopen().unwrap();
        let mut command = self.command(arguments);
        // Both write at the end: a file opened twice would be overwritten.
        let out = both();
        command.stderr(out.try_clone().unwrap()).stdout(out);
        Running { child: command.spawn().unwrap(), log }
    }

    fn sink(&self) -> Running {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        self.start(&["run", "sink-warehouse", "--start-from", "earliest", "--listen", &listen])
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

struct Running {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "{}", self.said());
    }

    fn end(mut self) -> String {
        let status = self.child.wait().unwrap();
        let said = self.said();
        assert!(status.success(), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The stack's topics; those that were not there before are deleted at the end, for other tests want an empty stack.
struct Topics {
    admin: AdminClient<DefaultClientContext>,
    before: BTreeSet<String>,
}

impl Topics {
    fn note() -> Topics {
        let brokers =
            std::env::var("FHIREHOSE__KAFKA__BROKERS").expect("start the stack and export its env file");
        let admin = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let mut topics = Topics { admin, before: BTreeSet::new() };
        topics.before = topics.now();
        topics
    }

    fn now(&self) -> BTreeSet<String> {
        let metadata = self.admin.inner().fetch_metadata(None, Duration::from_secs(20)).unwrap();
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let now = self.now();
        let new = now.difference(&self.before).map(String::as_str);
        // Kafka's own, such as that of the groups' offsets, are nobody's to delete.
        let new: Vec<&str> = new.filter(|name| !name.starts_with("__")).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        drop(runtime.block_on(self.admin.delete_topics(&new, &AdminOptions::new())));
    }
}

/// Writes `enriched.*` as enrich does.
struct Writer {
    producer: BaseProducer,
    encoders: BTreeMap<&'static str, AvroEncoder>,
    tenant: String,
    version: i64,
}

impl Writer {
    fn new() -> Writer {
        let address = |name: &str| std::env::var(name).expect("start the stack and export its env file");
        let url = address("FHIREHOSE__REGISTRY__URL");
        let registry = SchemaRegistry::new(&RegistryConfig { url, ..Default::default() }).unwrap();
        let topics = Registry::load(&repository()).unwrap();
        let encoder = |topic| {
            let schema = topics.schema(topic).unwrap();
            let id = registry.id_of(&schema.subject, &schema.json).unwrap();
            (topic, AvroEncoder::new(schema, id).unwrap())
        };
        Writer {
            producer: ClientConfig::new()
                .set("bootstrap.servers", address("FHIREHOSE__KAFKA__BROKERS"))
                .create()
                .unwrap(),
            encoders: ["enriched.patient", "enriched.encounter"].map(encoder).into(),
            tenant: format!("rebuild-{}", std::process::id()),
            version: 0,
        }
    }

    fn write(&mut self, resources: impl Iterator<Item = Value>) {
        for resource in resources {
            self.version += 256;
            let (tenant, version) = (self.tenant.clone(), self.version);
            let topic = format!("enriched.{}", resource["resourceType"].as_str().unwrap().to_lowercase());
            let id = resource["id"].as_str().unwrap();
            let key = format!("{tenant}/{id}");
            let at = 1_767_225_600_000 + version * 1_000;
            let mut bytes = Vec::new();
            let deleted = resource.get("deleted").is_some();
            let mut headers = OwnedHeaders::new();
            for (key, value) in [("fhirehose-version", version), ("fhirehose-source-ts", at)] {
                headers = headers.insert(Header { key, value: Some(&value.to_string()) });
            }
            if !deleted {
                let value = json!({
                    "tenant": tenant, "id": id, "version": version, "version_id": format!("v{version}"),
                    "last_updated": at, "source": "tests", "flags": [], "resource": resource.to_string(),
                });
                let mut tape = Tape::new();
                tape.parse_json(value.to_string().as_bytes()).unwrap();
                self.encoders[&*topic].encode(tape.root(), &mut bytes).unwrap();
            }
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(key.as_bytes()).headers(headers);
            record.payload = (!deleted).then_some(&bytes);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
            self.producer.poll(Duration::ZERO);
        }
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }
}

fn id(kind: &str, n: u32) -> String {
    fhirehose_fhir::id("tests", "rebuild", kind, &[&n.to_string()], None).to_string()
}

fn patient(n: u32, city: &str) -> Value {
    json!({"resourceType": "Patient", "id": id("Patient", n), "address": [{"city": city}]})
}

fn encounter(n: u32) -> Value {
    let day = 1 + n % 28;
    json!({
        "resourceType": "Encounter", "id": id("Encounter", n), "status": "finished", "class": {"code": "IMP"},
        "type": [{"coding": [{"code": "inpatient"}]}],
        "subject": {"reference": format!("Patient/{}", id("Patient", n % PATIENTS))},
        "serviceProvider": {"reference": format!("Organization/{}", id("Organization", n % 3))},
        "period": {"start": format!("2026-01-{day:02}T01:00:00Z"), "end": format!("2026-01-{day:02}T09:17:00Z")},
    })
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(240), "not within four minutes: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn one<T: for<'r> fhirehose_pgsink::postgres::types::FromSql<'r>>(client: &mut Client, sql: &str) -> T {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Waits until the sink has all that is in the topics, told by the number of rows of the tenant.
fn wait_for(client: &mut Client, tenant: &str, rows: i64) {
    let count = format!("SELECT count(*) FROM {TABLE} WHERE tenant_id = '{tenant}'");
    eventually("the sink has written everything", || one::<i64>(client, &count) == rows);
}

/// The repository's shapes with the fact declared otherwise, so that no statement brings the table there.
fn changed() -> TempDir {
    let dir = own_shapes(&repository());
    let views = dir.path().join("views/warehouse");
    for (file, from, to) in [
        ("encounter_fact.yaml", "3600, 2", "3600, 1"),
        ("encounter_fact.json", "\"priority\"", "\"urgency\""),
        (
            "encounter_fact.json",
            "type.first().coding.code.first()",
            "type.first().coding.code.first().upper()",
        ),
    ] {
        let text = fs::read_to_string(views.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(views.join(file), text.replace(from, to)).unwrap();
    }
    dir
}

#[test]
fn a_rebuilt_table_is_as_one_filled_from_the_beginning() {
    let _topics = Topics::note();
    let (first, second) = (TestDatabase::create("rebuild"), TestDatabase::create("rebuild_whole"));
    let pid = std::process::id();
    let (root, changed) = (repository(), changed());
    let before = Product { shapes: &root, database: &first, prefix: format!("rebuild-{pid}-") };
    let after = Product { shapes: changed.path(), database: &first, prefix: before.prefix.clone() };
    let whole = Product { shapes: changed.path(), database: &second, prefix: format!("whole-{pid}-") };
    before.say(&["topics", "apply"]);
    before.say(&["migrate", "apply"]);
    let mut client = first.connect();
    client.batch_execute("CREATE ROLE reader; GRANT SELECT ON fact.encounter_fact TO reader").unwrap_or_else(
        |_| {
            client.batch_execute("GRANT SELECT ON fact.encounter_fact TO reader").unwrap();
        },
    );

    let mut writer = Writer::new();
    let tenant = writer.tenant.clone();
    writer.write((0..PATIENTS).map(|n| patient(n, "Khartoum")));
    writer.write((0..2_000).map(encounter));
    // From the tenth on facts are of a second version.
    writer.write((0..PATIENTS / 2).map(|n| patient(n, "Kassala")));
    writer.write(
        (0..5).map(|n| json!({"resourceType": "Encounter", "id": id("Encounter", n), "deleted": true})),
    );
    let sink = before.sink();
    wait_for(&mut client, &tenant, 1_995);

    let refused = after.run(&["migrate", "plan"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("`fhirehose rebuild fact.encounter_fact`"), "{}", text(&refused));

    // Killed in the middle.
    let rebuild = after.start(&["rebuild", TABLE]);
    let there = "SELECT to_regclass('rebuild_fact.encounter_fact') IS NOT NULL";
    eventually("the new table is there", || one(&mut client, there));
    let filled = "SELECT count(*) FROM rebuild_fact.encounter_fact";
    eventually("some of it is filled", || one::<i64>(&mut client, filled) > 100);
    rebuild.kill();
    let in_the_middle: i64 = one(&mut client, filled);
    assert!(in_the_middle < 1_900, "{in_the_middle} rows: all was over before it was killed");

    // Another declaration than the one it began with.
    let other = before.run(&["rebuild", TABLE]);
    assert!(text(&other).contains("--anew"), "{}", text(&other));

    writer.write((2_000..2_100).map(encounter));
    let rebuild = after.start(&["rebuild", TABLE]);
    eventually("it asks for the sink to be stopped", || rebuild.said().contains("stop it"));
    writer.write((2_100..2_200).map(encounter));
    wait_for(&mut client, &tenant, 2_195);
    let old = "SELECT count(*) FROM fact.encounter_fact WHERE encounter_type = 'inpatient'";
    assert_eq!(
        one::<i64>(&mut client, &format!("{old} AND tenant_id = '{tenant}'")),
        2_195,
        "the old one serves"
    );
    sink.stop();
    // Nobody reads these before the swap.
    writer.write((2_200..2_300).map(encounter));
    let said = rebuild.end();
    assert!(said.contains("goes on where an earlier run ended") && said.contains("swapped"), "{said}");

    assert_eq!(
        one::<i64>(&mut client, &format!("{old} AND tenant_id = '{tenant}'")),
        0,
        "the new one is there"
    );
    assert!(one::<bool>(
        &mut client,
        "SELECT has_table_privilege('reader', 'fact.encounter_fact', 'SELECT')"
    ));
    assert!(one::<i64>(&mut client, "SELECT count(*) FROM reporting.v_encounter_summary") > 0);
    assert!(one::<bool>(&mut client, "SELECT to_regnamespace('rebuild_fact') IS NULL"));
    assert!(after.say(&["migrate", "plan"]).contains("warehouse: nothing pending"));

    let sink = after.sink();
    wait_for(&mut client, &tenant, 2_295);
    sink.stop();
    whole.say(&["topics", "apply"]);
    whole.say(&["migrate", "apply"]);
    let sink = whole.sink();
    let mut from_the_beginning = second.connect();
    // The last fact may be there before the last version of a patient.
    let offsets = "SELECT string_agg(concat_ws(' ', topic, part, next_off), ',' ORDER BY topic, part) \
         FROM fhirehose.sink_offsets";
    let read: String = one(&mut client, offsets);
    eventually("both have read the same", || {
        one::<Option<String>>(&mut from_the_beginning, offsets).as_ref() == Some(&read)
    });
    sink.stop();
    let rows = |client: &mut Client| -> Vec<String> {
        let sql = "SELECT (to_jsonb(e) - 'loaded_at')::text AS r FROM fact.encounter_fact AS e ORDER BY 1";
        client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let (rebuilt, filled) = (rows(&mut client), rows(&mut from_the_beginning));
    assert_eq!(rebuilt.len(), filled.len());
    assert_eq!(rebuilt.iter().zip(&filled).find(|(rebuilt, filled)| rebuilt != filled), None);
    let versions = "SELECT count(DISTINCT patient_key) FROM fact.encounter_fact";
    assert!(one::<i64>(&mut client, versions) > i64::from(PATIENTS), "facts of two versions");
}

#[test]
fn what_cannot_be_built_anew_is_refused_with_the_reason() {
    let database = TestDatabase::create("rebuild_refused");
    let root = repository();
    let product = Product { shapes: &root, database: &database, prefix: "none-".into() };
    product.say(&["migrate", "apply"]);
    for (table, said) in [
        ("dim.patient_dimension", "history of its members"),
        ("fact.none", "no table fact.none is declared; there are dim.diagnosis_dimension"),
        (TABLE, "none-sink-warehouse has stored no offsets of enriched.encounter"),
    ] {
        let output = product.run(&["rebuild", table]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(said), "{}", text(&output));
    }
}
