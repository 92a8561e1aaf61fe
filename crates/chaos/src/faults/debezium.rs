//! Debezium and the hospitals' databases, before the product.

use anyhow::Result;

use super::Field;

pub fn kill(field: &mut Field<'_>) -> Result<()> {
    field.servers.kill("connect")?;
    field.servers.up("connect")
}

pub fn restart(field: &mut Field<'_>) -> Result<()> {
    field.servers.restart("connect")
}

pub fn mariadb(field: &mut Field<'_>) -> Result<()> {
    field.servers.restart(if field.plan.broker == 0 { "hospital-a" } else { "hospital-b" })
}
