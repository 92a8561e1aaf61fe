//! Our decoder and encoder against apache-avro's, hostile bytes, and what the encoder makes of documents.

use std::fmt::Write;

use apache_avro::types::Value as Avro;
use fhirehose_stream::Reason;
use fhirehose_tape::Tape;
use proptest::prelude::*;

use crate::{
    AvroEncoder, AvroSchema, ChangeEvent, DecodeError, FhirEncoder, FhirEnvelope, MemorySchemas, Op,
    SchemaError, SchemaSource, decode,
};

/// A value together with a schema it is of.
#[derive(Clone, Debug)]
enum Shape {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Symbol(usize),
    Optional(Box<Shape>, bool),
    Array(Box<Shape>, usize),
    Map(Box<Shape>, usize),
    Record(Vec<Shape>),
}

fn shapes(with_bytes: bool) -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Null),
        any::<bool>().prop_map(Shape::Bool),
        any::<i32>().prop_map(Shape::Int),
        any::<i64>().prop_map(Shape::Long),
        (-1e30f32..1e30).prop_map(Shape::Float),
        (-1e200f64..1e200).prop_map(Shape::Double),
        ".{0,12}".prop_map(Shape::Text),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(move |bytes| match with_bytes {
            true => Shape::Bytes(bytes),
            false => Shape::Null,
        }),
        (0usize..3).prop_map(Shape::Symbol),
    ];
    let tree = leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            (inner.clone(), any::<bool>()).prop_map(|(shape, some)| match shape {
                Shape::Null | Shape::Optional(..) => shape,
                shape => Shape::Optional(Box::new(shape), some),
            }),
            (inner.clone(), 0usize..4).prop_map(|(shape, n)| Shape::Array(Box::new(shape), n)),
            (inner.clone(), 0usize..4).prop_map(|(shape, n)| Shape::Map(Box::new(shape), n)),
            prop::collection::vec(inner, 0..5).prop_map(Shape::Record),
        ]
    });
    prop::collection::vec(tree, 0..5).prop_map(Shape::Record)
}

