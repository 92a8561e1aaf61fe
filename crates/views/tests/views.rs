//! What the official tests do not ask: typed cells, refusals with their place, objects that are no resources.

use fhirehose_fhirpath::Env;
use fhirehose_tape::Tape;
use fhirehose_views::{Cell, ColumnType, View};

fn show(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".into(),
        Cell::Bool(value) => format!("bool {value}"),
        Cell::Integer(value) => format!("integer {value}"),
        Cell::Decimal(text) => format!("decimal {text}"),
        Cell::Text(text) => format!("text {text}"),
        Cell::Date(text) => format!("date {text}"),
        Cell::DateTime(text) => format!("dateTime {text}"),
        Cell::Time(text) => format!("time {text}"),
        Cell::Json(json) => format!("json {}", String::from_utf8_lossy(json)),
    }
}

const ROW: &str = r#"{"resourceType":"Observation","id":"o1","valueQuantity":{"value":36.50,"unit":"Cel"},
    "effectiveDateTime":"2026-01-02T03:04:05+03:00","issued":"2026-01","birth":"1974-12","n":3,
    "_note":{"extension":[{"url":"u","valueString":"x"}]},"list":["a","b"],"secret":"Amna"}"#;

/// The one row's cells, or the error.
fn cells(columns: &str, env: &Env) -> Result<Vec<String>, String> {
    let json = format!(r#"{{"resource":"Observation","select":[{{"column":[{columns}]}}]}}"#);
    let view = View::compile(&json, env).map_err(|error| error.to_string())?;
    let mut tape = Tape::new();
    tape.parse_json(ROW.as_bytes()).map_err(|error| error.to_string())?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let emit = &mut |cells: &[Cell<'_>]| rows.push(cells.iter().map(show).collect());
    view.rows(tape.root(), emit).map_err(|error| error.to_string())?;
    Ok(rows.concat())
}

fn cell(path: &str, of: &str) -> String {
    match cells(&format!(r#"{{"name":"c","path":"{path}","type":"{of}"}}"#), &Env::fhir()) {
        Ok(cells) => cells.join(", "),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn cells_are_of_their_columns_type_and_keep_their_text() {
    assert_eq!(cell("value.value", "decimal"), "decimal 36.50");
    assert_eq!(cell("value.value", "string"), "text 36.50");
    assert_eq!(cell("n", "decimal"), "decimal 3");
    assert_eq!(cell("n + 1", "integer"), "integer 4");
    assert_eq!(cell("effective", "instant"), "dateTime 2026-01-02T03:04:05+03:00");
    assert_eq!(cell("issued", "dateTime"), "dateTime 2026-01");
    assert_eq!(cell("birth", "date"), "date 1974-12");
    assert_eq!(cell("value", "Quantity"), r#"json {"value":36.50,"unit":"Cel"}"#);
    assert_eq!(cell("n > 2", "boolean"), "bool true");
    assert_eq!(cell("note", "string"), "null");
    assert_eq!(cell("nothing", "string"), "null");
}

#[test]
fn a_cell_of_another_type_is_an_error_that_names_the_column_and_no_value() {
    assert_eq!(cell("secret", "integer"), "error: c: not of the column's type");
    assert_eq!(cell("secret", "date"), "error: c: not of the column's type");
    assert_eq!(cell("value.value", "integer"), "error: c: not of the column's type");
    assert_eq!(cell("value", "string"), "error: c: not of the column's type");
    assert_eq!(cell("list", "string"), "error: c: more than one value; the column is no collection");
    assert_eq!(cell("secret + 1", "string"), "error: c: arithmetic on values of kinds that do not fit");
}

#[test]
fn a_collection_is_one_array_and_untyped_cells_are_what_they_are() {
    let columns = r#"{"name":"a","path":"list","collection":true},{"name":"b","path":"none","collection":true},
        {"name":"c","path":"n"},{"name":"d","path":"value","type":"Quantity"},{"name":"e","path":"id"}"#;
    let expected =
        [r#"json ["a","b"]"#, "json []", "integer 3", r#"json {"value":36.50,"unit":"Cel"}"#, "text o1"];
    assert_eq!(cells(columns, &Env::fhir()).unwrap(), expected);
}

#[test]
fn what_is_wrong_in_a_definition_is_refused_with_its_place() {
    let refused = |json: &str| match View::compile(json, &Env::fhir()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{json} compiles"),
    };
    let column = |column: &str| format!(r#"{{"resource":"Patient","select":[{{"column":[{column}]}}]}}"#);
    assert_eq!(refused("[1,"), "value expected at byte 3");
    assert_eq!(refused("[]"), "a ViewDefinition is a JSON object");
    assert_eq!(refused(r#"{"resource":"Patient","selct":[]}"#), "selct: unknown element");
    assert_eq!(refused(r#"{"resource":"Patient"}"#), "select: at least one select is needed");
    assert_eq!(refused(r#"{"resource":"Patient","select":[{}]}"#), "select[0]: a select without columns");
    assert_eq!(
        refused(&column(r#"{"name":"a","path":"id"},{"name":"b","path":"id +"}"#)),
        "select[0].column[1].path: an expression expected (at byte 4)"
    );
    assert_eq!(
        refused(&column(r#"{"name":"a","path":"id"},{"name":"a","path":"id"}"#)),
        "select[0].column[1]: a second column a"
    );
    assert_eq!(
        refused(&column(r#"{"name":"a b","path":"id"}"#)),
        "select[0].column[0].name: a name is letters, digits and _, beginning with a letter"
    );
    assert_eq!(
        refused(&column(r#"{"name":"a","path":"id","type":"strng"}"#)),
        "select[0].column[0].type: unknown type strng"
    );
    assert_eq!(
        refused(&column(r#"{"name":"a","path":"today()"}"#)).split(':').next(),
        Some("select[0].column[0].path")
    );
}

#[test]
fn objects_that_are_no_resources_have_rows_too() {
    let json = r#"{"resource":"VitalsSample","constant":[{"name":"limit","valueDecimal":36.5}],
        "where":[{"path":"heart_rate.exists()"}],
        "select":[{"column":[{"name":"heart_rate","path":"heart_rate","type":"integer"},
                             {"name":"warm","path":"temperature > %limit"}]}]}"#;
    let env = Env::fhir().columns(["heart_rate", "temperature"]);
    let view = View::compile(json, &env).unwrap();
    assert_eq!(view.resource(), "VitalsSample");
    assert_eq!(view.columns()[0].kind, ColumnType::Integer);
    let unknown = View::compile(json, &Env::fhir().columns(["heart_rate"])).err().unwrap();
    assert_eq!(unknown.to_string(), "select[0].column[1].path: unknown column temperature (at byte 0)");
    let mut tape = Tape::new();
    for (row, expected) in [
        (r#"{"heart_rate":72,"temperature":36.51}"#, vec!["integer 72", "bool true"]),
        (r#"{"heart_rate":72,"temperature":null}"#, vec!["integer 72", "null"]),
        (r#"{"temperature":36.51}"#, vec![]),
        (r#"{"resourceType":"Patient","heart_rate":72}"#, vec![]),
    ] {
        tape.parse_json(row.as_bytes()).unwrap();
        let mut found: Vec<String> = Vec::new();
        view.rows(tape.root(), &mut |cells| found.extend(cells.iter().map(show))).unwrap();
        assert_eq!(found, expected, "{row}");
    }
}

#[test]
fn elements_fhir_does_not_have_are_refused_where_they_are_known() {
    let env = Env::fhir().definitions(fhirehose_fhir::element_type);
    let refused = |each: &str, path: &str| {
        let json = format!(
            r#"{{"resource":"Patient","select":[{{"forEach":"{each}","column":[{{"name":"c","path":"{path}"}}]}}]}}"#
        );
        View::compile(&json, &env).err().map(|error| error.message)
    };
    for (each, path) in [
        ("$this", "name.first().family"),
        ("$this", "name.where(use = 'official').given.join(' ')"),
        ("$this", "iif(deceased.ofType(dateTime).exists(), true, deceased.ofType(boolean))"),
        ("$this", "birthDate.extension('http://x').value.ofType(dateTime)"),
        ("$this", "contact.name.family | name.family"),
        ("name", "family"),
        ("name.given", "$this"),
        ("contact", "name.select(given).first()"),
        ("$this", "%resource.whatever"),
    ] {
        assert_eq!(refused(each, path), None, "{each}: {path}");
    }
    let cases = [
        ("$this", "name.famly", "Patient.name has no element famly (at byte 5)"),
        ("$this", "name.where(usee = 'x').family", "Patient.name has no element usee (at byte 11)"),
        ("$this", "deceased.ofType(Quantity)", "Patient.deceased is never of type Quantity (at byte 16)"),
        ("$this", "Observation.value", "the resource is a Patient, not a Observation (at byte 0)"),
        ("$this", "iif(activ, 1, 2)", "Patient has no element activ (at byte 4)"),
        ("name", "given.first() & sirname", "Patient.name has no element sirname (at byte 16)"),
        ("name", "birthDate", "Patient.name has no element birthDate (at byte 0)"),
    ];
    for (each, path, message) in cases {
        assert_eq!(refused(each, path).as_deref(), Some(message));
    }
}

#[test]
fn the_projects_own_views_compile_and_name_elements_that_exist() {
    let env = Env::fhir().definitions(fhirehose_fhir::element_type);
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../views/warehouse");
    let mut problems = Vec::new();
    let mut views = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            views += 1;
            let compiled = View::compile(&std::fs::read_to_string(&path).unwrap(), &env);
            problems.extend(compiled.err().map(|error| format!("{}: {error}", path.display())));
        }
    }
    assert!(views > 0);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
