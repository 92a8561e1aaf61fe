use fhirehose_stream::{Reason, Rejection, Verdict};
use fhirehose_tape::{Kind, Tape, Value};

/// A row change as Debezium tells it, borrowed from a decoded record. Avro, JSON, and JSON with its schema
/// (`{"schema": …, "payload": …}`) read alike.
#[derive(Clone, Copy)]
pub struct ChangeEvent<'t> {
    pub op: Op,
    /// The row before; absent on create and read, and where the database does not log it.
    pub before: Option<Value<'t>>,
    /// The row after; absent on delete.
    pub after: Option<Value<'t>>,
    pub source: Source<'t>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    /// Read in a snapshot.
    Read,
    Update,
    Delete,
}

impl Op {
    /// Debezium's letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Create => "c",
            Op::Read => "r",
            Op::Update => "u",
            Op::Delete => "d",
        }
    }
}

/// Where a change comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Source<'t> {
    /// `mariadb`, `mysql`, `postgresql`; empty where the envelope names none.
    pub connector: &'t str,
    pub db: &'t str,
    /// PostgreSQL's schema.
    pub schema: Option<&'t str>,
    pub table: &'t str,
    /// Whether a snapshot, initial or incremental, read the row.
    pub snapshot: bool,
    /// When the database committed the change, milliseconds since the epoch.
    pub ts_ms: i64,
    /// 0 in snapshots.
    pub server_id: i64,
    pub gtid: Option<&'t str>,
    /// Binlog file, position in it, and row within the event; [`Source::lsn`] instead with PostgreSQL.
    pub file: Option<&'t str>,
    pub pos: Option<i64>,
    pub row: i64,
    pub lsn: Option<i64>,
}

/// Why a decoded record is no row change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A heartbeat or transaction marker: nothing to do.
    #[error("a heartbeat or transaction marker")]
    Marker,
    /// Holds what is wrong, safe to log.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<EnvelopeError> for Verdict {
    fn from(error: EnvelopeError) -> Verdict {
        match error {
            EnvelopeError::Marker => Verdict::Drop(Reason::Heartbeat),
            EnvelopeError::Malformed(what) => Rejection::new(Reason::MalformedEnvelope, what).into(),
        }
    }
}

impl<'t> ChangeEvent<'t> {
    /// Reads the envelope a tape holds.
    pub fn read(tape: &'t Tape) -> Result<ChangeEvent<'t>, EnvelopeError> {
        let malformed = EnvelopeError::Malformed;
        let mut envelope = tape.root();
        if let (Some(payload), Some(_)) = (envelope.get("payload"), envelope.get("schema")) {
            envelope = payload;
        }
        if envelope.kind() != Kind::Object {
            return Err(malformed("the value is not an object"));
        }
        let Some(op) = envelope.get("op") else { return Err(marker(envelope)) };
        let op = match op.as_str() {
            Some("c") => Op::Create,
            Some("r") => Op::Read,
            Some("u") => Op::Update,
            Some("d") => Op::Delete,
            Some("t") => return Err(malformed("op: the table was truncated, which tells no rows")),
            Some("m") => return Err(EnvelopeError::Marker),
            _ => return Err(malformed("op: not one of c, r, u, d")),
        };
        let row = |name| match envelope.get(name) {
            None => Ok(None),
            Some(value) if value.is_null() => Ok(None),
            Some(value) if value.kind() == Kind::Object => Ok(Some(value)),
            Some(_) => Err(malformed("a row that is not an object")),
        };
        let (before, after) = (row("before")?, row("after")?);
        if after.is_none() && op != Op::Delete {
            return Err(malformed("after: absent"));
        }
        let source = envelope.get("source").filter(|source| source.kind() == Kind::Object);
        let source = Source::read(source.ok_or(malformed("source: absent"))?)?;
        let after = after.filter(|_| op != Op::Delete);
        Ok(ChangeEvent { op, before, after, source })
    }
}

/// Heartbeats have nothing but a time; transaction markers a status and an id.
fn marker(envelope: Value<'_>) -> EnvelopeError {
    let heartbeat = envelope.len() == 1 && envelope.get("ts_ms").is_some();
    let transaction = envelope.get("status").is_some() && envelope.get("id").is_some();
    if heartbeat || transaction { EnvelopeError::Marker } else { EnvelopeError::Malformed("op: absent") }
}

impl<'t> Source<'t> {
    /// Where the change stands in its source, as text: `<binlog file>/<position>/<row>`, or `<lsn>`.
    pub fn position(&self) -> String {
        match (self.file, self.pos, self.lsn) {
            (Some(file), Some(pos), _) => format!("{file}/{pos}/{}", self.row),
            (_, _, Some(lsn)) => lsn.to_string(),
            _ => String::new(),
        }
    }

