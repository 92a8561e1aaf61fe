//! What the search server holds: documents by id, as hashes, and what none of them may say.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use super::state::{Row, print};
use super::{Breaches, Invariant};

/// Documents asked for at once.
const PAGE: usize = 1_000;

/// A document's fields as JSON, by name.
pub type Fields = BTreeMap<String, String>;

/// One document as it is found.
#[derive(Clone, Debug)]
pub struct Document {
    pub id: String,
    pub version: i64,
    pub fields: Fields,
}

pub struct Search {
    url: String,
    agent: Agent,
}

impl Search {
    pub fn new(url: &str) -> Search {
        let agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build().into();
        Search { url: url.trim_end_matches('/').to_owned(), agent }
    }

    /// The documents of these ids that are there, tombstones too; as they are now, refreshed or not.
    pub fn documents<'a>(
        &self,
        index: &str,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Document>> {
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(PAGE) {
            let answer = self.post(&format!("{index}/_mget"), &json!({"ids": ids}))?;
            let docs = answer["docs"].as_array().context("an answer without documents")?;
            // Of an index whose shards are on their way back nothing is known.
            if let Some(error) = docs.iter().find_map(|doc| doc.get("error")) {
                bail!("documents that cannot be asked for: {}", error["type"]);
            }
            found.extend(docs.iter().filter_map(document));
        }
        Ok(found)
    }

    /// Documents of a tenant that a search of an index or alias sees, after a refresh.
    pub fn count(&self, index: &str, tenant: &str) -> Result<u64> {
        self.post(&format!("{index}/_refresh"), &Value::Null)?;
        let answer =
            self.post(&format!("{index}/_count"), &json!({"query": {"term": {"tenant": tenant}}}))?;
        answer["count"].as_u64().context("an answer without a count")
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/{path}", self.url);
        let answer = match body {
            Value::Null => self.agent.post(url).send_empty(),
            body => self.agent.post(url).send_json(body),
        };
        answer?.body_mut().with_config().limit(64 << 20).read_json().context("reading an answer of search")
    }
}

fn document(found: &Value) -> Option<Document> {
    let fields = found["_source"].as_object()?;
    Some(Document {
        id: found["_id"].as_str()?.to_owned(),
        version: found["_version"].as_i64()?,
        fields: fields.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
    })
}

impl Document {
    pub fn is_living(&self) -> bool {
        self.fields.get("deleted").is_none_or(|deleted| deleted == "false")
    }

    pub fn row(&self) -> (String, Row) {
        (self.id.clone(), Row { version: self.version, print: print(&self.fields) })
    }
}

/// I11: no document says what stands only in the resource, and a deleted one nothing that names a person.
pub fn personal(documents: &[Document], never: &[String], canaries: &[String], found: &mut Breaches) {
    for document in documents {
        let says = |what: &String| document.fields.values().any(|value| value.contains(what.as_str()));
        if never.iter().any(says) {
            found.add(Invariant::I11, "a document says what no column holds", &document.id);
        }
        if !document.is_living() && canaries.iter().any(says) {
            found.add(Invariant::I11, "a deleted document holds personal data", &document.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_data_is_found_where_it_must_not_be() {
        let document = |id: &str, fields: &[(&str, &str)]| Document {
            id: id.to_owned(),
            version: 1,
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let all = [
            document("live", &[("deleted", "false"), ("name", "\"Canary\"")]),
            document("gone", &[("deleted", "true"), ("name", "\"Canary\"")]),
            document("loud", &[("deleted", "false"), ("city", "\"call 0912\"")]),
        ];
        let mut found = Breaches::default();
        personal(&all, &["0912".to_owned()], &["Canary".to_owned()], &mut found);
        let told: Vec<String> = found.into_vec().into_iter().map(|breach| breach.what).collect();
        assert_eq!(
            told,
            ["a deleted document holds personal data: gone", "a document says what no column holds: loud"]
        );
    }

    #[test]
    fn a_document_of_other_values_has_another_hash() {
        let read = |name: &str| {
            document(&json!({"_id": "a", "_version": 3, "_source": {"name": name, "n": 1}})).unwrap()
        };
        assert_eq!(read("x").row(), read("x").row());
        assert_ne!(read("x").row(), read("y").row());
        assert!(document(&json!({"_id": "a", "found": false})).is_none());
    }
}
