//! Rows expected against rows found, key by key and value by value.

use std::collections::BTreeMap;

/// Key to values, all as text. Numbers go through [`number`] on both sides.
pub type Rows = BTreeMap<String, Vec<String>>;

/// One table, topic or index.
pub struct Check {
    pub store: &'static str,
    pub what: &'static str,
    pub columns: &'static [&'static str],
    pub expected: Rows,
    pub found: Rows,
}

#[derive(Default, PartialEq, Eq, Debug)]
pub struct Differences {
    pub missing: usize,
    pub extra: usize,
    pub different: usize,
    /// The first few, by key and column; never a value.
    pub examples: Vec<String>,
}

impl Differences {
    pub fn total(&self) -> usize {
        self.missing + self.extra + self.different
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < 5 {
            self.examples.push(text);
        }
    }
}

impl Check {
    pub fn compare(&self) -> Differences {
        let mut differences = Differences::default();
        for (key, wanted) in &self.expected {
            match self.found.get(key) {
                None => {
                    differences.missing += 1;
                    differences.example(format!("{key} is missing"));
                }
                Some(got) if got != wanted => {
                    differences.different += 1;
                    let columns: Vec<&str> = (self.columns.iter().zip(wanted.iter().zip(got)))
                        .filter(|(_, (wanted, got))| wanted != got)
                        .map(|(column, _)| *column)
                        .collect();
                    differences.example(format!("{key} differs in {}", columns.join(", ")));
                }
                Some(_) => {}
            }
        }
        for key in self.found.keys().filter(|key| !self.expected.contains_key(*key)) {
            differences.extra += 1;
            differences.example(format!("{key} is too many"));
        }
        differences
    }
}

/// A decimal without needless zeros, so that `36.50`, `36.5` and a double print alike. Absent is empty.
pub fn number(text: &str) -> String {
    let plain = text.strip_prefix('+').unwrap_or(text);
    if plain.contains('.') && !plain.contains(['e', 'E']) {
        plain.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        plain.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(&str, &str)]) -> Rows {
        of.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()])).collect()
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let check = Check {
            store: "s",
            what: "w",
            columns: &["v"],
            expected: rows(&[("same", "1"), ("gone", "1"), ("other", "1")]),
            found: rows(&[("same", "1"), ("other", "2"), ("new", "1")]),
        };
        let found = check.compare();
        assert_eq!((found.missing, found.extra, found.different, found.total()), (1, 1, 1, 3));
        assert!(found.examples.iter().any(|e| e == "other differs in v"), "{:?}", found.examples);
    }

    #[test]
    fn numbers_print_alike() {
        assert_eq!(
            [number("36.50"), number("36.5"), number("97.00"), number("100")],
            ["36.5", "36.5", "97", "100"]
        );
    }
}
