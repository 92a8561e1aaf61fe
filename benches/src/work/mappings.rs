//! Templates, the product's mapping of encounters, and the same by hand.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use fhirehose_mapping::{
    DraftBody, Drafts, Fpml, FpmlOptions, Mappings, RowChange, RowOp, Scratch, Source, Zone, read_document,
};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::{Work, decoded};
use crate::encounter::{self, Change, Row};

/// Rows of a pass.
const ROWS: usize = 200;
/// 2026-10-01: when the rows were read.
const RECORD_TIME: i64 = 1_790_812_800_000;
const ZONE: &str = "Africa/Khartoum";

/// A template over decoded documents.
pub struct Templates {
    template: Fpml,
    documents: Vec<Tape>,
    variables: Vec<Tape>,
}

impl Templates {
    /// `variables`: those of every document.
    pub fn new(template: &str, documents: &[Json], variables: &[(String, Json)]) -> Result<Templates> {
        let names: Vec<&str> = variables.iter().map(|(name, _)| &**name).collect();
        let options = FpmlOptions { variables: &names, ..FpmlOptions::default() };
        let template = Fpml::compile(Path::new("template"), template, &options);
        let texts =
            |all: &mut dyn Iterator<Item = &Json>| decoded(&all.map(ToString::to_string).collect::<Vec<_>>());
        Ok(Templates {
            template: template.map_err(|problems| told(&problems))?,
            documents: texts(&mut documents.iter())?,
            variables: texts(&mut variables.iter().map(|(_, value)| value))?,
        })
    }
}

impl Work for Templates {
    fn records(&self) -> usize {
        self.documents.len()
    }

    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
        let values: Vec<_> = self.variables.iter().map(Tape::root).collect();
        for document in &self.documents {
            let made = self.template.resolve(document.root(), &values);
            let made = made.map_err(|rejection| anyhow!("{rejection:?}"))?.context("nothing was made")?;
            out.extend_from_slice(&made);
            out.push(b'\n');
        }
        Ok(self.documents.len())
    }
}

/// The template of encounters that the reference can resolve, too.
pub fn template(root: &Path) -> Result<String> {
    let file = root.join("benches/templates/encounter.yaml");
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// A document of JSON or YAML.
pub fn document(file: &Path) -> Result<Json> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut tape = Tape::new();
    read_document(file, &text, &mut tape).map_err(|problem| anyhow!("{problem}"))?;
    let mut json = Vec::new();
    tape.root().write_json(&mut json);
    Ok(serde_json::from_slice(&json)?)
}

/// Rows of encounters, made of the repository's example; no two are equal, and all kinds of branches are taken.
pub fn encounters(root: &Path) -> Result<Vec<Json>> {
    let file = root.join("examples/cdc.clinical_data.encounters/create-inpatient.json");
    let mut example = document(&file)?;
    let example = example["value"]["after"].take();
    if example.is_null() {
        bail!("{}: it has no row", file.display());
    }
    let of_type = ["inpatient", "outpatient", "emergency", "telehealth", "home_health"];
    let of_class = ["inpatient", "ambulatory", "emergency", "virtual", "ambulatory"];
    let of_priority = ["routine", "urgent", "emergent"];
    let row = |n: usize| {
        let mut row = example.clone();
        row["id"] = format!("2b0c6a77-51de-4c1f-8a39-{n:012x}").into();
        row["patient_id"] = format!("6f1d9a52-7c3b-4e0e-9b57-{:012x}", n / 3).into();
        row["encounter_number"] = format!("ENC-{n:08}").into();
        row["encounter_type"] = of_type[n % of_type.len()].into();
        row["class"] = of_class[n % of_class.len()].into();
        row["priority"] = of_priority[n % of_priority.len()].into();
        row["admission_date"] = format!("2026-02-{:02}T{:02}:40:00Z", 1 + n % 28, n % 24).into();
        if n.is_multiple_of(2) {
            row["status"] = "finished".into();
            row["discharge_date"] = format!("2026-03-{:02}T10:05:00Z", 1 + n % 28).into();
            row["length_of_stay_hours"] = (24 * (1 + n % 9)).into();
            row["discharge_disposition"] = "home".into();
        }
        if n.is_multiple_of(4) {
            row["referring_provider_id"] = Json::Null;
        }
        row
    };
    Ok((0..ROWS).map(row).collect())
}

