use std::cell::RefCell;
use std::fmt;

use fhirehose_fhirpath::{Collection, Ctx, EvalError, Item};
use fhirehose_stream::Rejection;
use fhirehose_tape::{Tape, Value};

use crate::device::{Assignment, Message, Plane};
use crate::drafts::{DraftBody, Drafts};
use crate::template::Hole;
use crate::{Mappings, RowChange, RowOp, Scratch, Source, Vendor};

/// Where a run tells what it does.
pub(crate) type Tracer<'t> = &'t RefCell<Trace>;

/// What a run did, in order.
#[derive(Default)]
pub(crate) struct Trace(Vec<Step>);

/// One step of a mapping's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An output begins; what follows belongs to it.
    Output { name: String, topic: String, wanted: bool },
    /// An expression was evaluated.
    Hole {
        /// Where its value goes.
        path: String,
        line: usize,
        expression: String,
        /// Its items as JSON; none is empty.
        result: Result<Vec<String>, String>,
        /// Why it is empty, where something is to be said.
        why: Option<String>,
    },
}

/// What a mapping makes of one record, step by step. Shows values: for records an operator chose to look at.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// `name@version`.
    pub mapping: String,
    pub steps: Vec<Step>,
    /// Topic, key and value of each output; `None` is a tombstone.
    pub outputs: Vec<(String, String, Option<String>)>,
    pub rejection: Option<Rejection>,
}

/// Why a record cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("the record is not JSON: {0}")]
    NotJson(#[from] fhirehose_tape::JsonError),
    #[error(
        "the record has no `{0}`: it is `{{\"key\": …, \"value\": …, \"headers\": {{}}, \"timestamp\": ms}}`"
    )]
    Missing(&'static str),
    #[error("no mapping is for the topic `{0}`")]
    NoMapping(String),
    #[error("no mapping of `{0}` matches the message")]
    NoMatch(String),
}

impl Trace {
    pub fn output(&mut self, name: &str, topic: &str, wanted: bool) {
        // Its condition was evaluated before it was known to begin.
        let condition = matches!(self.0.last(), Some(Step::Hole { path, .. }) if path == name);
        let step = Step::Output { name: name.to_owned(), topic: topic.to_owned(), wanted };
        self.0.insert(self.0.len() - usize::from(condition), step);
    }

    pub fn hole<'a>(&mut self, hole: &'a Hole, result: &Result<Collection<'_>, EvalError>, ctx: &Ctx<'a>) {
        let why = match result {
            Ok(items) if items.is_empty() => hole.expr.why_empty(ctx),
            _ => None,
        };
        let json = |item: &Item<'_>| {
            let mut out = Vec::new();
            item.write_json(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        self.0.push(Step::Hole {
            path: hole.path.to_string(),
            line: hole.at.line,
            expression: hole.expr.source().to_owned(),
            result: match result {
                Ok(items) => Ok(items.iter().map(json).collect()),
                Err(error) => Err(error.to_string()),
            },
            why,
        });
    }
}

