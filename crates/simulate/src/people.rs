//! Synthetic people and places: names from fixed lists, numbers from the seed, addresses of real towns with
//! invented streets. Nothing here belongs to anyone.

use jiff::civil::Date;
use jiff::{Span, ToSpan};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::Error;

/// Given names by sex. Sudanese people carry their own, their father's and their grandfather's given name.
const MEN: &[&str] = &[
    "Ahmed",
    "Mohamed",
    "Osman",
    "Ibrahim",
    "Abdalla",
    "Hassan",
    "Hussein",
    "Idris",
    "Khalid",
    "Omer",
    "Yousif",
    "Mustafa",
    "Salah",
    "Tariq",
    "Bakri",
    "Elfatih",
    "Haidar",
    "Mubarak",
    "Nasreldin",
    "Siddig",
    "Abdelrahman",
    "Babiker",
    "Elsadig",
    "Gamal",
    "Isam",
    "Kamal",
    "Mutasim",
    "Taha",
    "Awad",
    "Yasir",
];
const WOMEN: &[&str] = &[
    "Fatima", "Amna", "Aisha", "Mariam", "Zeinab", "Hawa", "Nafisa", "Safia", "Sumaya", "Rasha", "Hanan",
    "Ikhlas", "Nagla", "Omayma", "Samia", "Widad", "Asma", "Buthaina", "Duaa", "Eman", "Halima", "Khadija",
    "Limia", "Manal", "Rihab", "Salma", "Tahani", "Wafaa", "Yusra", "Nahid",
];
/// Visitors and staff from elsewhere; several need more than ASCII.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("Zoë", "van der Berg", "Dutch"),
    ("José", "Núñez", "Spanish"),
    ("François", "Lefèvre", "French"),
    ("Søren", "Ångström", "Danish"),
    ("Nguyễn", "Thị Hạnh", "Vietnamese"),
    ("Grace", "O'Brien-Achieng", "English"),
    ("Tesfaye", "Bekele", "Amharic"),
    ("Deng", "Majok", "Dinka"),
    ("محمد", "الأمين", "Arabic"),
    ("王", "秀英", "Chinese"),
];
/// Town, state, postal code.
const TOWNS: &[(&str, &str, &str)] = &[
    ("Khartoum", "Khartoum", "11111"),
    ("Omdurman", "Khartoum", "14411"),
    ("Khartoum North", "Khartoum", "13311"),
    ("Wad Madani", "Gezira", "21111"),
    ("Port Sudan", "Red Sea", "33311"),
    ("Kassala", "Kassala", "31111"),
    ("El Obeid", "North Kordofan", "51111"),
    ("Atbara", "River Nile", "46611"),
    ("Gedaref", "Gedaref", "32211"),
    ("Kosti", "White Nile", "27711"),
    ("Dongola", "Northern", "41111"),
    ("Nyala", "South Darfur", "63311"),
];
const STREETS: &[&str] = &[
    "Nile Avenue",
    "Palm Street",
    "Market Road",
    "Station Road",
    "Garden Street",
    "Acacia Street",
    "Mosque Street",
];

/// Administrative sex as the source's enum spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sex {
    Male,
    Female,
}

impl Sex {
    pub fn random(rng: &mut impl Rng) -> Self {
        if rng.random_bool(0.5) { Self::Male } else { Self::Female }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Male => "male",
            Self::Female => "female",
        }
    }
}

pub struct Name {
    pub first: String,
    pub middle: Option<String>,
    pub last: String,
    pub language: &'static str,
}

pub fn name(rng: &mut impl Rng, sex: Sex) -> Name {
    if rng.random_bool(0.06) {
        let (first, last, language) = *pick(rng, FOREIGN);
        return Name { first: first.into(), middle: None, last: last.into(), language };
    }
    let own = match sex {
        Sex::Male => MEN,
        Sex::Female => WOMEN,
    };
    Name {
        first: (*pick(rng, own)).into(),
        middle: rng.random_bool(0.9).then(|| (*pick(rng, MEN)).into()),
        last: (*pick(rng, MEN)).into(),
        language: if rng.random_bool(0.9) { "Arabic" } else { "English" },
    }
}

pub struct Address {
    pub line1: String,
    pub line2: Option<String>,
    pub city: &'static str,
    pub state: &'static str,
    pub postal_code: &'static str,
}

pub fn address(rng: &mut impl Rng) -> Address {
    let (city, state, postal_code) = *pick(rng, TOWNS);
    Address {
        line1: format!("House {}, {}", rng.random_range(1..400), pick(rng, STREETS)),
        line2: rng.random_bool(0.4).then(|| format!("Block {}", rng.random_range(1..30))),
        city,
        state,
        postal_code,
    }
}

/// In a block no operator hands out.
pub fn phone(rng: &mut impl Rng) -> String {
    format!("+2499000{:05}", rng.random_range(0..100_000))
}

pub fn national_id(rng: &mut impl Rng) -> String {
    format!("99{:09}", rng.random_range(0..1_000_000_000_u32))
}

/// A national provider identifier: ten digits, the last one the Luhn check digit of `80840` and the rest.
pub fn npi(rng: &mut impl Rng) -> String {
    let body = format!("1{:08}", rng.random_range(0..100_000_000_u32));
    let check = luhn_digit(&format!("80840{body}"));
    format!("{body}{check}")
}

/// A 15-digit IMEI with a right check digit.
pub fn imei(rng: &mut impl Rng) -> String {
    let body = format!("3593350{:07}", rng.random_range(0..10_000_000_u32));
    let check = luhn_digit(&body);
    format!("{body}{check}")
}

/// A locally administered MAC address, upper-case hex without separators.
pub fn mac(rng: &mut impl Rng) -> String {
    format!("02{:02X}{:08X}", rng.random_range(0..256_u32), rng.random::<u32>())
}

/// The digit that makes `digits` followed by it pass the Luhn test.
fn luhn_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
        })
        .sum();
    (10 - sum % 10) % 10
}

/// A birth date that makes someone between `youngest` and `oldest` years old on `today`, the young more
/// often than the old, as in Sudan.
pub fn birth_date(rng: &mut impl Rng, today: Date, youngest: i32, oldest: i32) -> Result<Date, Error> {
    let skew = rng.random::<f64>() * rng.random::<f64>();
    let years = f64::from(youngest) + skew * f64::from(oldest - youngest);
    let days: Span = ((years * 365.25) as i64).days();
    Ok(today.checked_sub(days)?)
}

pub fn pick<'a, T>(rng: &mut impl Rng, from: &'a [T]) -> &'a T {
    // Every list passed here is a non-empty constant, or was checked by the caller.
    from.choose(rng).unwrap_or(&from[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn check_digits_are_right() {
        // Published examples: NPI 1234567893 and IMEI 490154203237518.
        assert_eq!(luhn_digit("80840123456789"), 3);
        assert_eq!(luhn_digit("49015420323751"), 8);
    }

    #[test]
    fn ages_stay_in_range() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let today = jiff::civil::date(2026, 3, 1);
        for _ in 0..1000 {
            let birth = birth_date(&mut rng, today, 1, 95).unwrap();
            assert!(
                birth < jiff::civil::date(2025, 3, 3) && birth > jiff::civil::date(1931, 2, 1),
                "{birth}"
            );
        }
    }
}
