//! Plausible vital signs: everyone has a resting state drawn once from their id, and readings scatter
//! around it. All values stay inside the limits beyond which the product rejects or flags a reading.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Someone's resting state, in the units of the source: per minute, mm[Hg], %, Cel, cm, kg.
#[derive(Clone, Debug)]
pub struct Physiology {
    pulse: f64,
    breaths: f64,
    systolic: f64,
    diastolic: f64,
    saturation: f64,
    temperature: f64,
    glucose: f64,
    pub height: f64,
    pub weight: f64,
}

/// One set of readings; decimals as the text a source would hold.
#[derive(Clone, Debug)]
pub struct Vitals {
    pub heart_rate: i32,
    pub respiratory_rate: i32,
    pub systolic: i32,
    pub diastolic: i32,
    /// Percent, whole.
    pub saturation: i32,
    /// Degrees Celsius, one decimal.
    pub temperature: String,
    /// mg/dL.
    pub glucose: i32,
}

impl Physiology {
    /// The same person always gets the same state.
    pub fn of(person_id: &str, age: i32) -> Self {
        let seed = person_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let grown = (f64::from(age) / 18.0).min(1.0);
        let height = 75.0 + grown * rng.random_range(78.0..108.0);
        let bmi = 15.0 + grown * rng.random_range(3.0..16.0);
        let hypertensive = age > 30 && rng.random_bool(0.3);
        let systolic = 90.0 + grown * rng.random_range(12.0..32.0) + if hypertensive { 28.0 } else { 0.0 };
        Self {
            pulse: 105.0 - grown * rng.random_range(22.0..42.0),
            breaths: 24.0 - grown * rng.random_range(6.0..11.0),
            systolic,
            diastolic: systolic * rng.random_range(0.58..0.68),
            saturation: rng.random_range(95.0..99.0),
            temperature: rng.random_range(36.3..37.2),
            glucose: rng.random_range(80.0..180.0),
            height,
            weight: bmi * (height / 100.0) * (height / 100.0),
        }
    }

    pub fn measure(&self, rng: &mut impl Rng) -> Vitals {
        let fever = if rng.random_bool(0.08) { rng.random_range(1.0..3.0) } else { 0.0 };
        let mut around = |centre: f64, spread: f64, low: f64, high: f64| {
            (centre + rng.random_range(-spread..spread)).clamp(low, high)
        };
        let systolic = around(self.systolic, 14.0, 75.0, 220.0).round() as i32;
        let diastolic = around(self.diastolic, 8.0, 42.0, 130.0).round() as i32;
        Vitals {
            heart_rate: around(self.pulse + fever * 8.0, 9.0, 38.0, 190.0).round() as i32,
            respiratory_rate: around(self.breaths + fever * 2.0, 3.0, 8.0, 50.0).round() as i32,
            systolic,
            diastolic: diastolic.min(systolic - 15),
            saturation: around(self.saturation, 2.0, 85.0, 100.0).round() as i32,
            temperature: format!("{:.1}", around(self.temperature + fever, 0.3, 35.2, 41.0)),
            glucose: around(self.glucose, 25.0, 55.0, 400.0).round() as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_possible_at_any_age() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for person in 0..300 {
            let age = person % 95;
            let body = Physiology::of(&format!("p{person}"), age);
            let bmi = body.weight / (body.height / 100.0).powi(2);
            assert!((12.0..40.0).contains(&bmi) && body.height > 60.0, "{body:?}");
            for _ in 0..20 {
                let v = body.measure(&mut rng);
                assert!(v.diastolic < v.systolic && v.diastolic > 26, "{v:?}");
                assert!((38..=190).contains(&v.heart_rate) && v.saturation <= 100, "{v:?}");
            }
        }
    }

    #[test]
    fn a_person_keeps_their_state() {
        let (a, b) = (Physiology::of("x", 40), Physiology::of("x", 40));
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}