/// Runs a record, given as the examples are written, through its mapping and tells every step. `topic` is the
/// logical one, `cdc.<db>.<table>` or `device.<vendor>`, unless the record names its own. A reading is explained as if its device were
/// assigned to a patient of the source's tenant.
pub fn explain(
    mappings: &Mappings,
    topic: &str,
    record: &[u8],
    source: &Source,
    vendor: &Vendor,
) -> Result<Explanation, ExplainError> {
    let mut tape = Tape::new();
    tape.parse_json(record)?;
    let record = tape.root();
    let topic = record.get("topic").and_then(Value::as_str).unwrap_or(topic);
    let value = record.get("value").ok_or(ExplainError::Missing("value"))?;
    let record_time = record.get("timestamp").and_then(Value::as_i64);
    let record_time = record_time.ok_or(ExplainError::Missing("timestamp"))?;
    let trace = RefCell::new(Trace::default());
    let mut drafts = Drafts::new();
    let (mapping, result) = match topic.strip_prefix("cdc.").and_then(|name| name.split_once('.')) {
        Some((db, table)) => {
            let mapping = mappings.cdc(db, table).ok_or_else(|| ExplainError::NoMapping(topic.to_owned()))?;
            let envelope = value.get("payload").unwrap_or(value);
            let row = |name| envelope.get(name).filter(|row| !row.is_null());
            let change = RowChange {
                op: match envelope.get("op").and_then(Value::as_str) {
                    Some("c") => RowOp::Create,
                    Some("r") => RowOp::Read,
                    Some("u") => RowOp::Update,
                    Some("d") => RowOp::Delete,
                    _ => return Err(ExplainError::Missing("value.op")),
                },
                key: record.get("key"),
                before: row("before"),
                after: row("after"),
                source,
                version_id: "0.0.0",
                last_updated: envelope
                    .get("source")
                    .and_then(|source| source.get("ts_ms"))
                    .and_then(Value::as_i64)
                    .unwrap_or(record_time),
                record_time,
            };
            let result = mapping.apply_traced(&change, &mut Scratch::default(), &mut drafts, Some(&trace));
            (mapping.shape(), result)
        }
        None => {
            let empty = Tape::new();
            let headers = record.get("headers").unwrap_or(empty.root());
            let message = Message { body: value, headers, vendor, record_time };
            if !mappings.has_device_topic(topic) {
                return Err(ExplainError::NoMapping(topic.to_owned()));
            }
            let mapping =
                mappings.device(topic, &message).map_err(|_| ExplainError::NoMatch(topic.to_owned()))?;
            let patient = "00000000-0000-0000-0000-000000000000".into();
            let assignment = Assignment { tenant: source.tenant.clone(), patient, facility: None };
            let mut run = || {
                for reading in mapping.readings(&message)? {
                    for plane in
                        [Plane::Alerts, Plane::Readings].into_iter().filter(|plane| mapping.has(*plane))
                    {
                        let (scratch, trace) = (&mut Scratch::default(), Some(&trace));
                        mapping.apply_traced(
                            &message,
                            &reading,
                            Some(&assignment),
                            plane,
                            scratch,
                            &mut drafts,
                            trace,
                        )?;
                    }
                }
                Ok(())
            };
            let result = run();
            (mapping.shape(), result)
        }
    };
    let shown = |body: DraftBody<'_>| match body {
        DraftBody::Resource { json, .. } | DraftBody::Record { json } => {
            Some(String::from_utf8_lossy(json).into_owned())
        }
        DraftBody::Tombstone => None,
    };
    let outputs = match &result {
        Ok(()) => drafts.iter().map(|d| (d.topic.to_string(), d.key.to_owned(), shown(d.body))).collect(),
        Err(_) => Vec::new(),
    };
    Ok(Explanation { mapping, steps: trace.into_inner().0, outputs, rejection: result.err() })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mapping {}", self.mapping)?;
        for step in &self.steps {
            match step {
                Step::Output { name, topic, wanted: true } => writeln!(f, "\noutput {name} to {topic}")?,
                Step::Output { name, topic, wanted: false } => {
                    writeln!(f, "\noutput {name} to {topic}: not made, its `when` is not true")?;
                }
                Step::Hole { path, line, expression, result, why } => {
                    let result = match result {
                        Ok(items) if items.is_empty() => match why {
                            Some(why) => format!("empty: {why}"),
                            None => "empty".to_owned(),
                        },
                        Ok(items) => items.join(", "),
                        Err(message) => format!("error: {message}"),
                    };
                    writeln!(f, "  {path} (line {line}): {expression} = {result}")?;
                }
            }
        }
        match &self.rejection {
            Some(rejection) => {
                writeln!(f, "\nrejected: {} at {}", rejection.reason.label(), rejection.detail)?;
            }
            None => {
                for (topic, key, value) in &self.outputs {
                    writeln!(f, "\n{topic} {key}\n{}", value.as_deref().unwrap_or("tombstone"))?;
                }
            }
        }
        Ok(())
    }
}
