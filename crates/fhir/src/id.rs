//! Resource ids: the same row or reading has the same id on every replay, in every process.

use smallvec::SmallVec;
use uuid::Uuid;

/// The namespace of every id. Changing it changes every id ever written.
pub const NAMESPACE: Uuid = Uuid::from_u128(0xa3ce_2a89_8f54_478c_b4c2_18f4_7fc4_0f0b);

/// The logical id of the resource made of one row or reading: UUIDv5 over
/// `tenant/source/table/key…[/discriminator]`, each part percent-encoded (RFC 3986 unreserved characters stay).
///
/// `source` is the configured source or the device vendor, `table_or_device` is `db.table` or `device`,
/// `discriminator` tells apart the resources made of one row (a LOINC code, `<LOINC>/<epoch ms>`).
pub fn id(
    tenant: &str,
    source: &str,
    table_or_device: &str,
    key_parts: &[&str],
    discriminator: Option<&str>,
) -> Uuid {
    let parts = [tenant, source, table_or_device].into_iter().chain(key_parts.iter().copied());
    id_of(&id_name(parts.chain(discriminator)))
}

/// The name that an [`id`] is made of, from its parts in order.
pub fn id_name<'p>(parts: impl Iterator<Item = &'p str>) -> IdName {
    let mut name = IdName::new();
    for part in parts {
        if !name.is_empty() {
            name.push(b'/');
        }
        percent_encode(part, &mut name);
    }
    name
}

/// The [`id`] of a name.
pub fn id_of(name: &IdName) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name)
}

/// The parts of an id, percent-encoded, with `/` between them.
pub type IdName = SmallVec<[u8; 256]>;

/// Bytes that stay as they are (RFC 3986, 2.3).
const UNRESERVED: [bool; 256] = {
    let mut unreserved = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let letter = byte as u8;
        unreserved[byte] = letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    unreserved
};

fn percent_encode(part: &str, out: &mut IdName) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = part.as_bytes();
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| !UNRESERVED[usize::from(*byte)]).unwrap_or(rest.len());
        let (as_is, others) = rest.split_at(plain);
        out.extend_from_slice(as_is);
        let Some((&byte, after)) = others.split_first() else { return };
        out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9562, appendix A.4.
    #[test]
    fn uuid_v5_is_the_rfcs() {
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"www.example.com");
        assert_eq!(uuid.to_string(), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }

    /// Pinned: if this fails, every id in every store would change.
    #[test]
    fn ids_never_change() {
        let name = b"khartoum-teaching/hospital_a/clinical_data.vital_signs/42/8867-4";
        let expected = Uuid::new_v5(&NAMESPACE, name);
        let made =
            id("khartoum-teaching", "hospital_a", "clinical_data.vital_signs", &["42"], Some("8867-4"));
        assert_eq!(made, expected);
        assert_eq!(made.to_string(), "f5bdad98-12c6-556f-9a54-a540bd577ae9");
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        let ids = [
            id("t", "s", "db.x", &["a/b"], None),
            id("t", "s", "db.x", &["a", "b"], None),
            id("t", "s", "db.x", &["a%2Fb"], None),
            id("t/s", "db.x", "a", &["b"], None),
            id("other", "s", "db.x", &["a", "b"], None),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }
}
