//! Codes are checked, not trusted: check digits, shapes, and the units a LOINC code may carry.

/// System of LOINC codes.
pub const LOINC: &str = "http://loinc.org";
/// System of SNOMED CT codes.
pub const SNOMED: &str = "http://snomed.info/sct";
/// System of UCUM units.
pub const UCUM: &str = "http://unitsofmeasure.org";
/// System of identifiers that are URIs.
pub const URI: &str = "urn:ietf:rfc:3986";
/// System of US national provider identifiers.
pub const NPI: &str = "http://hl7.org/fhir/sid/us-npi";
/// System of ICD-10-CM codes.
pub const ICD_10_CM: &str = "http://hl7.org/fhir/sid/icd-10-cm";

/// What is wrong with a code. The code itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not of the shape the system's codes have.
    #[error("not the shape of a code of this system")]
    Shape,
    /// The check digit is wrong: the code was mistyped or made up.
    #[error("wrong check digit")]
    CheckDigit,
}

/// Checks a code of a system that has check digits (LOINC, SNOMED CT); codes of any other system pass.
pub fn check_code(system: &str, code: &str) -> Result<(), CodeError> {
    match system {
        LOINC => loinc(code),
        SNOMED => snomed(code),
        _ => Ok(()),
    }
}

/// A LOINC code: up to seven digits, a dash, a mod-10 check digit. Parts and answers (`LP…-d`, `LA…-d`) are
/// checked for shape only.
pub fn loinc(code: &str) -> Result<(), CodeError> {
    let (body, check) = code.split_once('-').ok_or(CodeError::Shape)?;
    let (answer_or_part, digits) = match body.strip_prefix('L') {
        Some(rest) if rest.starts_with(['A', 'P', 'L', 'G']) => (true, &rest[1..]),
        Some(_) => return Err(CodeError::Shape),
        None => (false, body),
    };
    let shaped = |s: &str, max| !s.is_empty() && s.len() <= max && s.bytes().all(|b| b.is_ascii_digit());
    if !shaped(digits, 7) || !shaped(check, 1) {
        return Err(CodeError::Shape);
    }
    if answer_or_part || luhn_sum(digits.bytes().chain(check.bytes())) % 10 == 0 {
        Ok(())
    } else {
        Err(CodeError::CheckDigit)
    }
}

/// A SNOMED CT identifier: 6 to 18 digits, no leading zero, Verhoeff check digit.
pub fn snomed(code: &str) -> Result<(), CodeError> {
    let digits = code.as_bytes();
    if !(6..=18).contains(&digits.len()) || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return Err(CodeError::Shape);
    }
    if verhoeff(digits) { Ok(()) } else { Err(CodeError::CheckDigit) }
}

/// A US national provider identifier: ten digits, Luhn with the prefix 80840.
pub fn npi(value: &str) -> Result<(), CodeError> {
    if value.len() != 10 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CodeError::Shape);
    }
    if luhn_sum(b"80840".iter().copied().chain(value.bytes())) % 10 == 0 {
        Ok(())
    } else {
        Err(CodeError::CheckDigit)
    }
}

/// The shape of an ICD-10-CM code, `^[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?$`.
pub fn icd_10_cm(code: &str) -> Result<(), CodeError> {
    let alphanumeric = |b: &u8| b.is_ascii_digit() || b.is_ascii_uppercase();
    let shaped = match code.as_bytes() {
        [a, b, c, rest @ ..] if a.is_ascii_uppercase() && b.is_ascii_digit() && alphanumeric(c) => match rest
        {
            [] => true,
            [b'.', tail @ ..] => (1..=4).contains(&tail.len()) && tail.iter().all(alphanumeric),
            _ => false,
        },
        _ => false,
    };
    if shaped { Ok(()) } else { Err(CodeError::Shape) }
}

