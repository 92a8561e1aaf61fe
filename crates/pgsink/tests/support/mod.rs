//! A database of its own for each test, on the PostgreSQL of the stack; dropped when the test ends.

use std::path::PathBuf;

use fhirehose_pgsink::Connector;
use fhirehose_pgsink::postgres::Client;

pub struct TestDatabase {
    admin: String,
    name: String,
    pub url: String,
}

impl TestDatabase {
    /// Creates a database on the server of `FHIREHOSE__POSTGRES__URL`.
    pub fn create(name: &str) -> TestDatabase {
        let admin = std::env::var("FHIREHOSE__POSTGRES__URL").expect(
            "FHIREHOSE__POSTGRES__URL is not set: start the stack (`cargo xtask stack up`) and export .stack/env",
        );
        TestDatabase::create_on(&admin, name)
    }

    /// Creates `t_<name>_<pid>` on the server of that URL.
    pub fn create_on(admin: &str, name: &str) -> TestDatabase {
        let name = format!("t_{name}_{}", std::process::id());
        let mut client = Connector::new(admin, "test").unwrap().connect().unwrap();
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let (server, query) = admin.split_once('?').map_or((admin, ""), |(url, query)| (url, query));
        let (server, _) = server.rsplit_once('/').expect("the URL names a database");
        let mark = if query.is_empty() { "" } else { "?" };
        TestDatabase { url: format!("{server}/{name}{mark}{query}"), admin: admin.to_owned(), name }
    }

    pub fn connect(&self) -> Client {
        Connector::new(&self.url, "test").unwrap().connect().unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Ok(mut client) = Connector::new(&self.admin, "test").and_then(|connector| connector.connect())
        {
            let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// The repository's root.
#[allow(dead_code, reason = "not every test that includes this file needs it")]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
