//! `enrich`: resources in, flat records with values of what they refer to out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::resources::{ENCOUNTER, OBSERVATION, PATIENT, Resources};
use super::session::{Driven, Ends, Refusals, Seen, Session};
use crate::flow::{Flow, Live, Run, Target};
use crate::ledger::accounts::digest;
use crate::ledger::avro::{Decoder, Fields, text};
use crate::ledger::references::{Copied, Emission, Fact, Facts, History, References, compare};
use crate::ledger::topics::{Record, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const INPUTS: [&str; 3] = [PATIENT, ENCOUNTER, OBSERVATION];

pub struct Enrich;

impl Flow for Enrich {
    fn name(&self) -> &'static str {
        "enrich"
    }

    fn target(&self) -> Target {
        Target::Kafka
    }

    /// Few targets are written, so only observations are sure to come in every partition.
    fn inputs(&self) -> Vec<String> {
        vec![OBSERVATION.to_owned()]
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let mut subscribed = Topics::connect(world)?.names()?;
        subscribed.retain(|name| name.starts_with("fhir.") && !name.ends_with(".dlq"));
        let enriched = INPUTS.map(|input| input.replace("fhir.", "enriched."));
        let letters = INPUTS.map(|input| format!("{input}.enrich.dlq"));
        let ends = Ends {
            group: self.name(),
            subscribed,
            inputs: INPUTS.map(str::to_owned).to_vec(),
            tables: Vec::new(),
            changelog: Some("enrich.pending"),
            outputs: enriched.into_iter().chain(letters).collect(),
        };
        let source = Resources::new(&world.registry, run)?;
        let tenant = format!("{}/", run.tag);
        Driven::open(world, run, self.inputs(), ends, source, move |session| check(session, &tenant))
    }
}

/// `tenant` is what keys of this run begin with.
fn check(session: &Session, tenant: &str) -> Result<Vec<Violation>> {
    let mut breaches = Breaches::default();
    let mut refusals = Refusals::default();
    let (mut facts, mut targets) = (BTreeMap::new(), History::default());
    let mut decoder = session.decoder();
    session.read_inputs(&mut breaches, |topic, seen| {
        if seen.record.key.starts_with(tenant) && !take(&mut decoder, topic, &seen, &mut facts, &mut targets)
        {
            refusals.expect(topic, &seen.record);
        }
    })?;
    let mut emissions: BTreeMap<String, Vec<Emission>> = BTreeMap::new();
    session.read_outputs(&mut breaches, |topic, record, breaches| {
        if topic.ends_with(".dlq") {
            refusals.found(topic, &record, breaches);
        } else if record.key.starts_with(tenant) {
            match emission(&mut decoder, &record) {
                Ok(emission) => {
                    emissions.entry(format!("{topic} {}", record.key)).or_default().push(emission)
                }
                Err(_) => {
                    let place = format!("{topic} {} at [{}] {}", record.key, record.partition, record.offset);
                    breaches.add(Invariant::I6, "output that cannot be read", place);
                }
            }
        }
    })?;
    refusals.check(&mut breaches);
    let keys: BTreeSet<&String> = facts.keys().chain(emissions.keys()).collect();
    for key in keys {
        let none = (Facts::default(), Vec::new());
        let facts = facts.get(key).unwrap_or(&none.0);
        compare(key, facts, emissions.get(key).unwrap_or(&none.1), &targets, &mut breaches);
    }
    Ok(breaches.into_vec())
}

/// Takes an input as a fact and, unless it is an observation, as a target; false where it must be refused.
fn take(
    decoder: &mut Decoder,
    topic: &str,
    Seen { record, aborted }: &Seen,
    facts: &mut BTreeMap<String, Facts>,
    targets: &mut History,
) -> bool {
    let key = format!("{} {}", topic.replace("fhir.", "enriched."), record.key);
    let of_key = facts.entry(key).or_default();
    if *aborted {
        of_key.aborted.insert(record.offset);
    }
    let at = (record.partition, record.offset);
    let Some(value) = &record.value else {
        if !aborted {
            of_key.versions.push(Fact { at, content: None, references: References::default() });
        }
        return true;
    };
    let Ok((fields, resource)) = read(decoder, value) else { return *aborted };
    let (_, id) = record.key.split_once('/').unwrap_or_default();
    let told = match topic {
        PATIENT => Some((format!("Patient/{id}"), resource["name"][0]["family"].as_str())),
        ENCOUNTER => Some((format!("Encounter/{id}"), resource["class"]["code"].as_str())),
        _ => None,
    };
    if let Some((name, Some(version))) = told {
        targets.add(&name, version, *aborted);
    }
    if !aborted {
        let reference = |name: &str| resource[name]["reference"].as_str().map(str::to_owned);
        let references = [reference("subject"), reference("encounter")];
        of_key.versions.push(Fact { at, content: Some(content(&fields)), references });
    }
    true
}

fn read(decoder: &mut Decoder, value: &[u8]) -> Result<(Fields, Value)> {
    let fields = decoder.fields(value)?;
    let resource = serde_json::from_str(text(&fields, "resource"))?;
    Ok((fields, resource))
}

/// What is the same in a record and in its enriched one.
fn content(fields: &Fields) -> u64 {
    digest(["id", "version_id", "last_updated", "source", "resource"].map(|name| fields.get(name)))
}

fn emission(decoder: &mut Decoder, record: &Record) -> Result<Emission> {
    let version = record.header("fhirehose-version").context("no version")?.parse()?;
    let at = (record.partition, record.offset);
    let Some(value) = &record.value else {
        return Ok(Emission { at, version, content: None, copied: Default::default() });
    };
    let fields = decoder.fields(value)?;
    anyhow::ensure!(text(&fields, "version") == version.to_string(), "two versions");
    let copied = |name: &str, of: &str| Copied {
        resolved: text(&fields, &format!("{name}_resolved")) == "true",
        // A name is the given one and the family, where the version stands.
        version: fields.get(&format!("{name}_{of}")).map(|value| value.trim_start_matches("P ").to_owned()),
    };
    let copied = [copied("subject", "name"), copied("encounter", "class_code")];
    Ok(Emission { at, version, content: Some(content(&fields)), copied })
}
