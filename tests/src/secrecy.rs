//! Personal values go through the product and are told nowhere beside it: logs, metrics, the status page,
//! record headers, topics' names.

use std::fs;

use fhirehose_testkit::canaries;

use crate::end_to_end::World;
use crate::fleet::Process;

pub fn check(world: &World, processes: &[Process]) {
    let canaries = canaries();
    let assert_silent = |place: &str, text: &str| {
        let told: Vec<_> = canaries.iter().filter(|canary| text.contains(canary.as_str())).collect();
        assert!(told.is_empty(), "{place} tells {told:?}");
    };
    let (mut lines, mut pages, mut headers) = (0, 0, 0);
    for file in fs::read_dir(&world.logs).unwrap() {
        let path = file.unwrap().path();
        let log = fs::read_to_string(&path).unwrap();
        lines += log.lines().count();
        assert_silent(&path.display().to_string(), &log);
    }
    for process in processes {
        for page in ["/", "/metrics", "/admin/status"] {
            let text = process.get(page).unwrap();
            pages += text.len();
            assert_silent(page, &text);
        }
    }
    let ours =
        |name: &String| !name.starts_with("cdc.") && !name.starts_with("device.") || name.ends_with(".dlq");
    for topic in world.kafka.topics().iter().filter(|name| ours(name) && !name.starts_with("__")) {
        for record in world.kafka.read(topic) {
            for (name, value) in &record.headers {
                headers += 1;
                assert_silent(&format!("header {name} of {topic}"), &String::from_utf8_lossy(value));
            }
        }
    }
    assert!(lines > 20 && pages > 5_000 && headers > 500, "{lines} lines, {pages} bytes, {headers} headers");
}
