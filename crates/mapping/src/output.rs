//! From a compiled output and one record to a draft.

use std::sync::Arc;

use fhirehose_fhirpath::{Collection, Ctx, Item};
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::{Tape, write_string};
use smallvec::smallvec;

use crate::drafts::Drafts;
use crate::header::{Consequence, Output, Record, Resource, Rule};
use crate::render::Renderer;
use crate::time;

/// What the engine writes into every resource of a record.
#[derive(Clone, Copy)]
pub(crate) struct Stamp<'r> {
    pub tenant: &'r str,
    /// `urn:<source>:<db>.<table>` or `urn:device:<vendor>`.
    pub origin: &'r str,
    pub version_id: &'r str,
    /// Milliseconds since the epoch.
    pub last_updated: i64,
}

/// Runs rules in order; flags go to the drafts.
pub(crate) fn judge<'a>(
    rules: &'a [Rule],
    renderer: &Renderer<'a>,
    ctx: &Ctx<'a>,
    drafts: &mut Drafts,
) -> Result<(), Rejection> {
    drafts.begin_flags();
    for rule in rules {
        if renderer.test(&rule.when, ctx)? {
            match &rule.then {
                Consequence::Reject { reason, path } => return Err(Rejection::new(*reason, &**path)),
                Consequence::Flag(code) => drafts.flag(code),
            }
        }
    }
    Ok(())
}

impl Output {
    /// Whether the record makes this output.
    pub fn wanted<'a>(&'a self, renderer: &Renderer<'a>, ctx: &Ctx<'a>) -> Result<bool, Rejection> {
        self.when.as_ref().map_or(Ok(true), |when| renderer.test(when, ctx))
    }
}

impl Resource {
    /// Adds the resource to the drafts, checked against R4.
    #[expect(clippy::too_many_arguments, reason = "what it is, what it is made of, and where it goes")]
    pub fn draft<'a>(
        &'a self,
        topic: &Arc<str>,
        id: &str,
        stamp: Stamp<'_>,
        renderer: &Renderer<'a>,
        ctx: &mut Ctx<'a>,
        drafts: &mut Drafts,
        check: &mut Tape,
    ) -> Result<(), Rejection> {
        renderer.assign(&self.assigns, ctx)?;
        drafts.resource(topic, stamp.tenant, id, |out, flags| {
            let start = out.len();
            self.head(id, stamp, flags, out)?;
            renderer.object_members(&self.members, ctx, out)?;
            out.push(b'}');
            check
                .parse_json(&out[start..])
                .map_err(|error| Rejection::new(Reason::InvalidFhir, format!("{}: {error}", self.of_type)))?;
            fhirehose_fhir::validate(check.root()).map_err(|invalid| {
                let missing = invalid.rule == fhirehose_fhir::Rule::Missing;
                let reason = if missing { Reason::MissingElement } else { Reason::InvalidFhir };
                Rejection::new(reason, invalid.to_string())
            })
        })
    }

    /// `{"resourceType":…,"id":…,"meta":{…}`
    fn head(
        &self,
        id: &str,
        stamp: Stamp<'_>,
        flags: &[Arc<str>],
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let mut text = |before: &str, text: &str| {
            out.extend_from_slice(before.as_bytes());
            write_string(text, out);
        };
        let updated = time::utc(stamp.last_updated)
            .map_err(|_| Rejection::new(Reason::InvalidTime, format!("{}.meta.lastUpdated", self.of_type)))?;
        text("{\"resourceType\":", &self.of_type);
        text(",\"id\":", id);
        text(",\"meta\":{\"versionId\":", stamp.version_id);
        text(",\"lastUpdated\":", &updated);
        text(",\"source\":", stamp.origin);
        out.push(b',');
        out.extend_from_slice(&self.profile);
        let tenants = "http://thirdopinion.io/identity/claims/tenant";
        coding("\"security\":[", tenants, stamp.tenant, out);
        out.push(b']');
        for (i, flag) in flags.iter().enumerate() {
            coding(if i == 0 { ",\"tag\":[" } else { "," }, "urn:fhirehose:dq", flag, out);
        }
        if !flags.is_empty() {
            out.push(b']');
        }
        out.push(b'}');
        Ok(())
    }
}

fn coding(before: &str, system: &str, code: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(b"{\"system\":");
    write_string(system, out);
    out.extend_from_slice(b",\"code\":");
    write_string(code, out);
    out.push(b'}');
}

impl Record {
    /// The record's key; `None` where a part of it is empty.
    pub fn key<'a>(
        &'a self,
        renderer: &Renderer<'a>,
        ctx: &mut Ctx<'a>,
    ) -> Result<Option<String>, Rejection> {
        let mut key = String::new();
        for (i, part) in self.key.iter().enumerate() {
            let Some(text) = renderer.plain_text(part, ctx)? else { return Ok(None) };
            if i > 0 {
                key.push('/');
            }
            key.push_str(&text);
        }
        Ok(Some(key).filter(|key| !key.is_empty()))
    }

    pub fn draft<'a>(
        &'a self,
        topic: &Arc<str>,
        key: &str,
        tenant: &str,
        renderer: &Renderer<'a>,
        ctx: &mut Ctx<'a>,
        drafts: &mut Drafts,
    ) -> Result<(), Rejection> {
        renderer.assign(&self.assigns, ctx)?;
        drafts.record(topic, tenant, key, |out, flags| {
            out.push(b'{');
            renderer.object_members(&self.members, ctx, out)?;
            if self.flags {
                let comma = if out.last() == Some(&b'{') { "" } else { "," };
                out.extend_from_slice(comma.as_bytes());
                out.extend_from_slice(b"\"flags\":[");
                for (i, flag) in flags.iter().enumerate() {
                    out.extend_from_slice(if i > 0 { b"," } else { b"" });
                    write_string(flag, out);
                }
                out.push(b']');
            }
            out.push(b'}');
            Ok(())
        })
    }
}

/// One item as a collection.
pub(crate) fn single(item: Item<'_>) -> Collection<'_> {
    smallvec![item]
}
