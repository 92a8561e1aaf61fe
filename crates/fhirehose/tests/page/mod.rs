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

/// Puts the page's files (```` ```json file=NAME ````) into a folder that has only our topics and schemas, and runs its
/// commands (`$ ` in ```` ```console ````) there, each of which must write what stands below it; how many commands
/// there were.
pub fn examples(page: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let page = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for ours in ["topics", "schemas"] {
        std::os::unix::fs::symlink(root.join(ours), dir.path().join(ours)).unwrap();
    }
    for kind in ["```json file=", "```yaml file=", "```csv file="] {
        for file in page.split(kind).skip(1) {
            let (name, text) = file.split_once('\n').unwrap();
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.split_once("```").unwrap().0).unwrap();
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
