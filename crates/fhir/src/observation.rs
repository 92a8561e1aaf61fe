//! The rules of an Observation and of its components. Their members are read once: most resources are these.

use fhirehose_tape::Value;

use crate::invariants::{Check, elements, require, text};
use crate::terminology::{self, LOINC, UCUM};
use crate::validate::Rule;
use crate::vital_signs;

/// What the rules ask of an Observation or a component. A sibling such as `_status` counts as the element.
#[derive(Clone, Copy, Default)]
pub(crate) struct Observed<'t> {
    pub category: Option<Value<'t>>,
    pub code: Option<Value<'t>>,
    pub component: Option<Value<'t>>,
    pub effective_date_time: Option<&'t str>,
    pub meta: Option<Value<'t>>,
    pub quantity: Option<Value<'t>>,
    pub has_effective: bool,
    pub has_member: bool,
    pub has_reason_for_none: bool,
    pub has_subject: bool,
    pub has_value: bool,
    pub has_value_concept: bool,
}

impl<'t> Observed<'t> {
    pub fn of(value: Value<'t>) -> Observed<'t> {
        let mut found = Observed::default();
        for (key, child) in value.entries() {
            match key.strip_prefix('_').unwrap_or(key) {
                "category" => found.category = Some(child),
                "code" => found.code = Some(child),
                "component" => found.component = Some(child),
                "dataAbsentReason" => found.has_reason_for_none = true,
                "effectiveDateTime" => {
                    found.has_effective = true;
                    found.effective_date_time = child.as_str().or(found.effective_date_time);
                }
                "effectivePeriod" => found.has_effective = true,
                "hasMember" => found.has_member = true,
                "meta" => found.meta = Some(child),
                "subject" => found.has_subject = true,
                name if name.starts_with("value") => {
                    found.has_value = true;
                    found.has_value_concept |= name == "valueCodeableConcept";
                    found.quantity = if name == "valueQuantity" { Some(child) } else { found.quantity };
                }
                _ => {}
            }
        }
        found
    }

    /// The codings of its code.
    pub fn codings(&self) -> impl Iterator<Item = Value<'t>> {
        self.code.into_iter().flat_map(|code| elements(code, "coding"))
    }

    pub fn components(&self) -> impl Iterator<Item = Observed<'t>> {
        self.component.into_iter().flat_map(Value::elements).map(Observed::of)
    }

    /// A quantity under a LOINC code we have a rule for carries a UCUM unit of the allow-list.
    fn measured(&self) -> Check {
        let Some(quantity) = self.quantity else { return Ok(()) };
        for coding in self.codings().filter(|c| text(*c, "system") == Some(LOINC)) {
            let Some(allowed) = text(coding, "code").and_then(terminology::units) else { continue };
            let unit = text(quantity, "code").unwrap_or_default();
            if text(quantity, "system") != Some(UCUM) || !allowed.contains(&unit) {
                return Err(("valueQuantity.code".to_owned(), Rule::Unit));
            }
        }
        Ok(())
    }
}

/// System and code of a Coding.
fn named<'t>(coding: Value<'t>) -> (Option<&'t str>, Option<&'t str>) {
    (text(coding, "system"), text(coding, "code"))
}

pub(crate) fn component(value: Value<'_>) -> Check {
    Observed::of(value).measured()
}

pub(crate) fn observation(value: Value<'_>) -> Check {
    let observed = Observed::of(value);
    require("obs-6", !observed.has_reason_for_none || !observed.has_value)?;
    if observed.has_value && observed.component.is_some() {
        let same = |coding| {
            let wanted = named(coding);
            wanted.1.is_some() && observed.components().any(|of| of.codings().any(|o| named(o) == wanted))
        };
        require("obs-7", !observed.codings().any(same))?;
    }
    observed.measured()?;
    vital_signs::check(&observed)
}
