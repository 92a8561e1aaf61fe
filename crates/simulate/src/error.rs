use std::io;

/// What can go wrong while simulating. Database messages quote row values, so only their codes are kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("hospital database: server error {code} (SQLSTATE {state}) while {doing}")]
    Refused { code: u16, state: String, doing: &'static str },
    #[error("hospital database: {kind} while {doing}; is the server up and the address right?")]
    Unreachable { kind: String, doing: &'static str },
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("calendar: {0}")]
    Time(#[from] jiff::Error),
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Says what was being done when the database failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, mysql::Error> {
    fn doing(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|error| match error {
            mysql::Error::MySqlError(e) => Error::Refused { code: e.code, state: e.state, doing: what },
            mysql::Error::IoError(e) => Error::Unreachable { kind: e.kind().to_string(), doing: what },
            mysql::Error::DriverError(e) => Error::Unreachable { kind: e.to_string(), doing: what },
            _ => Error::Unreachable { kind: "protocol error".into(), doing: what },
        })
    }
}
