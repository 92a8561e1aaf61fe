//! Servers that are down: the product waits, loses nothing, dead-letters nothing, and the rest flows.

use fhirehose_demo::ids;
use mysql::prelude::Queryable;
use postgres::NoTls;

use crate::end_to_end::World;
use crate::fleet::{Process, all_ready, eventually, stack};

/// Dead letters of all processors.
fn letters(world: &World) -> i64 {
    world.kafka.end_of(|name| name.ends_with(".dlq"))
}

fn facility(world: &World, number: u32) -> String {
    let id = format!("0b000000-0000-4000-8000-0000000000{number:02}");
    let mut source = mysql::Conn::new(mysql::Opts::from_url(&world.stack.sites[0].url).unwrap()).unwrap();
    let sql = format!(
        "INSERT INTO business_operations.facilities
           (id, facility_code, facility_name, facility_type, address_line1, city, state, phone)
         VALUES ('{id}', 'OUT-{number}', 'Outage {number}', 'clinic', 'Nile Avenue', 'Khartoum', 'Khartoum', '+249 0')"
    );
    source.query_drop(sql).unwrap();
    let site = &world.stack.sites[0];
    format!(
        "{}/{}",
        site.tenant,
        ids::row(site.tenant, site.source, "business_operations.facilities", &id, None)
    )
}

fn emitted(world: &World, key: &str) -> bool {
    world.kafka.read("fhir.organization").iter().any(|record| record.key() == key)
}

fn stored(world: &World, key: &str) -> bool {
    let (tenant, id) = key.split_once('/').unwrap();
    let sql =
        format!("SELECT 1 FROM dim.facility_dimension WHERE tenant_id = '{tenant}' AND facility_id = '{id}'");
    let client = postgres::Client::connect(&world.stack.postgres, NoTls);
    client.is_ok_and(|mut client| !client.query(&sql, &[]).unwrap().is_empty())
}

/// No schema can be asked for: no row in Avro can be read, and the product neither ends nor dead-letters it.
pub fn registry(world: &World, product: &mut Process) {
    let before = letters(world);
    product.stop();
    stack(&["kill", "registry"]);
    product.start_again();
    let key = facility(world, 1);
    std::thread::sleep(std::time::Duration::from_secs(8));
    product.still_runs();
    assert!(!product.ready(), "it cannot be ready without schemas");
    assert!(!emitted(world, &key));
    stack(&["up", "registry"]);
    all_ready(std::slice::from_mut(product));
    eventually("the row that waited is in the warehouse", 60, || stored(world, &key));
    assert_eq!(letters(world), before, "an outage is nobody's fault");
}

/// What needs the database waits for it; what does not, flows.
pub fn database(world: &World, product: &mut Process) {
    let before = letters(world);
    stack(&["kill", "postgres"]);
    let key = facility(world, 2);
    eventually("what needs no database flows", 30, || emitted(world, &key));
    std::thread::sleep(std::time::Duration::from_secs(3));
    product.still_runs();
    assert!(product.get("/livez").is_some(), "waiting is not dying");
    stack(&["up", "postgres"]);
    eventually("what waited is in the database", 90, || stored(world, &key));
    assert_eq!(letters(world), before, "an outage is nobody's fault");
    all_ready(std::slice::from_mut(product));
}
