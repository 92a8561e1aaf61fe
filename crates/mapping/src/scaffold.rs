//! A first mapping of a table, from nothing but its columns. What is guessed is marked, and it loads as it is.

use fhirehose_fhir::element_type;

use crate::columns::ColumnType;

/// A column as the database describes it.
#[derive(Clone, Debug)]
pub struct TableColumn {
    pub name: String,
    /// With length and attributes, such as `int(10) unsigned`.
    pub sql_type: String,
    /// Part of the primary key.
    pub primary: bool,
    /// Computed when it is read, and so not in the log.
    pub computed: bool,
}

/// What is written behind a line to be looked at.
const GUESS: &str = "  # GUESS";

/// The mapping of a table as a file for `mappings/cdc/<db>/<table>.yaml`. It makes one resource, of the type the
/// table's name speaks of.
pub fn scaffold(db: &str, table: &str, columns: &[TableColumn]) -> String {
    let of = Table { db, table, columns };
    let mut out = format!(
        "# A first mapping of {db}.{table}, made from its columns. Every line with GUESS is to be looked at; then put\n\
         # an example into examples/cdc.{db}.{table}/ and see `fhirehose mappings test`.\n\
         mapping: cdc/{db}/{table}\nversion: 1\ntable: {db}.{table}\ncolumns:\n"
    );
    columns.iter().for_each(|column| out += &of.column(column));
    let resource = of.resource();
    let topic = resource.to_lowercase();
    out += &format!("outputs:\n  - name: {topic}\n    to: fhir.{topic}{GUESS}\n    resource:\n");
    out += &format!("      resourceType: {resource}\n");
    let mut used = Vec::new();
    of.elements(resource, &mut used).iter().for_each(|line| out += &format!("      {line}\n"));
    let left = columns.iter().filter(|column| !used.contains(&column.name.as_str()) && !secret(&column.name));
    let left: Vec<&str> = left.map(|column| column.name.as_str()).collect();
    if !left.is_empty() {
        out += &format!("# Not mapped yet: {}\n", left.join(", "));
    }
    out
}

struct Table<'t> {
    db: &'t str,
    table: &'t str,
    columns: &'t [TableColumn],
}

impl<'t> Table<'t> {
    /// The primary key, or else what may be one.
    fn keys(&self) -> Vec<&'t str> {
        let primary: Vec<&str> =
            self.columns.iter().filter(|column| column.primary).map(|column| column.name.as_str()).collect();
        match primary.is_empty() {
            true => self
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .find(|name| !secret(name))
                .into_iter()
                .collect(),
            false => primary,
        }
    }

    /// A line of `columns`.
    fn column(&self, column: &TableColumn) -> String {
        let name = key(&column.name);
        let is_key = self.keys().contains(&column.name.as_str());
        if secret(&column.name) && !is_key {
            return format!("  {name}: {{forbidden: true}}{GUESS}: it looks like a secret\n");
        }
        let (of, sure) = type_of(&column.sql_type);
        let class = class(&column.name);
        let mut more = String::new();
        more += if is_key { ", key: true" } else { "" };
        more += if column.computed { ", optional: true" } else { "" };
        let mut guesses = vec!["class"];
        if !sure {
            guesses.insert(0, "type");
        }
        if is_key && !column.primary {
            guesses.push("key");
        }
        let of = of.name();
        format!("  {name}: {{type: {of}, class: {class}{more}}}{GUESS}: {}\n", guesses.join(", "))
    }

    fn resource(&self) -> &'static str {
        const WORDS: [(&str, &[&str]); 5] = [
            ("Condition", &["diagnos", "condition", "problem", "allerg"]),
            ("Encounter", &["encounter", "visit", "appointment", "admission"]),
            ("Organization", &["facilit", "organi", "department", "clinic", "hospital", "ward"]),
            ("Practitioner", &["user", "provider", "practitioner", "doctor", "nurse", "staff"]),
            ("Patient", &["patients", "persons", "people"]),
        ];
        let name = self.table.to_lowercase();
        let found = WORDS.iter().find(|(_, words)| words.iter().any(|word| name.contains(word)));
        found.map_or("Observation", |(resource, _)| resource)
    }

    /// The first column whose name has one of the words in it and whose type is accepted.
    fn find(&self, words: &[&str], accepts: impl Fn(ColumnType) -> bool) -> Option<&'t TableColumn> {
        let readable = || self.columns.iter().filter(|column| !secret(&column.name));
        let named = |word: &&str| {
            let word = *word;
            readable().find(move |column| column.name.to_lowercase().contains(word))
        };
        words.iter().filter_map(named).find(|column| accepts(type_of(&column.sql_type).0))
    }

    /// Lines of the resource, and the columns they take.
    fn elements(&self, resource: &str, used: &mut Vec<&'t str>) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(name) = self.keys().first().copied() {
            used.push(name);
            let value = format!("{}.toString()", path(name));
            let system = format!("urn:{}:{}", self.db, self.table);
            if element_type(resource, "identifier").is_some() {
                lines.push(format!("identifier: [{{system: \"{system}\", value: \"{{{{ {value} }}}}\"}}]"));
            }
        }
        let text = |of| of == ColumnType::String;
        match resource {
            "Patient" | "Practitioner" => {
                let mut parts = Vec::new();
                for (element, words) in [
                    ("family", ["last_name", "family", "surname"]),
                    ("given", ["first_name", "given", "forename"]),
                ] {
                    if let Some(column) = self.find(&words, text) {
                        used.push(&column.name);
                        let hole = format!("\"{{{{ {} }}}}\"", path(&column.name));
                        parts.push(if element == "given" {
                            format!("given: [{hole}]")
                        } else {
                            format!("{element}: {hole}")
                        });
                    }
                }
                if !parts.is_empty() {
                    lines.push(format!("name: [{{{}}}]{GUESS}", parts.join(", ")));
                }
                if let Some(column) = self.find(&["birth", "dob"], |of| of == ColumnType::Date) {
                    used.push(&column.name);
                    lines.push(format!("birthDate: \"{{{{ {} }}}}\"{GUESS}", path(&column.name)));
                }
            }
            "Organization" => {
                if let Some(column) = self.find(&["name", "title"], text) {
                    used.push(&column.name);
                    lines.push(format!("name: \"{{{{ {} }}}}\"{GUESS}", path(&column.name)));
                }
            }
            _ => self.event(resource, used, &mut lines),
        }
        lines
    }

    /// What encounters, conditions and observations need.
    fn event(&self, resource: &str, used: &mut Vec<&'t str>, lines: &mut Vec<String>) {
        match resource {
            "Encounter" => {
                lines.push(format!("status: finished{GUESS}"));
                let class = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
                lines.push(format!("class: {{system: \"{class}\", code: AMB}}{GUESS}"));
            }
            "Observation" => lines.push(format!("status: final{GUESS}")),
            _ => {}
        }
        if resource != "Encounter" {
            lines.push(format!("code: {{text: \"{}\"}}{GUESS}", self.table.replace('_', " ")));
        }
        let patients = format!("{}.patients", self.db);
        match self
            .find(&["patient_id", "patient"], |of| matches!(of, ColumnType::String | ColumnType::Integer))
        {
            Some(column) => {
                used.push(&column.name);
                let of = format!("reference('Patient', '{patients}', {})", path(&column.name));
                lines.push(format!(
                    "subject: {{reference: \"{{{{ {of} }}}}\"}}{GUESS}: the table of patients"
                ));
            }
            None => lines.push(format!("subject: {{display: unknown}}{GUESS}: no column names a patient")),
        }
        let is_time = |of| matches!(of, ColumnType::Date | ColumnType::DateTime | ColumnType::Timestamp);
        let words = ["effective", "start", "onset", "date", "time", "_at"];
        if let Some(column) = self.find(&words, is_time) {
            used.push(&column.name);
            let name = path(&column.name);
            let time = match type_of(&column.sql_type).0 {
                ColumnType::DateTime => format!("\"{{{{ {name}.instant(%zone) }}}}\""),
                _ => format!("\"{{{{ {name} }}}}\""),
            };
            lines.push(match resource {
                "Encounter" => format!("period: {{start: {time}}}{GUESS}"),
                "Condition" => format!("recordedDate: {time}{GUESS}"),
                _ => format!("effectiveDateTime: {time}{GUESS}"),
            });
        }
    }
}

