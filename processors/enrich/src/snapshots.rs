use std::collections::BTreeMap;
use std::path::Path;

use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions};
use fhirehose_state::Target;
use fhirehose_tape::Value;

/// What is kept of every reference target, by resource type: `schemas/snapshots.yaml`.
pub struct Snapshots {
    types: BTreeMap<String, Vec<(String, Expr)>>,
}

impl Snapshots {
    /// Reads and compiles the declaration below the shapes' directory.
    pub fn load(dir: &Path) -> Result<Snapshots, Vec<String>> {
        let path = dir.join("schemas/snapshots.yaml");
        let whole = |message: String| vec![format!("{}: {message}", path.display())];
        let text =
            std::fs::read_to_string(&path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        Snapshots::parse(&text).map_err(|problems| problems.into_iter().flat_map(whole).collect())
    }

    pub fn parse(text: &str) -> Result<Snapshots, Vec<String>> {
        let declared: BTreeMap<String, BTreeMap<String, String>> =
            serde_yaml_ng::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let mut types = BTreeMap::new();
        for (resource_type, values) in declared {
            let env = Env::fhir().definitions(fhirehose_fhir::element_type).of(&resource_type);
            let mut compiled = Vec::new();
            for (name, path) in values {
                match Expr::compile(&path, &env) {
                    Ok(expr) => compiled.push((name, expr)),
                    Err(error) => problems.push(format!("{resource_type}.{name}: {error}")),
                }
            }
            types.insert(resource_type, compiled);
        }
        if problems.is_empty() { Ok(Snapshots { types }) } else { Err(problems) }
    }

    /// Resource types that can be targets.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    pub fn is_target(&self, resource_type: &str) -> bool {
        self.types.contains_key(resource_type)
    }

    /// Where in a target of each type a value of that name stands.
    pub fn positions(&self, name: &str) -> BTreeMap<String, usize> {
        let position = |values: &Vec<(String, Expr)>| values.iter().position(|(n, _)| n == name);
        self.types.iter().filter_map(|(t, values)| Some((t.clone(), position(values)?))).collect()
    }

    /// Everything declared in one text: a saved store of another declaration is of no use.
    pub fn declaration(&self) -> String {
        let mut text = String::new();
        for (resource_type, values) in &self.types {
            for (name, expr) in values {
                text.extend([resource_type, ".", name, "=", expr.source(), "\n"]);
            }
        }
        text
    }

    /// The target a resource is; values that are missing or no scalar are left out.
    pub fn target(&self, resource_type: &str, offset: i64, resource: Value<'_>) -> Target {
        let ctx = Ctx::new(resource, &NoFunctions);
        let values = self.types.get(resource_type).into_iter().flatten().map(|(_, expr)| {
            // An evaluation error, such as more than one item where one is needed, leaves the value out:
            // the resource itself was valid, and a record that copies it says null.
            let items = expr.eval(&ctx).ok()?;
            items.first().and_then(|item| item.text().map(|text| text.into_owned()))
        });
        let values: Vec<Option<String>> = values.collect();
        Target::new(offset, true, values.iter().map(Option::as_deref))
    }
}