impl Shape {
    fn schema(&self, names: &mut usize) -> String {
        *names += 1;
        let name = *names;
        match self {
            Shape::Null => "\"null\"".into(),
            Shape::Bool(_) => "\"boolean\"".into(),
            Shape::Int(_) => "\"int\"".into(),
            Shape::Long(_) => "\"long\"".into(),
            Shape::Float(_) => "\"float\"".into(),
            Shape::Double(_) => "\"double\"".into(),
            Shape::Text(_) => "\"string\"".into(),
            Shape::Bytes(_) => "\"bytes\"".into(),
            Shape::Symbol(_) => format!(r#"{{"type":"enum","name":"e{name}","symbols":["s0","s1","s2"]}}"#),
            Shape::Optional(inner, _) => format!(r#"["null",{}]"#, inner.schema(names)),
            Shape::Array(inner, _) => format!(r#"{{"type":"array","items":{}}}"#, inner.schema(names)),
            Shape::Map(inner, _) => format!(r#"{{"type":"map","values":{}}}"#, inner.schema(names)),
            Shape::Record(fields) => {
                let mut json = format!(r#"{{"type":"record","name":"r{name}","fields":["#);
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let schema = field.schema(names);
                    write!(json, r#"{comma}{{"name":"f{index}","type":{schema}}}"#).unwrap();
                }
                json + "]}"
            }
        }
    }

    fn avro(&self) -> Avro {
        match self {
            Shape::Null => Avro::Null,
            Shape::Bool(value) => Avro::Boolean(*value),
            Shape::Int(value) => Avro::Int(*value),
            Shape::Long(value) => Avro::Long(*value),
            Shape::Float(value) => Avro::Float(*value),
            Shape::Double(value) => Avro::Double(*value),
            Shape::Text(value) => Avro::String(value.clone()),
            Shape::Bytes(value) => Avro::Bytes(value.clone()),
            Shape::Symbol(index) => Avro::Enum(*index as u32, format!("s{index}")),
            Shape::Optional(_, false) => Avro::Union(0, Box::new(Avro::Null)),
            Shape::Optional(inner, true) => Avro::Union(1, Box::new(inner.avro())),
            Shape::Array(inner, n) => Avro::Array(vec![inner.avro(); *n]),
            Shape::Map(inner, n) => Avro::Map((0..*n).map(|i| (format!("k{i}"), inner.avro())).collect()),
            Shape::Record(fields) => {
                Avro::Record(fields.iter().enumerate().map(|(i, f)| (format!("f{i}"), f.avro())).collect())
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Shape::Null | Shape::Optional(_, false) => json!(null),
            Shape::Bool(value) => json!(value),
            Shape::Int(value) => json!(value),
            Shape::Long(value) => json!(value),
            Shape::Float(value) => serde_json::from_str(&value.to_string()).unwrap(),
            Shape::Double(value) => serde_json::from_str(&value.to_string()).unwrap(),
            Shape::Text(value) => json!(value),
            Shape::Bytes(value) => json!(crate::text::base64(value)),
            Shape::Symbol(index) => json!(format!("s{index}")),
            Shape::Optional(inner, true) => inner.json(),
            Shape::Array(inner, n) => vec![inner.json(); *n].into(),
            Shape::Map(inner, n) => (0..*n).map(|i| (format!("k{i}"), inner.json())).collect(),
            Shape::Record(fields) => {
                fields.iter().enumerate().map(|(i, f)| (format!("f{i}"), f.json())).collect()
            }
        }
    }
}

fn schemas(json: &str) -> MemorySchemas {
    let mut schemas = MemorySchemas::default();
    schemas.insert(7, json).unwrap();
    schemas
}

fn wire(datum: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 7], datum].concat()
}

fn text(tape: &Tape) -> String {
    let mut json = Vec::new();
    tape.root().write_json(&mut json);
    String::from_utf8(json).unwrap()
}

proptest! {
    #[test]
    fn decodes_what_apache_avro_wrote(shape in shapes(true)) {
        let json = shape.schema(&mut 0);
        let schema = apache_avro::Schema::parse_str(&json).unwrap();
        let datum = apache_avro::to_avro_datum(&schema, shape.avro()).unwrap();
        let mut tape = Tape::new();
        decode(&wire(&datum), &schemas(&json), &mut tape).unwrap();
        let decoded: serde_json::Value = serde_json::from_str(&text(&tape)).unwrap();
        prop_assert_eq!(decoded, shape.json());
    }

    #[test]
    fn apache_avro_reads_what_we_encode(shape in shapes(false)) {
        let json = shape.schema(&mut 0);
        let mut tape = Tape::new();
        tape.parse_json(shape.json().to_string().as_bytes()).unwrap();
        let mut bytes = Vec::new();
        AvroEncoder::of(AvroSchema::parse(&json).unwrap(), 7).unwrap().encode(tape.root(), &mut bytes).unwrap();
        prop_assert_eq!(&bytes[..5], &[0, 0, 0, 0, 7]);
        let schema = apache_avro::Schema::parse_str(&json).unwrap();
        let mut rest = &bytes[5..];
        let value = apache_avro::from_avro_datum(&schema, &mut rest, None).unwrap();
        prop_assert_eq!(value, shape.avro());
        prop_assert!(rest.is_empty());
    }

    /// Cut, flipped and lengthened data: an error or a value, in little time, and every cut is an error.
    #[test]
    fn hostile_bytes_are_survived(shape in shapes(true), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let json = shape.schema(&mut 0);
        let schema = apache_avro::Schema::parse_str(&json).unwrap();
        let datum = wire(&apache_avro::to_avro_datum(&schema, shape.avro()).unwrap());
        let (schemas, mut tape) = (schemas(&json), Tape::new());
        let at = at.index(datum.len());
        prop_assert!(decode(&datum[..at], &schemas, &mut tape).is_err());
        prop_assert!(tape.root().is_null());
        prop_assert!(decode(&[&datum[..], &[byte]].concat(), &schemas, &mut tape).is_err());
        let mut flipped = datum.clone();
        flipped[at] = byte;
        // Whatever comes out: no panic, no hang.
        let _ = decode(&flipped, &schemas, &mut tape);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let json = r#"{"type":"record","name":"r","fields":[
            {"name":"a","type":["null","r",{"type":"map","values":"double"}]},
            {"name":"b","type":{"type":"array","items":["null","r","string"]}}]}"#;
        let schemas = schemas(json);
        let _ = decode(&wire(&bytes), &schemas, &mut Tape::new());
        let _ = decode(&bytes, &schemas, &mut Tape::new());
    }
}

fn failure(json: &str, datum: &[u8]) -> DecodeError {
    decode(&wire(datum), &schemas(json), &mut Tape::new()).unwrap_err()
}

#[test]
fn hostile_data_have_names() {
    let record =
        |kind: &str| format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{kind}}}]}}"#);
    let array_of_null = record(r#"{"type":"array","items":"null"}"#);
    let huge_count = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let nested = record(r#"["null","r"]"#);
    for (json, datum, what) in [
        (record("\"string\""), &huge_count[..], "a length beyond the datum"),
        (record("\"string\""), &[0x01], "a negative length"),
        (record("\"string\""), &[0x02, 0xff], "text that is not UTF-8"),
        (record("\"int\""), &huge_count, "an int of more than 32 bits"),
        (record("\"long\""), &[0xff; 11], "a number of more than 64 bits"),
        (record("\"double\""), &f64::NAN.to_le_bytes(), "a number that is not finite"),
        (record("\"boolean\""), &[2], "a boolean that is neither 0 nor 1"),
        (record(r#"["null","int"]"#), &[4], "an index outside its union or enum"),
        (array_of_null, &huge_count, "more values than the datum can hold"),
        (nested, &[2; 400], "nesting beyond the limit"),
        (
            record(r#"{"type":"map","values":"null"}"#),
            &[4, 2, b'k', 2, b'k', 0],
            "a map key that occurs twice",
        ),
        (record("\"null\""), &[0], "bytes after the datum"),
    ] {
        let error = failure(&json, datum);
        assert!(matches!(error, DecodeError::Avro { what: told, .. } if told == what), "{what}: {error}");
        assert_eq!(error.reason(), Some(Reason::MalformedAvro));
    }
}

#[test]
fn headers_and_json_are_told_apart() {
    let schemas = schemas(r#"{"type":"record","name":"r","fields":[]}"#);
    let mut tape = Tape::new();
    decode(br#"{"a":1.50}"#, &schemas, &mut tape).unwrap();
    assert_eq!(text(&tape), r#"{"a":1.50}"#);
    assert_eq!(decode(&[0, 0, 0], &schemas, &mut tape).unwrap_err().reason(), Some(Reason::MalformedAvro));
    assert_eq!(decode(&[0, 0, 0, 0, 8], &schemas, &mut tape), Err(DecodeError::UnknownSchema(8)));
    assert_eq!(decode(b"", &schemas, &mut tape).unwrap_err().reason(), Some(Reason::MalformedJson));
    assert_eq!(decode(&[b'['; 1000], &schemas, &mut tape).unwrap_err().reason(), Some(Reason::TooDeep));
    decode(&[0, 0, 0, 0, 7], &schemas, &mut tape).unwrap();
    assert_eq!(text(&tape), "{}");
}

#[test]
fn a_registry_that_is_down_is_nobodys_fault() {
    struct Down;
    impl SchemaSource for Down {
        fn schema(&self, _: u32) -> Result<std::sync::Arc<AvroSchema>, SchemaError> {
            Err(SchemaError::Unavailable("timed out".into()))
        }
    }
    let error = decode(&[0, 0, 0, 0, 7], &Down, &mut Tape::new()).unwrap_err();
    assert_eq!(error.reason(), None);
    assert_eq!(error.rejection().unwrap_err().kind, fhirehose_stream::FaultKind::Transient);
}

/// As Debezium's converter writes them: names in namespaces, unions, Connect's names on integers.
const DEBEZIUM: &str = r#"{"type":"record","name":"Envelope","namespace":"cdc.a.db.t","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"string"},
        {"name":"born","type":["null",{"type":"int","connect.version":1,"connect.name":"io.debezium.time.Date"}]},
        {"name":"seen","type":{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}},
        {"name":"temperature","type":{"type":"bytes","scale":1,"precision":4,"connect.version":1,
            "connect.parameters":{"scale":"1"},"connect.name":"org.apache.kafka.connect.data.Decimal",
            "logicalType":"decimal"}},
        {"name":"free","type":{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data",
            "fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],
            "connect.name":"io.debezium.data.VariableScaleDecimal"}}],
        "connect.name":"cdc.a.db.t.Value"}],"default":null},
    {"name":"after","type":["null","Value"],"default":null},
    {"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.mariadb","fields":[
        {"name":"connector","type":"string"},{"name":"ts_ms","type":"long"},
        {"name":"snapshot","type":[{"type":"string","connect.default":"false"},"null"],"default":"false"},
        {"name":"db","type":"string"},{"name":"table","type":["null","string"],"default":null},
        {"name":"server_id","type":"long"},{"name":"gtid","type":["null","string"],"default":null},
        {"name":"file","type":"string"},{"name":"pos","type":"long"},{"name":"row","type":"int"}]}},
    {"name":"op","type":"string"}]}"#;

