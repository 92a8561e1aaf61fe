use std::sync::Arc;

use fhirehose_mapping::{Mappings, Problem, Vendor, Zone};
use fhirehose_stream::{Batch, Processor, Reason, Verdict};
use fhirehose_testkit::{
    canaries, examples, examples_of, keys, root, run, schema_id, schemas, shown, topics,
};

use crate::AlertEmergency;

fn processor() -> AlertEmergency {
    let told = |problems: Vec<Problem>| problems.iter().map(|p| format!("{p}\n")).collect::<String>();
    let mappings = Arc::new(Mappings::load(&root(), topics()).map_err(told).unwrap());
    let zone = Zone::named("Africa/Khartoum").unwrap();
    let vendors = ["ava4", "kati"].map(|name| Vendor { name: name.into(), zone: zone.clone() });
    AlertEmergency::new(mappings, topics(), vendors, schemas(), &schema_id).unwrap()
}

fn assign(processor: &mut AlertEmergency) {
    let mut batch = Batch::default();
    examples("device.assignment").iter().for_each(|example| example.push(&mut batch));
    batch.iter().for_each(|record| processor.table(record).unwrap());
}

#[test]
fn every_emergency_becomes_an_alert_and_nothing_else_does() {
    let (mut alerts, mut others) = (Vec::new(), 0);
    for example in examples_of("device.ava4").into_iter().chain(examples_of("device.kati")) {
        let mut processor = processor();
        assign(&mut processor);
        match run(&mut processor, &example) {
            (Verdict::Emit(1), out) => {
                insta::assert_snapshot!(
                    format!("{}.{}", example.logical_topic, example.name),
                    shown(&Verdict::Emit(1), &out)
                );
                alerts.push(example.name);
            }
            (verdict, out) => {
                assert_eq!((verdict, out.len()), (Verdict::Drop(Reason::NotRelevant), 0), "{}", example.name);
                others += 1;
            }
        }
    }
    assert_eq!(alerts, ["fall", "sos"]);
    assert!(others > 5);
}

#[test]
fn an_alert_of_an_unassigned_device_waits_for_nobody() {
    let sos = examples("device.kati").into_iter().find(|example| example.name == "sos").unwrap();
    let (verdict, out) = run(&mut processor(), &sos);
    assert_eq!(verdict, Verdict::Emit(1));
    assert!(keys(&out, false)[0].contains("/sos/"), "{:?}", keys(&out, false));
    assert!(!shown(&verdict, &out).contains("patient_id"));
}

#[test]
fn what_normalize_device_rejects_is_not_rejected_twice() {
    for example in examples("bad").into_iter().filter(|example| example.logical_topic.starts_with("device."))
    {
        let (verdict, out) = run(&mut processor(), &example);
        assert_eq!((verdict, out.len()), (Verdict::Drop(Reason::NotRelevant), 0), "{}", example.name);
    }
}

#[test]
fn bytes_that_might_be_an_emergency_are_not_dropped() {
    let (mut batch, mut out) = (Batch::default(), fhirehose_stream::Outputs::default());
    let name = canaries().swap_remove(0);
    let broken = format!("{{\"status\":\"SOS\",\"name\":\"{name}\"");
    for value in [Some(broken.as_bytes()), Some(b"\xff\xfe"), None] {
        batch.push(&"device.kati".into(), 0, 0, 0, None, value, std::iter::empty());
    }
    let verdicts = processor().process(&batch, &mut out).unwrap();
    let reasons = verdicts.as_slice().iter().map(|verdict| match verdict {
        Verdict::Reject(rejection) => {
            assert!(!format!("{rejection:?}").contains(&name));
            rejection.reason
        }
        other => panic!("{other:?}"),
    });
    let reasons = reasons.collect::<Vec<_>>();
    assert_eq!(reasons, [Reason::MalformedJson, Reason::MalformedJson, Reason::MissingValue]);
}