/// What a column of an SQL type holds, and whether that is sure.
fn type_of(sql: &str) -> (ColumnType, bool) {
    let sql = sql.to_lowercase();
    let word = sql.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    match word {
        "char" | "varchar" | "text" | "tinytext" | "mediumtext" | "longtext" | "enum" | "uuid" => {
            (ColumnType::String, true)
        }
        _ if sql.starts_with("tinyint(1)") || sql.starts_with("bit(1)") || word.starts_with("bool") => {
            (ColumnType::Boolean, true)
        }
        // More than 63 bits.
        "bigint" if sql.contains("unsigned") => (ColumnType::Decimal, true),
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "year" => {
            (ColumnType::Integer, true)
        }
        "decimal" | "numeric" | "float" | "double" => (ColumnType::Decimal, true),
        "date" => (ColumnType::Date, true),
        "datetime" => (ColumnType::DateTime, true),
        "timestamp" => (ColumnType::Timestamp, true),
        "json" => (ColumnType::Json, true),
        _ => (ColumnType::String, false),
    }
}

/// How personal a column is, by its name; where that tells nothing, about somebody's health.
fn class(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["name", "email", "phone", "mobile", "address", "street", "national", "passport", "insurance"]) {
        return "direct";
    }
    if has(&[
        "birth",
        "dob",
        "city",
        "postal",
        "zip",
        "gender",
        "sex",
        "marital",
        "occupation",
        "nationality",
    ]) {
        return "quasi";
    }
    let technical = name == "id" || name.ends_with("_id") || name.ends_with("_at") || name.starts_with("is_");
    if technical { "none" } else { "clinical" }
}

/// What should never leave the database.
fn secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "passwd", "secret", "token", "_hash", "salt", "pin_code"]
        .iter()
        .any(|word| name.contains(word))
}

fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !RESERVED.contains(&name)
}

/// Words that are no names in FHIRPath, or no text in YAML.
const RESERVED: [&str; 16] = [
    "and", "or", "xor", "in", "is", "as", "div", "mod", "contains", "implies", "true", "false", "null",
    "year", "month", "day",
];

/// A column as a key of YAML.
fn key(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { format!("'{}'", name.replace('\'', "''")) }
}

/// A column as a FHIRPath in a double-quoted text of YAML.
fn path(name: &str) -> String {
    if is_plain(name) {
        name.to_owned()
    } else {
        format!("`{}`", name.replace('\\', "\\\\\\\\").replace('"', "\\\""))
    }
}
