use std::sync::Arc;

use fhirehose_stream::{Record, Rejection};
use rdkafka::message::OwnedHeaders;

use crate::clients::DEAD_LETTER_MAX_BYTES;
use crate::producer::{ToSend, with_header};
use crate::spec::Spec;

/// Turns rejected records into dead letters: the original as it was, and headers that say where it is from
/// and what is wrong with it. Headers name fields and reasons, never values.
pub(crate) struct DeadLetters {
    spec: Spec,
    /// Dead-letter topics by source topic.
    topics: Vec<(Arc<str>, Arc<str>)>,
    /// Larger values are left out.
    limit: usize,
}

impl DeadLetters {
    pub(crate) fn new(spec: Spec) -> Self {
        DeadLetters { spec, topics: Vec::new(), limit: DEAD_LETTER_MAX_BYTES }
    }

    /// After the broker refused one for its size: values above what every topic takes are left out.
    pub(crate) fn shrink(&mut self) {
        self.limit = self.limit.min(900_000);
    }

    /// Makes [`DeadLetters::letter`] know the record's topic.
    pub(crate) fn prepare(&mut self, record: Record<'_>) {
        let topic = &record.at().topic;
        if !self.topics.iter().any(|(source, _)| source == topic) {
            self.topics.push((topic.clone(), (self.spec.dead_letters)(topic)));
        }
    }

    pub(crate) fn letter<'b>(&'b self, record: Record<'b>, rejection: &Rejection) -> ToSend<'b> {
        let source = &record.at().topic;
        let topic = self.topics.iter().find(|(known, _)| known == source).map_or("", |(_, topic)| topic);
        let mut headers = OwnedHeaders::new();
        let mut size = record.key().map_or(0, <[u8]>::len);
        for (name, value) in record.headers() {
            size += name.len() + value.map_or(0, <[u8]>::len);
            // Of a record dead-lettered before and sent again: the new ones say more.
            if !name.starts_with("fhirehose-dlq-") {
                headers = with_header(headers, name, value);
            }
        }
        let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
        let mut add = |name, value: &str| {
            headers = with_header(std::mem::take(&mut headers), name, Some(value.as_bytes()));
        };
        add("fhirehose-dlq-stage", self.spec.name);
        add("fhirehose-dlq-reason", rejection.reason.label());
        add("fhirehose-dlq-detail", &rejection.detail);
        add("fhirehose-dlq-source-topic", source);
        add("fhirehose-dlq-source-partition", &partition);
        add("fhirehose-dlq-source-offset", &offset);
        add("fhirehose-dlq-shape", rejection.shape.as_deref().unwrap_or(""));
        add("fhirehose-dlq-processor", self.spec.name);
        add("fhirehose-dlq-version", env!("CARGO_PKG_VERSION"));
        let mut value = record.value();
        if let Some(bytes) = value.filter(|bytes| bytes.len() + size > self.limit) {
            add("fhirehose-dlq-value-omitted", &format!("{} bytes", bytes.len()));
            value = None;
        }
        ToSend {
            topic,
            partition: None,
            key: record.key(),
            value,
            timestamp_ms: Some(record.timestamp_ms()),
            headers: Some(headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use fhirehose_stream::{Batch, Reason};
    use rdkafka::message::Headers;

    use super::*;
    use crate::spec::Inputs;

    fn letters() -> DeadLetters {
        DeadLetters::new(Spec {
            name: "copy",
            group: "x-copy".into(),
            inputs: Inputs::Topics(vec!["in".into()]),
            tables: vec![],
            changelog: None,
            outputs: vec![],
            store: None,
            dead_letters: Arc::new(|topic| format!("{topic}.x-copy.dlq").into()),
        })
    }

    fn batch(value: &[u8]) -> Batch {
        let mut batch = Batch::default();
        let headers = [("mqtt-topic", Some(&b"dusun_pub"[..])), ("fhirehose-dlq-reason", Some(&b"old"[..]))];
        batch.push(&"in".into(), 3, 42, 1_000, Some(b"key"), Some(value), headers.into_iter());
        batch
    }

    fn header(letter: &ToSend<'_>, name: &str) -> Option<String> {
        let headers = letter.headers.as_ref()?;
        let found = headers.iter().find(|header| header.key == name)?;
        Some(String::from_utf8(found.value?.to_vec()).unwrap())
    }

    #[test]
    fn a_letter_is_the_original_and_says_what_is_wrong() {
        let (mut letters, batch) = (letters(), batch(b"{}"));
        let record = batch.get(0).unwrap();
        letters.prepare(record);
        let rejection = Rejection::new(Reason::UnknownCode, "gender").of_shape("cdc/a/b@2");
        let letter = letters.letter(record, &rejection);
        assert_eq!(
            (letter.topic, letter.key, letter.value),
            ("in.x-copy.dlq", Some(&b"key"[..]), Some(&b"{}"[..]))
        );
        assert_eq!(letter.timestamp_ms, Some(1_000));
        for (name, value) in [
            ("mqtt-topic", "dusun_pub"),
            ("fhirehose-dlq-stage", "copy"),
            ("fhirehose-dlq-reason", "unknown_code"),
            ("fhirehose-dlq-detail", "gender"),
            ("fhirehose-dlq-source-topic", "in"),
            ("fhirehose-dlq-source-partition", "3"),
            ("fhirehose-dlq-source-offset", "42"),
            ("fhirehose-dlq-shape", "cdc/a/b@2"),
            ("fhirehose-dlq-version", env!("CARGO_PKG_VERSION")),
        ] {
            assert_eq!(header(&letter, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(
            letter.headers.as_ref().unwrap().iter().filter(|h| h.key == "fhirehose-dlq-reason").count(),
            1
        );
    }

    #[test]
    fn a_value_too_large_for_the_topic_is_left_out_and_said_so() {
        let (mut letters, batch) = (letters(), batch(&vec![b'x'; 1_000_000]));
        let record = batch.get(0).unwrap();
        let rejection = Rejection::new(Reason::TooLarge, "record");
        letters.prepare(record);
        assert!(letters.letter(record, &rejection).value.is_some());
        letters.shrink();
        let letter = letters.letter(record, &rejection);
        assert_eq!(letter.value, None);
        assert_eq!(header(&letter, "fhirehose-dlq-value-omitted").as_deref(), Some("1000000 bytes"));
    }
}
