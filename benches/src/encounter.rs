//! The mapping `cdc/clinical_data/encounters` by hand: rules, codes, ids and times as in the file, into typed
//! structs that serde writes. What it leaves out is the check of the finished resource against R4.

use fhirehose_fhir::id;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const ACT_PRIORITY: &str = "http://terminology.hl7.org/CodeSystem/v3-ActPriority";
const DISPOSITION: &str = "http://terminology.hl7.org/CodeSystem/discharge-disposition";
const ENCOUNTER_TYPE: &str = "urn:fhirehose:codes:encounter-type";
const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const TABLE: &str = "clinical_data.encounters";
/// An admission so much after its record is a wrong clock.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A decoded row.
#[derive(Deserialize)]
pub struct Row {
    id: String,
    patient_id: Option<String>,
    encounter_number: Option<String>,
    encounter_type: Option<String>,
    status: Option<String>,
    class: Option<String>,
    priority: Option<String>,
    admission_date: Option<String>,
    discharge_date: Option<String>,
    length_of_stay_hours: Option<i64>,
    facility_id: Option<String>,
    attending_provider_id: Option<String>,
    referring_provider_id: Option<String>,
    chief_complaint: Option<String>,
    discharge_disposition: Option<String>,
}

/// What is known of the change beside the row.
pub struct Change {
    pub tenant: String,
    pub source: String,
    pub zone: TimeZone,
    pub version_id: String,
    pub last_updated: Timestamp,
    pub record_time: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encounter<'r> {
    resource_type: &'static str,
    id: String,
    meta: Meta<'r>,
    identifier: [Identifier<'r>; 2],
    status: &'static str,
    class: Coding<'static>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<[Concept<'r>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Concept<'r>>,
    subject: Reference,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    participant: Vec<Participant<'r>>,
    period: Period,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<[Concept<'r>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hospitalization: Option<Hospitalization<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_provider: Option<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'r> {
    version_id: &'r str,
    last_updated: Timestamp,
    source: String,
    security: [Coding<'r>; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tag: Vec<Coding<'static>>,
}

#[derive(Serialize)]
struct Identifier<'r> {
    #[serde(rename = "use")]
    of_use: &'static str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Concept<'r>>,
    system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'r str>,
}

#[derive(Clone, Copy, Serialize)]
struct Coding<'r> {
    system: &'static str,
    code: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<&'static str>,
}

#[derive(Serialize)]
struct Concept<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    coding: Option<[Coding<'static>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'r str>,
}

#[derive(Serialize)]
struct Reference {
    reference: String,
}

#[derive(Serialize)]
struct Participant<'r> {
    #[serde(rename = "type")]
    kind: [Concept<'r>; 1],
    individual: Reference,
}

#[derive(Serialize)]
struct Period {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

#[derive(Serialize)]
struct Quantity {
    value: i64,
    unit: &'static str,
    system: &'static str,
    code: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hospitalization<'r> {
    discharge_disposition: Concept<'r>,
}

/// Writes the resource of a row; an error says why there is none.
pub fn write(row: &Row, change: &Change, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let Change { tenant, source, zone, .. } = change;
    let reference = |of: &str, table: &str, key: &str| Reference {
        reference: format!("{of}/{}", id(tenant, source, table, &[key], None)),
    };
    let patient = row.patient_id.as_deref().ok_or("missing patient_id")?;
    let admission = time(row.admission_date.as_deref().ok_or("missing admission_date")?)?;
    let discharge = row.discharge_date.as_deref().map(time).transpose()?;
    if discharge.is_some_and(|discharge| discharge < admission) {
        return Err("discharged before admitted");
    }
    let start = admission.to_zoned(zone.clone()).map_err(|_| "no such time")?;
    let status = row.status.as_deref().unwrap_or_default();
    let mut flags = Vec::new();
    let begun = matches!(status, "arrived" | "in_progress" | "finished");
    if begun && start.timestamp() > change.record_time + SKEW {
        flags.push("clock-skew");
    }
    if status == "finished" && discharge.is_none() {
        flags.push("discharge-missing");
    }
    if matches!(status, "planned" | "arrived" | "in_progress") && discharge.is_some() {
        flags.push("discharge-while-open");
    }
    let end = discharge.map(|at| at.to_zoned(zone.clone())).transpose().map_err(|_| "no such time")?;
    let at = |zoned: jiff::Zoned| zoned.timestamp().display_with_offset(zoned.offset()).to_string();
    let kind = row.encounter_type.as_deref().map(encounter_type).transpose()?;
    let class = match row.encounter_type.as_deref() {
        Some(home @ "home_health") => home,
        _ => row.class.as_deref().ok_or("missing class")?,
    };
    let participants =
        [(&row.attending_provider_id, "ATND", "attender"), (&row.referring_provider_id, "REF", "referrer")];
    let participant = participants.into_iter().filter_map(|(provider, code, display)| {
        Some(Participant {
            kind: [Concept::of(coding(PARTICIPATION, code, display))],
            individual: reference("Practitioner", "identity_management.users", provider.as_deref()?),
        })
    });
    let encounter = Encounter {
        resource_type: "Encounter",
        id: id(tenant, source, TABLE, &[&row.id], None).to_string(),
        meta: Meta {
            version_id: &change.version_id,
            last_updated: change.last_updated,
            source: format!("urn:{source}:{TABLE}"),
            security: [Coding {
                system: "http://thirdopinion.io/identity/claims/tenant",
                code: tenant,
                display: None,
            }],
            tag: flags
                .into_iter()
                .map(|code| Coding { system: "urn:fhirehose:dq", code, display: None })
                .collect(),
        },
        identifier: [
            Identifier {
                of_use: "official",
                kind: Some(Concept::of(coding(IDENTIFIER_TYPE, "VN", "Visit number"))),
                system: format!("urn:fhirehose:{tenant}:{source}:encounter-number"),
                value: row.encounter_number.as_deref(),
            },
            Identifier {
                of_use: "secondary",
                kind: None,
                system: format!("urn:fhirehose:{tenant}:{source}:{TABLE}"),
                value: Some(&row.id),
            },
        ],
        status: encounter_status(status)?,
        class: encounter_class(class)?,
        kind: kind.map(|kind| [Concept { coding: Some([kind]), text: kind.display }]),
        priority: row.priority.as_deref().map(priority).transpose()?.map(Concept::of),
        subject: reference("Patient", "clinical_data.patients", patient),
        participant: participant.collect(),
        period: Period { start: at(start), end: end.map(at) },
        length: row.length_of_stay_hours.map(|value| Quantity {
            value,
            unit: "hours",
            system: "http://unitsofmeasure.org",
            code: "h",
        }),
        reason_code: row.chief_complaint.as_deref().map(|text| [Concept { coding: None, text: Some(text) }]),
        hospitalization: row
            .discharge_disposition
            .as_deref()
            .map(disposition)
            .transpose()?
            .map(|coding| Hospitalization { discharge_disposition: Concept::of(coding) }),
        service_provider: row
            .facility_id
            .as_deref()
            .map(|key| reference("Organization", "business_operations.facilities", key)),
    };
    serde_json::to_writer(out, &encounter).map_err(|_| "not written")
}

impl Concept<'_> {
    fn of(coding: Coding<'static>) -> Self {
        Concept { coding: Some([coding]), text: None }
    }
}

/// A clock without zone; a `Z` behind it says nothing.
fn time(text: &str) -> Result<DateTime, &'static str> {
    text.trim_end_matches('Z').parse().map_err(|_| "no such time")
}

fn coding(system: &'static str, code: &'static str, display: &'static str) -> Coding<'static> {
    Coding { system, code, display: Some(display) }
}

fn encounter_status(code: &str) -> Result<&'static str, &'static str> {
    Ok(match code {
        "planned" => "planned",
        "arrived" => "arrived",
        "in_progress" => "in-progress",
        "finished" => "finished",
        "cancelled" => "cancelled",
        "entered_in_error" => "entered-in-error",
        _ => return Err("unknown status"),
    })
}

fn encounter_class(code: &str) -> Result<Coding<'static>, &'static str> {
    Ok(match code {
        "ambulatory" => coding(ACT_CODE, "AMB", "ambulatory"),
        "emergency" => coding(ACT_CODE, "EMER", "emergency"),
        "inpatient" => coding(ACT_CODE, "IMP", "inpatient encounter"),
        "observation" => coding(ACT_CODE, "OBSENC", "observation encounter"),
        "virtual" => coding(ACT_CODE, "VR", "virtual"),
        "home_health" => coding(ACT_CODE, "HH", "home health"),
        _ => return Err("unknown class"),
    })
}

fn encounter_type(code: &str) -> Result<Coding<'static>, &'static str> {
    Ok(match code {
        "inpatient" => coding(ENCOUNTER_TYPE, "inpatient", "Inpatient"),
        "outpatient" => coding(ENCOUNTER_TYPE, "outpatient", "Outpatient"),
        "emergency" => coding(ENCOUNTER_TYPE, "emergency", "Emergency"),
        "urgent_care" => coding(ENCOUNTER_TYPE, "urgent-care", "Urgent care"),
        "telehealth" => coding(ENCOUNTER_TYPE, "telehealth", "Telehealth"),
        "home_health" => coding(ENCOUNTER_TYPE, "home-health", "Home health"),
        _ => return Err("unknown type"),
    })
}

fn priority(code: &str) -> Result<Coding<'static>, &'static str> {
    Ok(match code {
        "routine" => coding(ACT_PRIORITY, "R", "routine"),
        "urgent" => coding(ACT_PRIORITY, "UR", "urgent"),
        "emergent" => coding(ACT_PRIORITY, "EM", "emergency"),
        "elective" => coding(ACT_PRIORITY, "EL", "elective"),
        _ => return Err("unknown priority"),
    })
}

fn disposition(code: &str) -> Result<Coding<'static>, &'static str> {
    Ok(match code {
        "home" => coding(DISPOSITION, "home", "Home"),
        "transfer" => coding(DISPOSITION, "other-hcf", "Other healthcare facility"),
        "expired" => coding(DISPOSITION, "exp", "Expired"),
        "left_ama" => coding(DISPOSITION, "aadvice", "Left against advice"),
        "hospice" => coding(DISPOSITION, "hosp", "Hospice"),
        "other" => coding(DISPOSITION, "oth", "Other"),
        _ => return Err("unknown disposition"),
    })
}
