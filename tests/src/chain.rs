//! The Kafka-to-Kafka processors with the repository's shapes, built as the binary builds them, and joined in
//! process: what one emits, the next is given.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use alert_emergency::AlertEmergency;
use enrich::{Enrich, Snapshots};
use fhirehose_codec::AvroEncoder;
use fhirehose_mapping::{Mappings, Source, Vendor, Zone};
use fhirehose_stream::{Assigned, Batch, Outputs, Processor, TopicPartition};
use fhirehose_testkit::{examples, root, schema_id, schemas, topics};
use invalidate_cache::{InvalidateCache, Rules};
use normalize_cdc::NormalizeCdc;
use normalize_device::NormalizeDevice;

pub const TENANT: &str = "khartoum-teaching";

/// Names as in the one table of processors; those that write to Kafka.
pub const PROCESSORS: [&str; 5] =
    ["normalize-cdc", "normalize-device", "alert-emergency", "enrich", "invalidate-cache"];

fn zone() -> Zone {
    Zone::named("Africa/Khartoum").unwrap()
}

fn mappings() -> Arc<Mappings> {
    static MAPPINGS: OnceLock<Arc<Mappings>> = OnceLock::new();
    let load = || Mappings::load(&root(), topics()).map_err(|problems| format!("{problems:?}")).unwrap();
    MAPPINGS.get_or_init(|| Arc::new(load())).clone()
}

/// A fresh processor that owns partition 0 of everything it reads and has read the tables of the examples.
pub fn processor(name: &str, facilities: &[(&str, &str)]) -> Box<dyn Processor> {
    let vendors = ["ava4", "kati"].map(|name| Vendor { name: name.into(), zone: zone() });
    let id = &schema_id;
    let mut made: Box<dyn Processor> = match name {
        "normalize-cdc" => {
            let source = Source {
                name: "hospital_a".into(),
                tenant: TENANT.into(),
                zone: zone(),
                facility_tenants: facilities
                    .iter()
                    .map(|(id, tenant)| ((*id).to_owned(), (*tenant).into()))
                    .collect(),
            };
            Box::new(NormalizeCdc::new(mappings(), topics(), [source], schemas(), id).unwrap())
        }
        "normalize-device" => {
            Box::new(NormalizeDevice::new(mappings(), topics(), vendors, schemas(), id).unwrap())
        }
        "alert-emergency" => {
            Box::new(AlertEmergency::new(mappings(), topics(), vendors, schemas(), id).unwrap())
        }
        "enrich" => {
            let snapshots = Snapshots::load(&root()).unwrap();
            Box::new(Enrich::new(topics(), snapshots, schemas(), id, None).unwrap())
        }
        "invalidate-cache" => {
            let rules = Rules::load(&root(), topics()).map_err(|problems| format!("{problems:?}")).unwrap();
            let schema = topics().schema(invalidate_cache::OUTPUT).unwrap();
            let encoder = AvroEncoder::new(schema, schema_id(&schema.subject).unwrap()).unwrap();
            let tenants = HashMap::from([("hospital_a".into(), TENANT.into())]);
            Box::new(InvalidateCache::new(Arc::new(rules), tenants, schemas(), Arc::new(encoder)))
        }
        other => panic!("no processor {other}"),
    };
    let owned = |topic: &str| Assigned {
        at: TopicPartition { topic: topic.into(), partition: 0 },
        next_offset: 0,
        metadata: None,
    };
    if name == "normalize-device" || name == "alert-emergency" {
        let mut assignments = Batch::default();
        examples("device.assignment").iter().for_each(|example| example.push(&mut assignments));
        assignments.iter().for_each(|record| made.table(record).unwrap());
        made.assigned(&[owned("device.ava4"), owned("device.kati")]).unwrap();
    }
    if name == "enrich" {
        let fhir = topics().iter().filter(|topic| topic.name.starts_with("fhir."));
        made.assigned(&fhir.map(|topic| owned(&topic.name)).collect::<Vec<_>>()).unwrap();
    }
    made
}

/// Outputs as the records a consumer of these topics gets, in the order they were written.
pub fn consumed(out: &Outputs, topic_prefix: &str, batch: &mut Batch) {
    for output in out.iter().filter(|output| output.topic().starts_with(topic_prefix)) {
        let headers = output.headers().map(|(name, value)| (name, Some(value)));
        let offset = i64::try_from(batch.len()).unwrap();
        let timestamp = output.timestamp_ms().unwrap_or(0);
        batch.push(output.topic(), 0, offset, timestamp, Some(output.key()), output.value(), headers);
    }
}
