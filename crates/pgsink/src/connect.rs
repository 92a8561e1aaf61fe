use std::path::PathBuf;
use std::time::Duration;

use fhirehose_stream::Fault;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres::{CancelToken, Client, Config, Error};
use postgres_openssl::MakeTlsConnector;

use crate::fault;

/// A statement that takes longer is stuck; the batch is tried again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a batch of another instance holds its rows.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// A worker that died without closing its connection loses its locks after this.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens connections to one database. It has no `Debug`: its URL may hold a password.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: MakeTlsConnector,
}

impl Connector {
    /// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`. `sslmode` is libpq's
    /// `disable`, `prefer` (default), `require` (encrypted, any certificate), `verify-ca` or `verify-full`;
    /// with `sslrootcert` only that authority is trusted. Fails, without saying what the URL holds, where it
    /// cannot be read.
    pub fn new(url: &str, application: &str) -> Result<Connector, Fault> {
        let (url, ssl) = split_ssl(url)?;
        let mut config: Config = url.parse().map_err(|_| {
            Fault::fatal("[postgres] url cannot be read: expected postgres://user@host:port/database")
        })?;
        let mode = match ssl.mode.as_deref() {
            Some("disable") => postgres::config::SslMode::Disable,
            None | Some("prefer") => postgres::config::SslMode::Prefer,
            _ => postgres::config::SslMode::Require,
        };
        config
            .ssl_mode(mode)
            .application_name(application)
            .connect_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        Ok(Connector { config, tls: ssl.connector()? })
    }

    /// A new connection with our timeouts set, and `public` as the only search path: a user named as one of our
    /// schemas would otherwise make objects there.
    pub fn connect(&self) -> Result<Client, Fault> {
        let mut client =
            self.config.connect(self.tls.clone()).map_err(|error| fault(&error, "connecting to postgres"))?;
        // Temporary tables have no statistics: the planner takes small batches for large ones, worth compiling.
        let settings = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET timezone = 'UTC'; SET search_path = public; SET jit = off; SET client_min_messages = warning",
            STATEMENT_TIMEOUT.as_millis(),
            LOCK_TIMEOUT.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        );
        client.batch_execute(&settings).map_err(|error| fault(&error, "setting up the connection"))?;
        Ok(client)
    }

    /// Asks the server, on a connection of its own, to end the statement that the token's connection is at.
    pub(crate) fn cancel(&self, token: &CancelToken) -> Result<(), Error> {
        token.cancel_query(self.tls.clone())
    }
}

/// The TLS parameters of a URL, which the driver does not know all of.
#[derive(Default)]
struct Ssl {
    mode: Option<String>,
    root_cert: Option<PathBuf>,
}

impl Ssl {
    fn connector(&self) -> Result<MakeTlsConnector, Fault> {
        let broken = |error: openssl::error::ErrorStack| Fault::fatal(format!("setting up TLS: {error}"));
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken)?;
        if let Some(path) = &self.root_cert {
            builder
                .set_ca_file(path)
                .map_err(|error| Fault::fatal(format!("sslrootcert {}: {error}", path.display())))?;
        }
        let mode = self.mode.as_deref();
        // As libpq: a root certificate turns `require` into `verify-ca`.
        let verify = matches!(mode, Some("verify-ca" | "verify-full"))
            || (mode == Some("require") && self.root_cert.is_some());
        builder.set_verify(if verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        let mut tls = MakeTlsConnector::new(builder.build());
        let check_name = mode == Some("verify-full");
        tls.set_callback(move |configuration, _| {
            configuration.set_verify_hostname(check_name);
            Ok(())
        });
        Ok(tls)
    }
}

/// Takes `sslmode` and `sslrootcert` out of the URL's query.
fn split_ssl(url: &str) -> Result<(String, Ssl), Fault> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.into(), Ssl::default())) };
    let mut ssl = Ssl::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => ssl.mode = Some(mode.into()),
            Some(("sslrootcert", path)) => ssl.root_cert = Some(percent_decode(path).into()),
            _ => rest.push(pair),
        }
    }
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    match &ssl.mode {
        Some(mode) if !MODES.contains(&mode.as_str()) => {
            return Err(Fault::fatal(format!(
                "sslmode in [postgres] url must be one of {}",
                MODES.join(", ")
            )));
        }
        _ => {}
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, ssl))
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_leave_the_url_and_the_rest_stays() {
        let (url, ssl) =
            split_ssl("postgres://u@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/etc/my%20ca.pem")
                .unwrap();
        assert_eq!(url, "postgres://u@h/d?connect_timeout=3");
        assert_eq!(ssl.mode.as_deref(), Some("verify-full"));
        assert_eq!(ssl.root_cert, Some("/etc/my ca.pem".into()));
    }

    #[test]
    fn a_bad_url_is_refused_without_being_quoted() {
        for url in ["postgres://u:secret@h:port/d", "mysql://secret", "postgres://u:secret@h/d?sslmode=maybe"]
        {
            let fault = Connector::new(url, "test").map(|_| ()).expect_err("refused");
            assert!(!fault.what.contains("secret"), "{}", fault.what);
        }
    }

    #[test]
    fn a_missing_root_certificate_is_named() {
        let fault =
            Connector::new("postgres://u@h/d?sslmode=verify-ca&sslrootcert=/nowhere.pem", "test").err();
        assert!(fault.expect("refused").what.contains("/nowhere.pem"));
    }
}