/// The UCUM codes a reading's LOINC code may carry; `None`: no rule for that code.
pub fn units(loinc: &str) -> Option<&'static [&'static str]> {
    Some(match loinc {
        "8480-6" | "8462-4" | "8478-0" => &["mm[Hg]"],
        "8867-4" | "8889-8" | "9279-1" => &["/min"],
        "2708-6" | "59408-5" | "3150-0" | "61006-3" => &["%"],
        "3151-8" => &["L/min"],
        "8310-5" | "8331-1" | "8332-9" | "8328-7" | "8333-7" | "75539-7" => &["Cel", "[degF]"],
        "29463-7" => &["kg", "g", "[lb_av]"],
        "8302-2" => &["cm", "[in_i]"],
        "39156-5" => &["kg/m2"],
        "72514-3" | "9269-2" => &["{score}"],
        "41653-7" | "3084-1" | "2093-3" => &["mg/dL"],
        "14743-9" | "14647-2" => &["mmol/L"],
        "14933-6" => &["umol/L"],
        "55423-8" | "41950-7" => &["{steps}"],
        "93832-4" | "93831-6" | "93830-8" => &["min", "h"],
        "80404-7" => &["ms"],
        _ => return None,
    })
}

/// Whether a quantity under that LOINC code may carry that UCUM code. True for codes we have no rule for.
pub fn unit_allowed(loinc: &str, ucum: &str) -> bool {
    units(loinc).is_none_or(|allowed| allowed.contains(&ucum))
}

/// Sum of the Luhn algorithm, right to left, every second digit doubled. ASCII digits in.
fn luhn_sum(digits: impl DoubleEndedIterator<Item = u8>) -> u32 {
    digits
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let d = u32::from(b - b'0');
            match (i % 2, d) {
                (0, d) => d,
                (_, d) if d > 4 => 2 * d - 9,
                (_, d) => 2 * d,
            }
        })
        .sum()
}

/// Verhoeff's check over the dihedral group D5. ASCII digits in, check digit last.
fn verhoeff(digits: &[u8]) -> bool {
    const MULTIPLY: [[u8; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const PERMUTE: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    let check =
        digits.iter().rev().enumerate().fold(0u8, |c, (i, b)| {
            MULTIPLY[usize::from(c)][usize::from(PERMUTE[i % 8][usize::from(b - b'0')])]
        });
    check == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loinc_check_digits() {
        for good in
            ["8867-4", "85354-9", "2708-6", "3150-0", "61006-3", "72514-3", "41653-7", "LA6576-8", "LP7839-6"]
        {
            assert_eq!(loinc(good), Ok(()), "{good}");
        }
        // Four codes found in real device software.
        for bad in ["3150-6", "33747-0", "61006-6", "86711-2", "8867-5"] {
            assert_eq!(loinc(bad), Err(CodeError::CheckDigit), "{bad}");
        }
        for bad in
            ["", "-", "8867", "8867-", "8867-44", "12345678-1", "x-1", "5085AAAA", "L-1", "LAA-1", "8867-4 "]
        {
            assert_eq!(loinc(bad), Err(CodeError::Shape), "{bad}");
        }
    }

    #[test]
    fn snomed_check_digits() {
        for good in
            ["24484000", "6736007", "255604002", "33586001", "40199007", "102538003", "1912002", "73211009"]
        {
            assert_eq!(snomed(good), Ok(()), "{good}");
        }
        for bad in ["700615001", "700616000", "24484001", "42484000"] {
            assert_eq!(snomed(bad), Err(CodeError::CheckDigit), "{bad}");
        }
        for bad in ["", "12345", "012345678", "1234567890123456789", "2448400x"] {
            assert_eq!(snomed(bad), Err(CodeError::Shape), "{bad}");
        }
    }

    #[test]
    fn npi_check_digits() {
        assert_eq!(npi("1234567893"), Ok(()));
        assert_eq!(npi("1234567890"), Err(CodeError::CheckDigit));
        assert_eq!(npi("123456789"), Err(CodeError::Shape));
    }

    #[test]
    fn icd_10_cm_shapes() {
        for good in ["I10", "I21.9", "E11.9", "S72.001A", "C7A.00", "Z3A.20"] {
            assert_eq!(icd_10_cm(good), Ok(()), "{good}");
        }
        for bad in ["", "10", "i10", "I1", "I10.", "I10.12345", "I10-1", "II0"] {
            assert_eq!(icd_10_cm(bad), Err(CodeError::Shape), "{bad}");
        }
    }

    #[test]
    fn units_by_code() {
        assert!(unit_allowed("8480-6", "mm[Hg]") && !unit_allowed("8480-6", "mmHg"));
        assert!(unit_allowed("9843-4", "anything"), "no rule for that code");
        assert!(!unit_allowed("8310-5", "C"));
    }
}
