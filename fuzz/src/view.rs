//! ViewDefinitions by anybody, on resources by anybody.

use fhirehose_fhir::element_type;
use fhirehose_fhirpath::Env;
use fhirehose_tape::Tape;
use fhirehose_views::{Cell, ColumnType, View};

/// A line with a definition, then a resource. A definition is refused or has rows, each of its columns' types.
pub fn view(input: &[u8]) {
    let (definition, resource) = match crate::parts(input) {
        Some(parts) => parts,
        None => (std::str::from_utf8(input).unwrap_or_default(), &b"{}"[..]),
    };
    let untyped = View::compile(definition, &Env::fhir());
    let Ok(view) = View::compile(definition, &Env::fhir().definitions(element_type)) else { return };
    assert!(untyped.is_ok(), "compiles with definitions only");
    let mut tape = Tape::new();
    if tape.parse_json(resource).is_err() {
        return;
    }
    let (first, first_outcome) = rows(&view, &tape);
    let (second, second_outcome) = rows(&view, &tape);
    assert!(first_outcome == second_outcome && first == second, "the second time it has other rows");
    if let Err(error) = first_outcome {
        assert!(first == 0, "rows, and an error");
        let columns = view.columns().iter().any(|column| column.name == error.column);
        let others = ["where", "forEach", "repeat", "rows"].contains(&&*error.column);
        assert!(columns || others, "an error of a column that is none");
    }
}

fn rows(view: &View, tape: &Tape) -> (usize, Result<(), fhirehose_views::RowError>) {
    let mut count = 0;
    let outcome = view.rows(tape.root(), &mut |cells| {
        count += 1;
        assert!(cells.len() == view.columns().len(), "a row of another length");
        for (cell, column) in cells.iter().zip(view.columns()) {
            let kind = if column.collection { ColumnType::Json } else { column.kind };
            assert!(is_of(cell, kind), "a cell of another type");
        }
    });
    (count, outcome)
}

fn is_of(cell: &Cell<'_>, kind: ColumnType) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Json(json) => kind == ColumnType::Json && is_json(json),
        _ if kind == ColumnType::Any => true,
        Cell::Bool(_) => kind == ColumnType::Boolean,
        Cell::Integer(_) => kind == ColumnType::Integer,
        Cell::Decimal(text) => kind == ColumnType::Decimal && is_json(text.as_bytes()),
        Cell::Text(_) => kind == ColumnType::Text,
        Cell::Date(_) => kind == ColumnType::Date,
        Cell::DateTime(_) => kind == ColumnType::DateTime,
        Cell::Time(_) => kind == ColumnType::Time,
    }
}

fn is_json(text: &[u8]) -> bool {
    let read = Tape::new().parse_json(text);
    // A document in an array is a level deeper.
    matches!(read, Ok(()) | Err(fhirehose_tape::JsonError::TooDeep { .. }))
}
