//! The mappings of this repository compile.

use std::path::Path;

#[test]
fn the_repositorys_mappings_have_no_problems() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let problems = fhirehose_mapping::check(&root);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
