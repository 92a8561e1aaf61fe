//! Whether two contestants made the same.

use serde_json::Value as Json;

/// Numbers this close are one: some contestants compute in binary floating point.
const CLOSE: f64 = 1e-12;

/// The first difference, without values; nothing where both made the same. Members of objects may come in any
/// order, one that is absent is null, and numbers are compared by value.
pub fn difference(ours: &[Json], theirs: &[Json]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} instead of {}", theirs.len(), ours.len()));
    }
    ours.iter().zip(theirs).enumerate().find_map(|(number, (ours, theirs))| {
        place(ours, theirs).map(|place| format!("number {}{place}", number + 1))
    })
}

/// Where two values differ.
fn place(a: &Json, b: &Json) -> Option<String> {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64()?, b.as_f64()?);
            ((a - b).abs() > CLOSE * a.abs().max(b.abs())).then(String::new)
        }
        (Json::Array(a), Json::Array(b)) => {
            if a.len() != b.len() {
                return Some(format!(" has {} values instead of {}", b.len(), a.len()));
            }
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(at, (a, b))| place(a, b).map(|place| format!("[{at}]{place}")))
        }
        (Json::Object(a), Json::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            let of =
                |object: &serde_json::Map<String, Json>, name| object.get(name).cloned().unwrap_or_default();
            names
                .into_iter()
                .find_map(|name| place(&of(a, name), &of(b, name)).map(|place| format!(" `{name}`{place}")))
        }
        _ => (a != b).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(ours: Json, theirs: Json) -> Option<String> {
        difference(ours.as_array().unwrap(), theirs.as_array().unwrap())
    }

    #[test]
    fn the_same_is_the_same_however_it_is_written() {
        let digits: Json = serde_json::from_str("[36.50, 0.30000000000000004, 1e2]").unwrap();
        assert_eq!(told(digits, json!([36.5, 0.3, 100])), None);
        assert_eq!(told(json!([{"a": 1, "b": null, "c": [{}]}]), json!([{"c": [{}], "a": 1.0}])), None);
        assert_eq!(told(json!([]), json!([])), None);
    }

    #[test]
    fn every_kind_of_difference_is_told_by_its_place_without_values() {
        for (ours, theirs, place) in [
            (json!([1, 2]), json!([1]), "1 instead of 2"),
            (json!([1, 2]), json!([2, 1]), "number 1"),
            (json!([1.0]), json!([1.0000001]), "number 1"),
            (json!(["1"]), json!([1]), "number 1"),
            (json!([true]), json!([null]), "number 1"),
            (json!([{"a": "x"}, {"a": "x"}]), json!([{"a": "x"}, {"a": "y"}]), "number 2 `a`"),
            (json!([{"a": 1}]), json!([{"a": 1, "b": 2}]), "number 1 `b`"),
            (json!([{"a": 1, "b": 2}]), json!([{"a": 1}]), "number 1 `b`"),
            (json!([[1, 2]]), json!([[1]]), "number 1 has 1 values instead of 2"),
            (json!([{"a": [{"b": 1}]}]), json!([{"a": [{"b": 2}]}]), "number 1 `a`[0] `b`"),
        ] {
            assert_eq!(told(ours, theirs).as_deref(), Some(place));
        }
    }
}
