macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal),+ $(,)?) => {
        /// Why a record was dropped, rejected or parked. The label is the same in the dead-letter header, the
        /// metric and the runbook.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason, for docs and metrics.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The snake_case label.
            pub fn label(self) -> &'static str {
                match self { $(Reason::$name => $label),+ }
            }

            /// What it means, for the runbook.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii()),+ }
            }

            /// The reason with that label, as mapping files name it.
            pub fn from_label(label: &str) -> Option<Reason> {
                match label { $($label => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    // Rejects: the record goes to the dead-letter topic.
    /// The value is not JSON, or holds invalid UTF-8.
    MalformedJson = "malformed_json",
    /// The value is not a datum of the schema its header names.
    MalformedAvro = "malformed_avro",
    /// The registry knows no schema of that id.
    UnknownSchema = "unknown_schema",
    /// The record, or what it would become, is larger than the configured maximum.
    TooLarge = "too_large",
    /// JSON nested deeper than 128 levels.
    TooDeep = "too_deep",
    /// The record has no key, or its key lacks a column of the primary key.
    MissingKey = "missing_key",
    /// The record has no value where one is needed.
    MissingValue = "missing_value",
    /// Not a Debezium envelope, or of an operation that cannot be handled.
    MalformedEnvelope = "malformed_envelope",
    /// A row of a table no mapping declares.
    UndeclaredTable = "undeclared_table",
    /// A column the mapping declares is not in the row.
    MissingColumn = "missing_column",
    /// The row has a column the mapping forbids, such as a password hash.
    ForbiddenColumn = "forbidden_column",
    /// A column's value is not of its declared type.
    WrongType = "wrong_type",
    /// The topic's source is not in the configuration.
    UnknownSource = "unknown_source",
    /// The facility has no tenant in the source's facility-to-tenant map.
    UnknownFacility = "unknown_facility",
    /// A value its concept map does not know.
    UnknownCode = "unknown_code",
    /// No device mapping matches the message.
    UnknownMessage = "unknown_message",
    /// A required element came out empty.
    MissingElement = "missing_element",
    /// A value outside the limits of the possible, such as a heart rate of 900.
    ImpossibleValue = "impossible_value",
    /// A time that cannot be: before birth, end before start, not a date.
    InvalidTime = "invalid_time",
    /// What the mapping made is not valid FHIR.
    InvalidFhir = "invalid_fhir",
    /// The store refuses the document or row for what it holds.
    StoreRejected = "store_rejected",
    // Drops: counted, nothing is written.
    /// The tombstone Debezium writes after a delete; the delete itself was handled.
    Tombstone = "tombstone",
    /// A change at or before the partition's source-position high-watermark: Debezium sent it before.
    Redelivered = "redelivered",
    /// A heartbeat or transaction marker.
    Heartbeat = "heartbeat",
    /// Declared, and of no use to this processor.
    NotRelevant = "not_relevant",
    /// Older than the table's retention; its chunk is gone and is not made again.
    PastRetention = "past_retention",
    /// The store already holds this version or a newer one.
    StaleVersion = "stale_version",
    // Parks: kept in the changelog until what is missing arrives.
    /// No patient is assigned to the device at the reading's time.
    UnassignedDevice = "unassigned_device",
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn labels_are_unique_snake_case_and_found_again() {
        for reason in Reason::ALL {
            let label = reason.label();
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
            assert_eq!(Reason::from_label(label), Some(*reason), "{label} names two reasons");
            assert!(reason.meaning().ends_with('.'), "{label}");
        }
    }
}
