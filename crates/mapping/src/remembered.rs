//! A small memory of what was made of the same bytes before.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};

/// Places; of what falls on one place the latest is remembered.
const PLACES: usize = 256;
/// Longer bytes hardly come again.
const MAX_LENGTH: usize = 256;

/// What bytes that come again and again from record to record have come to.
pub(crate) struct Remembered<K, V>(RefCell<Vec<Place<K, V>>>);

struct Place<K, V> {
    known: Option<(K, V)>,
    bytes: Vec<u8>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Remembered(RefCell::default())
    }
}

impl<K: PartialEq, V: Copy> Remembered<K, V> {
    /// What `make` gives for the key and the bytes, or gave before; nothing is not remembered.
    pub fn get(&self, key: K, bytes: &[u8], make: impl FnOnce() -> Option<V>) -> Option<V> {
        if bytes.len() > MAX_LENGTH {
            return make();
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            let empty = || Place { known: None, bytes: Vec::new() };
            places.resize_with(PLACES, empty);
        }
        let place = usize::try_from(hasher.finish() % PLACES as u64).unwrap_or_default();
        let place = &mut places[place];
        if let Some((_, value)) = place.known.as_ref().filter(|(of, _)| *of == key && place.bytes == bytes) {
            return Some(*value);
        }
        let made = make()?;
        place.known = Some((key, made));
        place.bytes.clear();
        place.bytes.extend_from_slice(bytes);
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_for_a_key_and_bytes_is_given_for_those_alone() {
        let remembered = Remembered::default();
        let texts: Vec<String> = (0..1000).map(|n| format!("text {n}")).collect();
        for key in [1, 2] {
            for text in &texts {
                let made = || Some((key, text.len(), text.as_str()));
                assert_eq!(remembered.get(key, text.as_bytes(), made), made());
                assert_eq!(remembered.get(key, text.as_bytes(), || None), made(), "remembered");
            }
        }
        assert_eq!(remembered.get(3, b"none", || None), None);
        assert_eq!(
            remembered.get(3, b"none", || Some((0, 0, ""))),
            Some((0, 0, "")),
            "nothing is not remembered"
        );
        let long = [b'x'; MAX_LENGTH + 1];
        assert_eq!(remembered.get(1, &long, || Some((1, 1, "a"))), Some((1, 1, "a")));
        assert_eq!(remembered.get(1, &long, || Some((2, 2, "b"))), Some((2, 2, "b")), "made each time");
    }
}
