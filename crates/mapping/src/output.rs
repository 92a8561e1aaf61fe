//! From a compiled output and one record to a draft.

use std::sync::{Arc, LazyLock};

use fhirehose_fhir::ElementRules;
use fhirehose_fhirpath::{Collection, Ctx, Item};
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::write_string;
use smallvec::smallvec;

use crate::checker::Checker;
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
        checker: &Checker,
    ) -> Result<(), Rejection> {
        renderer.assign(&self.assigns, ctx)?;
        drafts.resource(topic, stamp.tenant, id, |out, flags| {
            let start = out.len();
            checker.begin();
            self.head(id, stamp, flags, checker, out)?;
            renderer.object_members(&self.members, ctx, out)?;
            out.push(b'}');
            checker.resource(&self.of_type, self.left, &out[start..])
        })
    }

    /// `{"resourceType":…,"id":…,"meta":{…}`
    fn head(
        &self,
        id: &str,
        stamp: Stamp<'_>,
        flags: &[Arc<str>],
        checker: &Checker,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let updated = time::utc(stamp.last_updated)
            .map_err(|_| Rejection::new(Reason::InvalidTime, format!("{}.meta.lastUpdated", self.of_type)))?;
        let head = &*HEAD;
        out.extend_from_slice(&self.start);
        let mut text = |before: &str, text: &str, rules| {
            out.extend_from_slice(before.as_bytes());
            let start = out.len();
            write_string(text, out);
            checker.scalar(rules, &out[start..]);
        };
        text("", id, head.id);
        text(",\"meta\":{\"versionId\":", stamp.version_id, head.version_id);
        text(",\"lastUpdated\":", &updated, head.last_updated);
        text(",\"source\":", stamp.origin, head.source);
        out.push(b',');
        out.extend_from_slice(&self.profile);
        let mut coding = |before: &str, code: &str| {
            out.extend_from_slice(before.as_bytes());
            let start = out.len();
            write_string(code, out);
            checker.scalar(head.code, &out[start..]);
            out.push(b'}');
        };
        coding(SECURITY, stamp.tenant);
        for (i, flag) in flags.iter().enumerate() {
            coding(if i == 0 { FIRST_TAG } else { NEXT_TAG }, flag);
        }
        out.extend_from_slice(b"]}");
        Ok(())
    }
}

const SECURITY: &str = r#""security":[{"system":"http://thirdopinion.io/identity/claims/tenant","code":"#;
const FIRST_TAG: &str = r#"],"tag":[{"system":"urn:fhirehose:dq","code":"#;
const NEXT_TAG: &str = r#",{"system":"urn:fhirehose:dq","code":"#;

/// The elements the engine writes.
struct Head {
    id: Option<ElementRules>,
    version_id: Option<ElementRules>,
    last_updated: Option<ElementRules>,
    source: Option<ElementRules>,
    code: Option<ElementRules>,
}

static HEAD: LazyLock<Head> = LazyLock::new(|| Head {
    // Every resource has it alike.
    id: ElementRules::of("Basic", "id"),
    version_id: ElementRules::of("Meta", "versionId"),
    last_updated: ElementRules::of("Meta", "lastUpdated"),
    source: ElementRules::of("Meta", "source"),
    code: ElementRules::of("Coding", "code"),
});

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