#[test]
fn debezium_avro_reads_as_a_change_event() {
    let some = |value| Avro::Union(1, Box::new(value));
    let record = |fields: Vec<(&str, Avro)>| {
        Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let row = record(vec![
        ("id", Avro::String("r1".into())),
        ("born", some(Avro::Int(7305))),
        ("seen", Avro::Long(1_767_322_987_500_000)),
        ("temperature", Avro::Decimal(vec![0x01, 0x6d].into())),
        ("free", record(vec![("scale", Avro::Int(3)), ("value", Avro::Bytes(vec![0x01]))])),
    ]);
    let envelope = record(vec![
        ("before", Avro::Union(0, Box::new(Avro::Null))),
        ("after", some(row)),
        (
            "source",
            record(vec![
                ("connector", Avro::String("mariadb".into())),
                ("ts_ms", Avro::Long(12)),
                ("snapshot", Avro::Union(0, Box::new(Avro::String("last".into())))),
                ("db", Avro::String("db".into())),
                ("table", some(Avro::String("t".into()))),
                ("server_id", Avro::Long(0)),
                ("gtid", Avro::Union(0, Box::new(Avro::Null))),
                ("file", Avro::String("bin.1".into())),
                ("pos", Avro::Long(4)),
                ("row", Avro::Int(0)),
            ]),
        ),
        ("op", Avro::String("r".into())),
    ]);
    let schema = apache_avro::Schema::parse_str(DEBEZIUM).unwrap();
    let datum = apache_avro::to_avro_datum(&schema, envelope).unwrap();
    let mut tape = Tape::new();
    decode(&wire(&datum), &schemas(DEBEZIUM), &mut tape).unwrap();
    let event = ChangeEvent::read(&tape).unwrap();
    assert_eq!((event.op, event.source.snapshot, event.source.file), (Op::Read, true, Some("bin.1")));
    assert_eq!((event.source.db, event.source.table, event.source.gtid), ("db", "t", None));
    let mut json = Vec::new();
    event.after.unwrap().write_json(&mut json);
    assert_eq!(
        String::from_utf8(json).unwrap(),
        r#"{"id":"r1","born":"1990-01-01","seen":"2026-01-02T03:03:07.5","temperature":36.5,"free":0.001}"#
    );
}

/// A record as Debezium 3.5 wrote it (MariaDB, Avro converter, `decimal.handling.mode=precise` and
/// `time.precision.mode=adaptive_time_microseconds`), of a table with a column of every type.
#[test]
fn a_captured_debezium_record_decodes() {
    let schemas = schemas(include_str!("../testdata/debezium-things.avsc"));
    let mut tape = Tape::new();
    decode(&wire(include_bytes!("../testdata/debezium-things-update.avro")), &schemas, &mut tape).unwrap();
    let event = ChangeEvent::read(&tape).unwrap();
    assert_eq!((event.op, event.source.snapshot, event.source.server_id), (Op::Update, false, 101));
    assert_eq!(event.source.position(), "binlog.000001/5275373/0");
    let row = |value: Option<fhirehose_tape::Value<'_>>| {
        let mut json = Vec::new();
        value.unwrap().write_json(&mut json);
        String::from_utf8(json).unwrap()
    };
    assert_eq!(
        row(event.before),
        r#"{"id":"a1","d":"1979-05-02","dt":"2026-01-02T03:04:05","dt6":"2026-01-02T03:04:05.123456","#
            .to_owned()
            + r#""ts":"2026-01-02T03:04:05.678Z","tm":"13:14:15.5","dec1":-36.50,"#
            + r#""dec0":123456789012345678901234567890,"bit1":true,"tiny":1,"big":5,"txt":"Té","#
            + r#""js":"{\"a\":1.50}","en":"b","bl":"AP8=","f":1.5,"db":2.25,"y":2026}"#
    );
    // A time below zero has no text form: it stays the integer it is.
    let after = event.after.unwrap();
    assert_eq!(after.get("tm").unwrap().as_i64(), Some(-3_600_500_000));
    assert_eq!(after.get("d").unwrap().as_str(), Some("2600-01-01"));
}

