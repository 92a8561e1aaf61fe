//! The examples of a page of the docs, run as they stand there.

use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fhirehose");

/// What a command writes, errors among the results they came with, and its exit code.
pub fn shell(dir: &Path, command: &str) -> (String, Option<i32>) {
    let bin = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1\n{command}")]).env("PATH", path).current_dir(dir);
    let output = shell.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// Puts the page's files (```` ```json file=NAME ````) into an empty folder and runs its commands (`$ ` in
/// ```` ```console ````) there, each of which must write what stands below it; how many commands there were.
pub fn examples(page: &str) -> usize {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let (page, dir) = (std::fs::read_to_string(page).unwrap(), tempfile::tempdir().unwrap());
    for kind in ["```json file=", "```yaml file="] {
        for file in page.split(kind).skip(1) {
            let (name, text) = file.split_once('\n').unwrap();
            std::fs::write(dir.path().join(name), text.split_once("```").unwrap().0).unwrap();
        }
    }
    let mut commands = 0;
    for block in page.split("```console\n").skip(1) {
        for example in block.split_once("```").unwrap().0.split("$ ").skip(1) {
            let (command, wanted) = example.split_once('\n').unwrap();
            assert_eq!(shell(dir.path(), command).0, wanted, "{command}");
            commands += 1;
        }
    }
    commands
}
