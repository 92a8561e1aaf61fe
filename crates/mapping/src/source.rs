use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;

/// A time zone of the IANA database.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) name: Arc<str>,
    pub(crate) zone: TimeZone,
}

/// There is no zone of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{0}`")]
pub struct UnknownZone(pub String);

impl Zone {
    pub fn named(name: &str) -> Result<Zone, UnknownZone> {
        let zone = TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned()))?;
        Ok(Zone { name: name.into(), zone })
    }
}

/// A hospital's database server.
#[derive(Clone, Debug)]
pub struct Source {
    /// As in its topics, `cdc.<name>.<db>.<table>`.
    pub name: Arc<str>,
    /// Tenant of its rows.
    pub tenant: Arc<str>,
    /// Zone of its times without zone.
    pub zone: Zone,
    /// Where one server holds several tenants: tenant by facility id. A row of a mapping with `facility` whose
    /// facility is not here is rejected, unless this is empty.
    pub facility_tenants: BTreeMap<String, Arc<str>>,
}

/// A device vendor.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// As in its topic, `device.<name>`.
    pub name: Arc<str>,
    /// Zone of its times without zone.
    pub zone: Zone,
}