const COLUMNS: &str = r#"{"type":"record","name":"c","fields":[
    {"name":"n","type":"int"},
    {"name":"d","type":["null","double"],"default":null},
    {"name":"s","type":["null","string"]},
    {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
    {"name":"on","type":["null",{"type":"int","logicalType":"date"}],"default":null},
    {"name":"k","type":{"type":"enum","name":"k","symbols":["x","y"]},"default":"y"},
    {"name":"l","type":{"type":"array","items":"string"},"default":["z"]},
    {"name":"o","type":{"type":"record","name":"o","fields":[{"name":"q","type":"long","default":5}]},"default":{}}]}"#;

fn encode(json: &str) -> Result<String, String> {
    let encoder = AvroEncoder::of(AvroSchema::parse(COLUMNS).unwrap(), 7).unwrap();
    let (mut tape, mut bytes) = (Tape::new(), vec![9]);
    tape.parse_json(json.as_bytes()).unwrap();
    match encoder.encode(tape.root(), &mut bytes) {
        Ok(()) => {
            decode(&bytes[1..], &schemas(COLUMNS), &mut tape).map(|()| text(&tape)).map_err(|e| e.to_string())
        }
        Err(error) => {
            assert_eq!(bytes, [9], "an error leaves no bytes behind");
            Err(error.to_string())
        }
    }
}

