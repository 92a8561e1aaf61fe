//! The judges that are not ours, as processes: a resource per line in, `<line>\t<finding>` out, `done <count>` last.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fhirehose_fhir::Version;

pub struct Judge {
    pub name: &'static str,
    pub version: Version,
    /// How many resources it is given, of how many it could be given.
    pub limit: usize,
    command: Box<dyn Fn() -> Command>,
}

/// Those that are installed, with `official` resources for the slow one; none if no judge is.
pub fn installed(official: usize) -> Vec<Judge> {
    let Some(dir) = std::env::var_os("FHIREHOSE_TEST_ORACLES").map(PathBuf::from) else { return Vec::new() };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracles");
    let (py, py5) = (dir.join("py/bin/python"), dir.join("py5/bin/python"));
    let (schema, jars) = (dir.join("package/dist/fhir/r4/fhir.schema.json"), dir.join("hapi-8.8.1-classes"));
    let python = |python: &Path, script: &str, args: &[&Path]| -> Box<dyn Fn() -> Command> {
        let args: Vec<PathBuf> =
            std::iter::once(scripts.join(script)).chain(args.iter().map(PathBuf::from)).collect();
        let python = python.to_owned();
        Box::new(move || {
            let mut command = Command::new(&python);
            command.args(&args);
            command
        })
    };
    let class_path = format!("{0}/hapi-8.8.1-classes:{0}/hapi-8.8.1/*", dir.display());
    let java = Box::new(move || {
        let mut command = Command::new("java");
        command.args(["-Xmx1g", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
        command.args([&class_path, "FhirValidate"]);
        command
    });
    let judge = |name, version, limit, command| Judge { name, version, limit, command };
    let all = [
        (
            py.exists(),
            judge("fhir.resources 6.4.0", Version::R4, usize::MAX, python(&py, "fhir_resources.py", &[])),
        ),
        (
            py5.exists(),
            judge("fhir.resources 8.3.0", Version::R5, usize::MAX, python(&py5, "fhir_resources.py", &[])),
        ),
        (
            schema.exists(),
            judge("JSON Schema", Version::R4, usize::MAX, python(&py, "fhir_schema.py", &[&schema])),
        ),
        (jars.exists(), judge("official validator", Version::R4, official, java)),
    ];
    all.into_iter().filter_map(|(is, judge)| is.then_some(judge)).collect()
}

impl Judge {
    /// All it finds wrong, by the resource's number.
    pub fn findings(&self, resources: &[String]) -> BTreeMap<usize, Vec<String>> {
        let started =
            (self.command)().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        let mut input = BufWriter::new(child.stdin.take().unwrap());
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                for resource in resources {
                    if writeln!(input, "{resource}").is_err() {
                        break;
                    }
                }
            });
            child.wait_with_output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stdout);
        let done = format!("done {}", resources.len());
        let last = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().last(), Some(&*done), "{}: {last}", self.name);
        let mut found = BTreeMap::<usize, Vec<String>>::new();
        for (line, finding) in said.lines().filter_map(|line| line.split_once('\t')) {
            found.entry(line.parse::<usize>().unwrap() - 1).or_default().push(finding.to_owned());
        }
        found
    }
}
