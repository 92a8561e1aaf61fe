//! What must be in every store, recomputed from the hospitals' tables and the messages sent. Plain SQL and
//! plain rules; nothing of the product is called.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use fhirehose_simulate::devices::{Reading, Sent};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, Value};

use crate::stack::{Site, ZONE};
use crate::workload::Inserted;

/// A row of a source table; every value as MariaDB prints it.
#[derive(PartialEq)]
pub struct SourceRow(BTreeMap<String, Option<String>>);

impl SourceRow {
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// Empty where NULL.
    pub fn text(&self, column: &str) -> &str {
        self.get(column).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// A zone-less time of the hospital, in milliseconds since the epoch.
    pub fn at_ms(&self, column: &str) -> Option<i64> {
        let local: DateTime = self.get(column)?.parse().ok()?;
        let zoned = local.to_zoned(TimeZone::get(ZONE).ok()?).ok()?;
        Some(zoned.timestamp().as_millisecond())
    }
}

/// One hospital's six tables and what its devices sent.
pub struct Hospital {
    pub site: Site,
    pub patients: Vec<SourceRow>,
    pub encounters: Vec<SourceRow>,
    pub diagnoses: Vec<SourceRow>,
    /// Possible ones only.
    pub vital_signs: Vec<SourceRow>,
    /// Rows the product must reject.
    pub impossible: Vec<SourceRow>,
    pub facilities: Vec<SourceRow>,
    pub users: Vec<SourceRow>,
    pub sent: Vec<Sent>,
    /// Clinical rows inserted since the load, by table and patient, deleted ones too.
    pub inserted: Inserted,
}

impl Hospital {
    pub fn read(site: &Site, sent: Vec<Sent>, inserted: Inserted) -> Result<Self> {
        let opts = Opts::from_url(&site.url).with_context(|| format!("the address of {}", site.service))?;
        let mut conn = Conn::new(opts).with_context(|| format!("connecting to {}", site.service))?;
        let mut table = |name: &str| -> Result<Vec<SourceRow>> {
            let rows: Vec<mysql::Row> = conn.query(format!("SELECT * FROM {name}"))?;
            Ok(rows.into_iter().map(source_row).collect())
        };
        let (impossible, vital_signs) =
            table("clinical_data.vital_signs")?.into_iter().partition(is_impossible);
        Ok(Self {
            site: site.clone(),
            patients: table("clinical_data.patients")?,
            encounters: table("clinical_data.encounters")?,
            diagnoses: table("clinical_data.diagnoses")?,
            vital_signs,
            impossible,
            facilities: table("business_operations.facilities")?,
            users: table("identity_management.users")?,
            sent,
            inserted,
        })
    }

    /// The id of the resource made of a row.
    pub fn id(&self, table: &str, row: &str) -> String {
        crate::ids::row(self.site.tenant, self.site.source, table, row, None)
    }

    pub fn patient_id(&self, row: &str) -> String {
        self.id("clinical_data.patients", row)
    }

    /// Readings of devices that someone wore, each once however often it was sent.
    pub fn readings(&self) -> BTreeMap<(String, i64), &Reading> {
        let worn = self.sent.iter().filter_map(|sent| match sent {
            Sent::Reading(reading) if reading.patient.is_some() => Some(reading),
            _ => None,
        });
        worn.map(|reading| ((reading.device.clone(), reading.at_ms), reading)).collect()
    }
}

/// The limits of the data-quality rules that the simulator oversteps on purpose.
fn is_impossible(row: &SourceRow) -> bool {
    row.get("heart_rate")
        .and_then(|text| text.parse::<i32>().ok())
        .is_some_and(|rate| !(10..=350).contains(&rate))
}

fn source_row(row: mysql::Row) -> SourceRow {
    let columns: Vec<String> =
        row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
    let values = row.unwrap().into_iter().map(|value| match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    });
    SourceRow(columns.into_iter().zip(values).collect())
}