    fn read(source: Value<'t>) -> Result<Source<'t>, EnvelopeError> {
        let text = |name| source.get(name).and_then(Value::as_str);
        let number = |name| source.get(name).and_then(Value::as_i64);
        let needed = |value: Option<&'t str>, what| value.ok_or(EnvelopeError::Malformed(what));
        Ok(Source {
            connector: text("connector").unwrap_or_default(),
            db: needed(text("db"), "source.db: absent")?,
            schema: text("schema"),
            table: needed(text("table"), "source.table: absent")?,
            // Absent, `false`, and `last_in_data_collection` and the like: all but false are snapshots.
            snapshot: source.get("snapshot").is_some_and(|snapshot| match snapshot.as_str() {
                Some(text) => text != "false",
                None => snapshot.as_bool() == Some(true),
            }),
            ts_ms: number("ts_ms").ok_or(EnvelopeError::Malformed("source.ts_ms: absent"))?,
            server_id: number("server_id").unwrap_or(0),
            gtid: text("gtid"),
            file: text("file"),
            pos: number("pos"),
            row: number("row").unwrap_or(0),
            lsn: number("lsn"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#""source":{"connector":"mariadb","db":"clinical_data","table":"patients","ts_ms":5,
        "snapshot":"false","server_id":1,"gtid":"0-1-9","file":"bin.000003","pos":154,"row":2}"#;

    fn read(json: &str) -> Result<(Op, bool, bool, i64, bool), EnvelopeError> {
        let mut tape = Tape::new();
        tape.parse_json(json.as_bytes()).unwrap();
        ChangeEvent::read(&tape).map(|event| {
            (event.op, event.before.is_some(), event.after.is_some(), event.source.row, event.source.snapshot)
        })
    }

    #[test]
    fn reads_with_and_without_schema() {
        let plain = format!(r#"{{"op":"u","before":null,"after":{{"id":"a"}},{SOURCE}}}"#);
        let wrapped = format!(r#"{{"schema":{{}},"payload":{plain}}}"#);
        for json in [&plain, &wrapped] {
            assert_eq!(read(json), Ok((Op::Update, false, true, 2, false)));
        }
        for (marker, snapshot) in [("first", true), ("true", true), ("last", true), ("incremental", true)] {
            let json = plain.replace(r#""false""#, &format!("\"{marker}\""));
            assert_eq!(read(&json).unwrap().4, snapshot, "{marker}");
        }
        assert!(read(&plain.replace(r#""snapshot":"false","#, "")).is_ok_and(|event| !event.4));
    }

    #[test]
    fn markers_are_dropped_and_the_rest_refused() {
        assert_eq!(read(r#"{"ts_ms":1}"#), Err(EnvelopeError::Marker));
        assert_eq!(read(r#"{"status":"BEGIN","id":"x","event_count":null}"#), Err(EnvelopeError::Marker));
        for (json, what) in [
            ("[]", "the value is not an object"),
            ("{}", "op: absent"),
            (r#"{"op":"t"}"#, "op: the table was truncated, which tells no rows"),
            (r#"{"op":7}"#, "op: not one of c, r, u, d"),
            (r#"{"op":"c"}"#, "after: absent"),
            (r#"{"op":"c","after":[]}"#, "a row that is not an object"),
            (r#"{"op":"d","before":{}}"#, "source: absent"),
            (r#"{"op":"d","source":{"db":"a","table":"b"}}"#, "source.ts_ms: absent"),
        ] {
            assert_eq!(read(json), Err(EnvelopeError::Malformed(what)), "{json}");
        }
    }
}