#[test]
fn encoding_fits_values_to_their_columns() {
    assert_eq!(
        encode(r#"{"n":1}"#).unwrap(),
        r#"{"n":1,"d":null,"s":null,"at":null,"on":null,"k":"y","l":["z"],"o":{"q":5}}"#
    );
    assert_eq!(
        encode(
            r#"{"n":1,"d":36.50,"s":36.50,"at":"1970-01-01T02:00:01.5+02:00","on":"1970-01-03","k":"x","l":[],
            "o":{"q":null}}"#
        )
        .unwrap(),
        r#"{"n":1,"d":36.5,"s":"36.50","at":1500,"on":2,"k":"x","l":[],"o":{"q":5}}"#
    );
    for (json, error) in [
        ("{}", "required and missing: n"),
        (r#"{"n":1.5}"#, "not an integer: n"),
        (r#"{"n":3000000000}"#, "beyond an int: n"),
        (r#"{"n":1,"at":"2020-05"}"#, "text that is not such a date or time: at"),
        (r#"{"n":1,"k":"w"}"#, "not a symbol of the enum: k"),
        (r#"{"n":1,"o":{"q":"t"}}"#, "text that is not such a date or time: o.q"),
        (r#"{"n":1,"o":{"p":1}}"#, "no such field: o.p"),
        (r#"{"n":1,"extra":1}"#, "no such field: extra"),
        (r#"{"n":1,"l":"z"}"#, "of another kind than the schema's: l"),
        ("[]", "of another kind than the schema's: "),
    ] {
        assert_eq!(encode(json), Err(error.into()), "{json}");
    }
}

#[test]
fn a_default_that_does_not_fit_is_refused() {
    let json = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int","default":"x"}]}"#;
    let problem = AvroEncoder::of(AvroSchema::parse(json).unwrap(), 1).err().unwrap();
    assert_eq!(problem.to_string(), "not a usable Avro schema: a default that does not fit its type at /a");
}

const ENVELOPE: &str = include_str!("../../../schemas/avro/fhir.patient-value.avsc");

#[test]
fn envelopes_come_back_and_newer_writers_are_read() {
    let envelope = FhirEnvelope {
        tenant: "t",
        id: "i",
        version_id: "3.154.0",
        last_updated: 1_767_322_987_500,
        source: "hospital_a",
        source_position: "bin.3/154/0",
        mapping: "cdc/clinical_data/patients",
        mapping_version: 2,
        flags: vec!["clock-skew", "x"],
        resource: br#"{"resourceType":"Patient"}"#,
    };
    let mut bytes = Vec::new();
    FhirEncoder::of(&AvroSchema::parse(ENVELOPE).unwrap(), 7).unwrap().encode(&envelope, &mut bytes);
    assert!(FhirEnvelope::decode(&bytes, &schemas(ENVELOPE)).unwrap() == envelope);
    let apache = apache_avro::Schema::parse_str(ENVELOPE).unwrap();
    assert!(apache_avro::from_avro_datum(&apache, &mut &bytes[5..], None).is_ok());
    for cut in 0..bytes.len() {
        assert!(FhirEnvelope::decode(&bytes[..cut], &schemas(ENVELOPE)).is_err());
    }

    let newer = ENVELOPE.replacen(
        "\"fields\": [",
        "\"fields\": [{\"name\":\"new\",\"type\":[\"null\",\"string\"]},",
        1,
    );
    bytes.splice(5..5, [2, 2, b'n']);
    assert!(FhirEnvelope::decode(&bytes, &schemas(&newer)).unwrap() == envelope);
    assert!(FhirEncoder::of(&AvroSchema::parse(&newer).unwrap(), 7).is_err());

    let other = r#"{"type":"record","name":"r","fields":[{"name":"tenant","type":"string"}]}"#;
    assert!(FhirEnvelope::decode(&wire(&[2, b't']), &schemas(other)).is_err());
}

#[test]
fn keys_split_at_the_last_slash() {
    assert_eq!(crate::split_fhir_key(crate::fhir_key("a/b", "c").as_bytes()), Some(("a/b", "c")));
    for key in [&b"abc"[..], b"/x", b"x/", b"\xff/x"] {
        assert_eq!(crate::split_fhir_key(key), None);
    }
}
