/// The parts of a change topic's name, `cdc.<source>.<db>.<table>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CdcName<'n> {
    pub source: &'n str,
    pub db: &'n str,
    pub table: &'n str,
}

/// Splits the name of a change topic. `None` for every other topic, also for Debezium's own beside them,
/// such as `cdc.<source>.transaction`.
pub fn cdc_name(physical: &str) -> Option<CdcName<'_>> {
    let mut parts = physical.strip_prefix("cdc.")?.splitn(3, '.');
    let (source, db, table) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = ![source, db, table].iter().any(|part| part.is_empty());
    whole.then_some(CdcName { source, db, table })
}

/// The version that orders every write of one key in every store: topic epoch (7 bits), offset (48 bits),
/// `seq` (8 bits). Records of one key sit in one partition, so it rises with every record of the key.
pub fn version(epoch: u8, offset: i64, seq: u8) -> i64 {
    (i64::from(epoch & 0x7f) << 56) | ((offset & 0xffff_ffff_ffff) << 8) | i64::from(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_topics_split_and_others_do_not() {
        let name = cdc_name("cdc.hospital_a.clinical_data.patients").unwrap();
        assert_eq!((name.source, name.db, name.table), ("hospital_a", "clinical_data", "patients"));
        for other in ["cdc.hospital_a.transaction", "cdc.hospital_a", "cdc...x", "fhir.patient", "cdc.a.b."] {
            assert_eq!(cdc_name(other), None, "{other}");
        }
    }

    #[test]
    fn versions_order_by_epoch_then_offset_then_seq() {
        let order =
            [version(1, 0, 0), version(1, 0, 1), version(1, 1, 0), version(1, 1 << 40, 3), version(2, 0, 0)];
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
        assert!(version(127, (1 << 48) - 1, 255) > 0);
    }
}
