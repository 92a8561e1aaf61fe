//! What must hold for input by anybody: each target reads bytes, and panics where a promise of a crate is broken.
//! The fuzzer in `libfuzzer/` looks for such bytes; the tests here run what it has found, and the seeds.

mod fhirpath;
mod fpml;
mod json;
mod validator;
mod view;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; each is a program of `libfuzzer/` too.
pub const TARGETS: &[Target] = &[
    ("json", json::json),
    ("fhirpath_parse", fhirpath::parse),
    ("fhirpath_eval", fhirpath::eval),
    ("fpml", fpml::fpml),
    ("view", view::view),
    ("validator", validator::validator),
];

/// Runs the target of that name on an input.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    assert!(target.is_some(), "no target {name}");
    if let Some((_, target)) = target {
        target(input);
    }
}

/// An input of two parts, the first of which is the first line. `None` where it is not.
fn parts(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    Some((std::str::from_utf8(&input[..end]).ok()?, &input[end + 1..]))
}
