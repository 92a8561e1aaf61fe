use std::collections::HashMap;
use std::path::Path;

use fhirehose_tape::{Tape, Value};

use crate::problem::{Position, Problems};
use crate::terminology::{Terminology, check_code};

/// A CSV file of `mappings/maps/`: values of a source to codes. Columns `source,system,code,display`, then any
/// of its own; an empty cell is an element that is not there.
pub(crate) struct ConceptMap {
    /// One array of objects `{system, code, display, …}`.
    rows: Tape,
    by_source: HashMap<String, u32>,
    /// What it maps to: by code, the systems.
    targets: HashMap<String, Vec<String>>,
    /// Names of the columns but `source`.
    members: Vec<String>,
}

const FIRST_COLUMNS: [&str; 4] = ["source", "system", "code", "display"];

impl ConceptMap {
    /// The code of a source value, compared exactly.
    pub fn get(&self, source: &str) -> Option<Value<'_>> {
        self.by_source.get(source).map(|position| self.rows.at(*position))
    }

    /// Whether it maps a value to that code; of any system unless one is named.
    pub fn has_target(&self, system: Option<&str>, code: &str) -> bool {
        let systems = self.targets.get(code);
        systems.is_some_and(|systems| system.is_none_or(|system| systems.iter().any(|known| known == system)))
    }

    /// Members that its objects may have.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(String::as_str)
    }

    pub fn read(
        path: &Path,
        text: &str,
        terminology: &mut Terminology,
        problems: &mut Problems<'_>,
    ) -> ConceptMap {
        let mut map = ConceptMap {
            rows: Tape::new(),
            by_source: HashMap::new(),
            targets: HashMap::new(),
            members: Vec::new(),
        };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(error) => {
                problems.add(Position::START, csv_message(&error));
                return map;
            }
        };
        if !header.iter().take(4).eq(FIRST_COLUMNS) {
            problems.add(Position::START, "the first columns are `source,system,code,display`");
            return map;
        }
        map.members = header.iter().skip(1).map(str::to_owned).collect();
        let mut objects: Vec<(String, usize, csv::StringRecord)> = Vec::new();
        for record in reader.records() {
            match record {
                Ok(record) => {
                    let line = record.position().map_or(1, |at| at.line() as usize);
                    objects.push((record.get(0).unwrap_or_default().to_owned(), line, record));
                }
                Err(error) => {
                    let line = error.position().map_or(1, |at| at.line() as usize);
                    problems.add(Position { line, column: 1 }, csv_message(&error));
                }
            }
        }
        if objects.is_empty() && problems.is_empty() {
            problems.add(Position::START, format!("{} maps no value", path.display()));
        }
        map.rows.begin_array();
        for (source, line, record) in &objects {
            let at = Position { line: *line, column: 1 };
            map.row(&header, source, at, record, problems);
            let cell = |index| record.get(index).unwrap_or_default();
            terminology.add(cell(1), cell(2));
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Err(message) = terminology.display(cell(1), cell(2), cell(3), &format!("maps/{name}")) {
                problems.add(at, message);
            }
        }
        map.rows.end();
        map.index(&objects);
        map
    }

    fn row(
        &mut self,
        header: &csv::StringRecord,
        source: &str,
        at: Position,
        record: &csv::StringRecord,
        problems: &mut Problems<'_>,
    ) {
        let cell = |index| record.get(index).unwrap_or_default();
        if source.is_empty() {
            problems.add(at, "`source` is empty: an absent value is not looked up");
        }
        if self.by_source.insert(source.to_owned(), 0).is_some() {
            problems.add(at, format!("`{source}` is mapped twice"));
        }
        if let Err(error) = check_code(cell(1), cell(2)) {
            problems.add(at, format!("`{}` of {}: {error}", cell(2), cell(1)));
        }
        if !cell(2).is_empty() {
            self.targets.entry(cell(2).to_owned()).or_default().push(cell(1).to_owned());
        }
        self.rows.begin_object();
        for (name, value) in header.iter().zip(record).skip(1).filter(|(_, value)| !value.is_empty()) {
            self.rows.key(name);
            self.rows.string(value);
        }
        self.rows.end();
    }

    fn index(&mut self, objects: &[(String, usize, csv::StringRecord)]) {
        let positions: Vec<u32> = self.rows.root().elements().map(Value::position).collect();
        for ((source, ..), position) in objects.iter().zip(positions) {
            self.by_source.insert(source.clone(), position);
        }
    }
}

fn csv_message(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} cells where the header has {expected_len}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (ConceptMap, Vec<String>) {
        let path = Path::new("maps/sex.csv");
        let mut problems = Problems::of(path);
        let map = ConceptMap::read(path, text, &mut Terminology::default(), &mut problems);
        (map, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_are_found_exactly_and_empty_cells_are_absent() {
        let (map, problems) =
            read("source,system,code,display,text\nM,http://s,male,Male,\nF,http://s,female,,x\n");
        assert_eq!(problems, Vec::<String>::new());
        let male = map.get("M").unwrap();
        assert_eq!(male.get("code").and_then(Value::as_str), Some("male"));
        assert!(male.get("text").is_none() && map.get("m").is_none());
        assert!(map.has_target(None, "male") && map.has_target(Some("http://s"), "female"));
        assert!(!map.has_target(Some("http://other"), "male") && !map.has_target(None, "M"));
        assert_eq!(map.members().collect::<Vec<_>>(), ["system", "code", "display", "text"]);
        assert_eq!(map.get("F").and_then(|f| f.get("text")).and_then(Value::as_str), Some("x"));
    }

    #[test]
    fn mistakes_name_their_line() {
        let text = "source,system,code,display\na,http://loinc.org,8867-5,x\nb,s\na,s,c,d\n,s,c,d\n";
        let (_, problems) = read(text);
        let expected = ["maps/sex.csv:2:1:", "maps/sex.csv:3:1:", "maps/sex.csv:4:1:", "maps/sex.csv:5:1:"];
        assert!(problems.iter().zip(expected).all(|(p, e)| p.starts_with(e)), "{problems:?}");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(read("code,source\n").1[0].contains("first columns"));
    }
}
