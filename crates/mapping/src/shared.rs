//! Expressions that stand in several places of a mapping, such as the reference to the patient in ten
//! Observations of one row, are evaluated once per record.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use bumpalo::Bump;
use bumpalo::collections::Vec;

/// Counts the places of each expression while a mapping is compiled. Only expressions over the row or reading
/// itself are counted: where variables of a template or another focus are in reach, the same text may mean
/// another thing.
#[derive(Default)]
pub(crate) struct Places {
    numbers: HashMap<Box<str>, usize>,
    count: std::vec::Vec<usize>,
}

impl Places {
    /// The expression's number.
    pub fn add(&mut self, source: &str) -> usize {
        let number = *self.numbers.entry(source.into()).or_insert(self.count.len());
        match self.count.get_mut(number) {
            Some(count) => *count += 1,
            None => self.count.push(1),
        }
        number
    }

    pub fn finish(self) -> Repeated {
        Repeated(self.count.iter().map(|count| *count > 1).collect())
    }
}

/// By number of an expression: whether it stands in several places.
#[derive(Default)]
pub(crate) struct Repeated(std::vec::Vec<bool>);

/// What repeated expressions have come to for one record, as JSON; nothing where they are empty.
pub(crate) struct Results<'a> {
    repeated: &'a Repeated,
    json: RefCell<Vec<'a, u8>>,
    ranges: RefCell<Vec<'a, Option<Range<usize>>>>,
}

impl<'a> Results<'a> {
    pub fn of(repeated: &'a Repeated, texts: &'a Bump) -> Self {
        let (json, ranges) = (Vec::new_in(texts), Vec::new_in(texts));
        Results { repeated, json: RefCell::new(json), ranges: RefCell::new(ranges) }
    }

    pub fn holds(&self, number: usize) -> bool {
        self.repeated.0.get(number) == Some(&true)
    }

    /// Appends the result, made by `make` the first time; gives whether there is one.
    pub fn write<E>(
        &self,
        number: usize,
        out: &mut std::vec::Vec<u8>,
        make: impl FnOnce(&mut std::vec::Vec<u8>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let known = self.ranges.borrow().get(number).cloned().flatten();
        if let Some(range) = known {
            out.extend_from_slice(&self.json.borrow()[range.clone()]);
            return Ok(!range.is_empty());
        }
        let first = out.len();
        make(out)?;
        let (mut json, mut ranges) = (self.json.borrow_mut(), self.ranges.borrow_mut());
        if ranges.is_empty() {
            ranges.resize(self.repeated.0.len(), None);
        }
        let start = json.len();
        json.extend_from_slice_copy(&out[first..]);
        if let Some(place) = ranges.get_mut(number) {
            *place = Some(start..json.len());
        }
        Ok(out.len() > first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_several_places_is_kept_and_made_once() {
        let mut places = Places::default();
        let numbers = ["a", "b", "a", "c", "c"].map(|source| places.add(source));
        assert_eq!(numbers, [0, 1, 0, 2, 2]);
        let repeated = places.finish();
        let texts = Bump::new();
        let results = Results::of(&repeated, &texts);
        assert_eq!([0, 1, 2].map(|number| results.holds(number)), [true, false, true]);
        let (mut out, mut made) = (std::vec::Vec::new(), 0);
        for _ in 0..3 {
            let write = |json: &mut std::vec::Vec<u8>| {
                made += 1;
                json.extend_from_slice(b"1");
                Ok::<_, ()>(())
            };
            assert_eq!(results.write(0, &mut out, write), Ok(true));
            assert_eq!(results.write(2, &mut out, |_| Ok::<_, ()>(())), Ok(false));
        }
        assert_eq!((out.as_slice(), made), (&b"111"[..], 1));
        let repeated = Repeated(vec![true]);
        let failing = Results::of(&repeated, &texts);
        assert_eq!(failing.write(0, &mut out, |_| Err(7)), Err(7));
        assert_eq!(failing.write(0, &mut out, |_| Err(8)), Err(8), "an error is not kept");
    }
}