/// The product's mapping of encounters, from decoded rows to checked resources.
pub struct Mapped {
    mappings: Mappings,
    rows: Vec<Tape>,
    source: Source,
    scratch: Scratch,
    drafts: Drafts,
}

impl Mapped {
    pub fn new(root: &Path) -> Result<Mapped> {
        let topics = Registry::load(root).map_err(|found| told(&found))?;
        let rows: Vec<String> = encounters(root)?.iter().map(ToString::to_string).collect();
        Ok(Mapped {
            mappings: Mappings::load(root, &topics).map_err(|found| told(&found))?,
            rows: decoded(&rows)?,
            source: Source {
                name: "bench".into(),
                tenant: "bench".into(),
                zone: Zone::named(ZONE)?,
                facility_tenants: Default::default(),
            },
            scratch: Scratch::default(),
            drafts: Drafts::new(),
        })
    }
}

impl Work for Mapped {
    fn records(&self) -> usize {
        self.rows.len()
    }

    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
        let mapping = self.mappings.cdc("clinical_data", "encounters").context("no mapping of encounters")?;
        for row in &self.rows {
            let change = RowChange {
                op: RowOp::Create,
                key: None,
                before: None,
                after: Some(row.root()),
                source: &self.source,
                version_id: "0.0.0",
                last_updated: RECORD_TIME,
                record_time: RECORD_TIME,
            };
            let applied = mapping.apply(&change, &mut self.scratch, &mut self.drafts);
            applied.map_err(|rejection| anyhow!("{rejection:?}"))?;
            for draft in self.drafts.iter() {
                let DraftBody::Resource { json, .. } = draft.body else { bail!("no resource was made") };
                out.extend_from_slice(json);
                out.push(b'\n');
            }
        }
        Ok(self.rows.len())
    }
}

/// The same by hand.
pub struct ByHand {
    rows: Vec<Row>,
    change: Change,
    /// Whether what was written is read again and checked, as the product does.
    pub checked: bool,
    tape: Tape,
}

impl ByHand {
    pub fn new(root: &Path) -> Result<ByHand> {
        let rows = encounters(root)?.into_iter().map(serde_json::from_value);
        let record_time = Timestamp::from_millisecond(RECORD_TIME)?;
        let change = Change {
            tenant: "bench".into(),
            source: "bench".into(),
            zone: jiff::tz::TimeZone::get(ZONE)?,
            version_id: "0.0.0".into(),
            last_updated: record_time,
            record_time,
        };
        Ok(ByHand { rows: rows.collect::<Result<_, _>>()?, change, checked: false, tape: Tape::new() })
    }
}

impl Work for ByHand {
    fn records(&self) -> usize {
        self.rows.len()
    }

    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
        for row in &self.rows {
            let start = out.len();
            encounter::write(row, &self.change, out).map_err(|why| anyhow!(why))?;
            if self.checked {
                self.tape.parse_json(&out[start..])?;
                fhirehose_fhir::validate(self.tape.root()).map_err(|invalid| anyhow!("{invalid}"))?;
            }
            out.push(b'\n');
        }
        Ok(self.rows.len())
    }
}

fn told(found: &[impl std::fmt::Display]) -> anyhow::Error {
    anyhow!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::made;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_mapping_by_hand_writes_the_very_bytes_of_the_mapping() {
        let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
        let mut hand = ByHand::new(&root()).unwrap();
        hand.checked = true;
        assert_eq!(Mapped::new(&root()).unwrap().pass(&mut ours).unwrap(), ROWS);
        assert_eq!(hand.pass(&mut by_hand).unwrap(), ROWS);
        let lines =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
        for (ours, by_hand) in lines(&ours).iter().zip(lines(&by_hand)) {
            assert_eq!(*ours, by_hand);
        }
        assert_eq!(ours, by_hand);
    }

    #[test]
    fn the_plain_template_makes_an_encounter_of_every_row() {
        let mut work =
            Templates::new(&template(&root()).unwrap(), &encounters(&root()).unwrap(), &[]).unwrap();
        let made = made(&mut work).unwrap();
        assert_eq!(made.len(), ROWS);
        assert!(
            made.iter().all(|made| made["resourceType"] == "Encounter" && made["status"] != "in_progress")
        );
        assert_eq!((&made[0]["length"]["code"], &made[1]["length"]), (&"h".into(), &Json::Null));
    }
}
