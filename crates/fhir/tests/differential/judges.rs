//! The judges that are not ours. Those that are processes get a resource per line and answer `<line>\t<finding>` for
//! whatever is wrong, `done <count>` at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fhirbolt::element::Element;
use fhirbolt::{FhirRelease, FhirReleases};
use fhirehose_fhir::Version;
use fhirehose_testkit::differential::ask;
use fhirehose_testkit::root;

/// What is wrong with resources, by their number.
pub type Findings = BTreeMap<usize, Vec<String>>;

type Verdicts = Box<dyn Fn(&[&str]) -> Findings + Sync>;

pub struct Judge {
    pub name: &'static str,
    pub version: Version,
    /// How many resources it gets: a slow one gets the first of them.
    pub limit: usize,
    judge: Verdicts,
}

impl Judge {
    pub fn findings(&self, resources: &[&str]) -> Findings {
        (self.judge)(resources)
    }
}

/// All of them, of what is installed in a directory; `official` resources for the official validator.
pub fn all(dir: &Path, official: usize) -> Vec<Judge> {
    let python = |environment: &str, script: &str, argument: &str| {
        let (python, script) = (dir.join(environment), root().join("tests/oracles").join(script));
        let argument = (!argument.is_empty()).then(|| dir.join(argument));
        process(
            python.join("bin/python"),
            std::iter::once(script).chain(argument).map(PathBuf::into_os_string),
        )
    };
    let class_path = format!("{0}/hapi-8.8.1-classes:{0}/hapi-8.8.1/*", dir.display());
    let java = ["-Xmx1g", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"];
    let java = process("java".into(), java.into_iter().chain([&*class_path, "FhirValidate"]).map(Into::into));
    let schema = "package/dist/fhir/r4/fhir.schema.json";
    let judge = |name, version, judge| Judge { name, version, limit: usize::MAX, judge };
    vec![
        judge("fhir.resources 6.4.0", Version::R4, python("py", "fhir_resources.py", "")),
        judge("fhir.resources 8.3.0", Version::R5, python("py5", "fhir_resources.py", "")),
        judge("JSON Schema", Version::R4, python("py", "fhir_schema.py", schema)),
        judge("fhirbolt 0.4", Version::R4, Box::new(fhirbolt::<{ FhirReleases::R4 }>)),
        judge("fhirbolt 0.4", Version::R5, Box::new(fhirbolt::<{ FhirReleases::R5 }>)),
        Judge { limit: official, ..judge("official validator", Version::R4, java) },
    ]
}

fn process(program: PathBuf, arguments: impl Iterator<Item = std::ffi::OsString>) -> Verdicts {
    let arguments: Vec<_> = arguments.collect();
    Box::new(move |resources| {
        let mut command = Command::new(&program);
        command.args(&arguments);
        let answers = ask(command, resources);
        assert_eq!(answers.last(), Some(&format!("done {}", resources.len())), "{}", program.display());
        let mut found = Findings::new();
        for (line, finding) in answers.iter().filter_map(|line| line.split_once('\t')) {
            found.entry(line.parse::<usize>().unwrap() - 1).or_default().push(finding.to_owned());
        }
        found
    })
}

/// The generic element of fhirbolt, read strictly.
fn fhirbolt<const R: FhirRelease>(resources: &[&str]) -> Findings {
    let judge = |json: &str| fhirbolt::json::from_str::<Element<R>>(json, None).err();
    let judged = resources.iter().enumerate();
    judged.filter_map(|(at, json)| Some((at, vec![judge(json)?.to_string()]))).collect()
}
