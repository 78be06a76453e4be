//! What `--help` says, kept as text. `OUTHAUL_BLESS=1` writes the files anew; the diff is reviewed.

use std::fs;
use std::path::PathBuf;

use crate::Folder;

fn golden(name: &str, text: &str) -> Result<(), String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == text {
        return Ok(());
    }
    let differ = |(expected, found): &(&str, &str)| expected != found;
    let first = expected.lines().zip(text.lines()).find(differ);
    let (expected, found) = first.unwrap_or(("(its end)", "(other lines)"));
    Err(format!("{name}: expected `{expected}`, found `{found}`"))
}

#[test]
fn help_says_what_it_said() {
    let folder = Folder::new();
    let commands: [&[&str]; 24] = [
        &[],
        &["serve"],
        &["predict"],
        &["inspect"],
        &["import"],
        &["models"],
        &["models", "list"],
        &["models", "load"],
        &["models", "unload"],
        &["route"],
        &["route", "set"],
        &["route", "list"],
        &["rollout"],
        &["rollout", "start"],
        &["rollout", "status"],
        &["rollout", "rollback"],
        &["rollout", "journal"],
        &["bench"],
        &["doctor"],
        &["demo"],
        &["config"],
        &["config", "show"],
        &["completions"],
        &["help"],
    ];
    let mut wrong = Vec::new();
    for command in commands {
        let mut arguments = command.to_vec();
        if command != ["help"] {
            arguments.push("--help");
        }
        let help = folder.run(&arguments).ok();
        if command == ["help"] || command.is_empty() {
            assert!(help.contains("outhaul serve models"), "{help}");
        } else {
            assert!(help.contains("Examples:") || command == ["config"], "{command:?}: {help}");
        }
        let name = std::iter::once("help").chain(command.iter().copied()).collect::<Vec<_>>();
        wrong.extend(golden(&format!("{}.txt", name.join("-")), &help).err());
    }
    assert_eq!(wrong, [] as [String; 0], "if this is meant, run again with OUTHAUL_BLESS=1");
}

#[test]
fn a_wrong_command_line_is_told_what_was_meant() {
    let folder = Folder::new();
    let ran = folder.run(&["server"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("'serve'"), "{ran:?}");
    let ran = folder.run(&["serve", "--htpp", "1"]);
    assert!(ran.err.contains("'--http'"), "{ran:?}");
}
