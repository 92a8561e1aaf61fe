use std::ops::Range;
use std::sync::Arc;

/// What one record becomes, in the order of the mapping's outputs. Reused from record to record.
#[derive(Default)]
pub struct Drafts {
    bytes: Vec<u8>,
    items: Vec<Item>,
    flags: Vec<Arc<str>>,
    /// Where the flags of what is being added begin.
    first_flag: usize,
}

struct Item {
    topic: Arc<str>,
    tenant: Range<usize>,
    key: Range<usize>,
    flags: Range<usize>,
    body: Body,
}

enum Body {
    Resource { id: Range<usize>, json: Range<usize> },
    Record { json: Range<usize> },
    Tombstone,
}

/// One output that is to be written.
#[derive(Clone, Copy)]
pub struct Draft<'d> {
    /// Logical topic.
    pub topic: &'d Arc<str>,
    pub tenant: &'d str,
    /// Record key.
    pub key: &'d str,
    /// Codes of data-quality flags, each once, in the order the rules raised them.
    pub flags: &'d [Arc<str>],
    pub body: DraftBody<'d>,
}

/// A draft's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DraftBody<'d> {
    /// A whole FHIR resource, as JSON, for the FHIR record envelope.
    Resource {
        id: &'d str,
        json: &'d [u8],
    },
    /// The fields of a record of the topic's schema, as a JSON object.
    Record {
        json: &'d [u8],
    },
    Tombstone,
}

impl Drafts {
    pub fn new() -> Self {
        Drafts::default()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.flags.clear();
        self.first_flag = 0;
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Draft<'_>> {
        self.items.iter().map(|item| Draft {
            topic: &item.topic,
            tenant: self.text(&item.tenant),
            key: self.text(&item.key),
            flags: &self.flags[item.flags.clone()],
            body: match &item.body {
                Body::Resource { id, json } => {
                    DraftBody::Resource { id: self.text(id), json: &self.bytes[json.clone()] }
                }
                Body::Record { json } => DraftBody::Record { json: &self.bytes[json.clone()] },
                Body::Tombstone => DraftBody::Tombstone,
            },
        })
    }

    pub(crate) fn has(&self, topic: &str, key: &str) -> bool {
        self.items.iter().any(|item| &*item.topic == topic && self.text(&item.key) == key)
    }

    /// What is added from here on has flags of its own.
    pub(crate) fn begin_flags(&mut self) {
        self.first_flag = self.flags.len();
    }

    pub(crate) fn flag(&mut self, flag: &Arc<str>) {
        if !self.flags[self.first_flag..].contains(flag) {
            self.flags.push(flag.clone());
        }
    }

    pub(crate) fn tombstone(&mut self, topic: &Arc<str>, tenant: &str, key: &str) {
        let (tenant, key) = (self.copy(tenant), self.copy(key));
        self.push(topic, tenant, key, Body::Tombstone);
    }

    /// Adds a resource, under the key `tenant/id`, that `write` appends as JSON; nothing where it fails.
    pub(crate) fn resource<E>(
        &mut self,
        topic: &Arc<str>,
        tenant: &str,
        id: &str,
        write: impl FnOnce(&mut Vec<u8>, &[Arc<str>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let tenant = self.copy(tenant);
        self.copy("/");
        let id = self.copy(id);
        let key = tenant.start..id.end;
        let start = self.bytes.len();
        write(&mut self.bytes, &self.flags[self.first_flag..])?;
        let body = Body::Resource { id, json: start..self.bytes.len() };
        self.push(topic, tenant, key, body);
        Ok(())
    }

    /// Adds a record that `write` appends as a JSON object; nothing where it fails.
    pub(crate) fn record<E>(
        &mut self,
        topic: &Arc<str>,
        tenant: &str,
        key: &str,
        write: impl FnOnce(&mut Vec<u8>, &[Arc<str>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (tenant, key) = (self.copy(tenant), self.copy(key));
        let start = self.bytes.len();
        write(&mut self.bytes, &self.flags[self.first_flag..])?;
        let body = Body::Record { json: start..self.bytes.len() };
        self.push(topic, tenant, key, body);
        Ok(())
    }

    fn push(&mut self, topic: &Arc<str>, tenant: Range<usize>, key: Range<usize>, body: Body) {
        let flags = self.first_flag..self.flags.len();
        self.items.push(Item { topic: topic.clone(), tenant, key, flags, body });
    }

    fn copy(&mut self, text: &str) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        start..self.bytes.len()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Only whole texts are copied in.
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }
}
