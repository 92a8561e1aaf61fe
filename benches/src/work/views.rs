//! Views and expressions over Synthea's resources.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions};
use fhirehose_tape::{Tape, write_string};
use fhirehose_views::{Cell, View};

use super::{Work, decoded};
use crate::resources::Resources;

/// Views that are measured, in `benches/views`.
pub const VIEWS: [&str; 3] = ["observation", "encounter", "claim_item"];

/// A view, from the bytes of resources to the text of rows.
pub struct Rows {
    view: View,
    /// What stands before each cell.
    names: Vec<Vec<u8>>,
    resources: Vec<String>,
    tape: Tape,
    scratch: fhirehose_views::Scratch,
}

/// The text of a view of ours.
pub fn definition(root: &Path, name: &str) -> Result<String> {
    let file = root.join(format!("benches/views/{name}.json"));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

impl Rows {
    pub fn new(definition: &str, resources: &Resources) -> Result<Rows> {
        // As `fhirehose views run` compiles it.
        let view = View::compile(definition, &Env::fhir().definitions(fhirehose_fhir::element_type))?;
        let before = |(n, column): (usize, &fhirehose_views::Column)| {
            let mut before = vec![if n == 0 { b'{' } else { b',' }];
            write_string(&column.name, &mut before);
            before.push(b':');
            before
        };
        let names = view.columns().iter().enumerate().map(before).collect();
        let resources = resources.of(view.resource())?;
        Ok(Rows { view, names, resources, tape: Tape::new(), scratch: Default::default() })
    }

    pub fn resources(&self) -> &[String] {
        &self.resources
    }
}

impl Work for Rows {
    fn records(&self) -> usize {
        self.resources.len()
    }

    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
        let (mut rows, names) = (0, &self.names);
        for resource in &self.resources {
            self.tape.parse_json(resource.as_bytes())?;
            self.view.rows_in(&mut self.scratch, self.tape.root(), &mut |row: &[Cell<'_>]| {
                for (before, cell) in names.iter().zip(row) {
                    out.extend_from_slice(before);
                    write_cell(out, cell);
                }
                out.extend_from_slice(b"}\n");
                rows += 1;
            })?;
        }
        Ok(rows)
    }
}

fn write_cell(out: &mut Vec<u8>, cell: &Cell<'_>) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        // Writing to a vector cannot fail.
        Cell::Integer(value) => drop(write!(out, "{value}")),
        Cell::Decimal(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Text(text) | Cell::Date(text) | Cell::DateTime(text) | Cell::Time(text) => {
            write_string(text, out);
        }
        Cell::Json(json) => out.extend_from_slice(json),
    }
}

/// An expression over decoded resources. Results are dropped unless they are asked for.
pub struct Evaluations {
    expression: Expr,
    resources: Vec<Tape>,
    pub shown: bool,
}

impl Evaluations {
    pub fn new(expression: &str, of: &str, resources: &[String]) -> Result<Evaluations> {
        let env = Env::fhir().definitions(fhirehose_fhir::element_type).of(of);
        let expression = Expr::compile(expression, &env)?;
        Ok(Evaluations { expression, resources: decoded(resources)?, shown: false })
    }
}

impl Work for Evaluations {
    fn records(&self) -> usize {
        self.resources.len()
    }

    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize> {
        for resource in &self.resources {
            let items = self.expression.eval(&Ctx::new(resource.root(), &NoFunctions))?;
            if !self.shown {
                std::hint::black_box(&items);
                continue;
            }
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                out.extend_from_slice(if n > 0 { b"," } else { b"" });
                item.write_json(out);
            }
            out.extend_from_slice(b"]\n");
        }
        Ok(self.resources.len())
    }
}
