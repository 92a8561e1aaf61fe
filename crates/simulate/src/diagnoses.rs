//! ICD-10-CM codes seen in Sudanese hospitals, with the classification's own descriptions.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::people::Sex;

pub struct Diagnosis {
    pub code: &'static str,
    pub description: &'static str,
    /// How often it is drawn, relative to the others.
    weight: u32,
    /// Stays active for life once made.
    pub chronic: bool,
    only: Option<Sex>,
    /// Youngest age in years.
    from_age: i32,
}

const fn acute(code: &'static str, description: &'static str, weight: u32) -> Diagnosis {
    Diagnosis { code, description, weight, chronic: false, only: None, from_age: 0 }
}

const fn adult(code: &'static str, description: &'static str, weight: u32) -> Diagnosis {
    Diagnosis { code, description, weight, chronic: false, only: None, from_age: 30 }
}

const fn chronic(code: &'static str, description: &'static str, weight: u32, from_age: i32) -> Diagnosis {
    Diagnosis { code, description, weight, chronic: true, only: None, from_age }
}

const fn woman(code: &'static str, description: &'static str, weight: u32) -> Diagnosis {
    Diagnosis { code, description, weight, chronic: false, only: Some(Sex::Female), from_age: 18 }
}

const DIAGNOSES: &[Diagnosis] = &[
    chronic("I10", "Essential (primary) hypertension", 14, 30),
    chronic("E11.9", "Type 2 diabetes mellitus without complications", 10, 30),
    chronic("E11.65", "Type 2 diabetes mellitus with hyperglycemia", 4, 30),
    chronic("E78.5", "Hyperlipidemia, unspecified", 4, 30),
    chronic("J45.909", "Unspecified asthma, uncomplicated", 5, 4),
    chronic("J44.9", "Chronic obstructive pulmonary disease, unspecified", 3, 40),
    chronic(
        "I25.10",
        "Atherosclerotic heart disease of native coronary artery without angina pectoris",
        3,
        40,
    ),
    chronic("I48.91", "Unspecified atrial fibrillation", 2, 40),
    chronic("I50.9", "Heart failure, unspecified", 3, 40),
    chronic("N18.6", "End stage renal disease", 2, 25),
    chronic("D57.1", "Sickle-cell disease without crisis", 2, 1),
    chronic("G40.909", "Epilepsy, unspecified, not intractable, without status epilepticus", 2, 4),
    chronic("E03.9", "Hypothyroidism, unspecified", 2, 18),
    chronic("M17.0", "Bilateral primary osteoarthritis of knee", 2, 45),
    chronic("F41.1", "Generalized anxiety disorder", 2, 16),
    adult("I21.9", "Acute myocardial infarction, unspecified", 3),
    adult("I21.4", "Non-ST elevation (NSTEMI) myocardial infarction", 2),
    adult("I63.9", "Cerebral infarction, unspecified", 2),
    acute("B50.9", "Plasmodium falciparum malaria, unspecified", 9),
    acute("B51.9", "Plasmodium vivax malaria without complication", 3),
    acute("B54", "Unspecified malaria", 5),
    acute("B55.0", "Visceral leishmaniasis", 2),
    acute("B65.0", "Schistosomiasis due to Schistosoma haematobium [urinary schistosomiasis]", 2),
    acute("B47.0", "Eumycetoma", 1),
    acute("A01.00", "Typhoid fever, unspecified", 4),
    acute("A09", "Infectious gastroenteritis and colitis, unspecified", 6),
    acute("A15.0", "Tuberculosis of lung", 2),
    acute("A41.9", "Sepsis, unspecified organism", 3),
    acute("A90", "Dengue fever [classical dengue]", 3),
    acute("J06.9", "Acute upper respiratory infection, unspecified", 8),
    acute("J18.9", "Pneumonia, unspecified organism", 5),
    acute("J20.9", "Acute bronchitis, unspecified", 4),
    acute("N39.0", "Urinary tract infection, site not specified", 5),
    acute("N17.9", "Acute kidney failure, unspecified", 2),
    acute("K21.9", "Gastro-esophageal reflux disease without esophagitis", 3),
    acute("K35.80", "Unspecified acute appendicitis", 2),
    acute("D50.9", "Iron deficiency anemia, unspecified", 4),
    acute("E46", "Unspecified protein-calorie malnutrition", 2),
    acute("E86.0", "Dehydration", 3),
    acute("R07.9", "Chest pain, unspecified", 3),
    acute("R50.9", "Fever, unspecified", 4),
    acute("R51.9", "Headache, unspecified", 3),
    acute("M54.50", "Low back pain, unspecified", 3),
    acute("L03.90", "Cellulitis, unspecified", 2),
    acute("S06.0X0A", "Concussion without loss of consciousness, initial encounter", 1),
    acute(
        "T63.001A",
        "Toxic effect of unspecified snake venom, accidental (unintentional), initial encounter",
        1,
    ),
    woman("O14.90", "Unspecified pre-eclampsia, unspecified trimester", 2),
    woman("O80", "Encounter for full-term uncomplicated delivery", 3),
];

/// A diagnosis that fits someone's sex and age.
pub fn draw(rng: &mut impl Rng, sex: Sex, age: i32) -> &'static Diagnosis {
    let fits = |d: &Diagnosis| d.only.is_none_or(|only| only == sex && age <= 45) && age >= d.from_age;
    // The acute ones fit everyone, so some weight is never zero.
    DIAGNOSES.choose_weighted(rng, |d| if fits(d) { d.weight } else { 0 }).unwrap_or(&DIAGNOSES[0])
}

/// The complaint a patient comes with, for the encounter's free text.
pub fn complaint(diagnosis: &Diagnosis) -> &'static str {
    match diagnosis.code.as_bytes().first() {
        Some(b'I') => "Chest tightness and breathlessness",
        Some(b'J') => "Cough and fever",
        Some(b'A' | b'B') => "Fever, chills and weakness",
        Some(b'K' | b'N') => "Abdominal pain",
        Some(b'E') => "Thirst and tiredness",
        Some(b'S' | b'T' | b'M') => "Injury or pain",
        Some(b'O') => "Pregnancy check",
        _ => "Feeling unwell",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn draws_fit_sex_and_age() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..2000 {
            assert!(draw(&mut rng, Sex::Male, 30).only.is_none());
            assert!(draw(&mut rng, Sex::Female, 3).from_age <= 3);
        }
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = DIAGNOSES.iter().map(|d| d.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), DIAGNOSES.len());
    }
}
