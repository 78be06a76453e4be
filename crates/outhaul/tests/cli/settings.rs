//! `outhaul config show`, and problems of all sources at once.

use crate::{Folder, Ran};

#[test]
fn the_sources_are_ranked_and_told() {
    let folder = Folder::new();
    folder.write("outhaul.toml", "[listen]\nhttp = 9001\ngrpc = 'off'\n");
    let mut command = folder.outhaul(&["config", "show", "--origin", "--log-level", "debug"]);
    command.env("OUTHAUL_HTTP", "127.0.0.1:9002");
    let shown = Ran::new(command.output().unwrap()).ok();
    let origin_of = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).expect(key);
        line.split_once("  # ").expect(line).1.to_owned()
    };
    assert_eq!(origin_of("http = \"127.0.0.1:9002\""), "environment OUTHAUL_HTTP");
    assert_eq!(origin_of("grpc = \"off\""), "outhaul.toml:3");
    assert_eq!(origin_of("level = \"debug\""), "flag --log-level");
    assert_eq!(origin_of("engine = \"auto\""), "default");
    let json = folder.run(&["config", "show", "--output", "json"]).json();
    assert_eq!(json["listen.http"], "127.0.0.1:9001");
}

#[test]
fn every_problem_is_told_before_anything_starts() {
    let folder = Folder::new();
    folder.write("outhaul.toml", "[listen]\nhtttp = 9001\n");
    folder.write("other.toml", "[log]\nlevel = 'loud'\n");
    let error = folder.run(&["serve", "--grpc", "nowhere"]).failed();
    assert_eq!(
        error,
        "error: 2 problems:\n  outhaul.toml:2: listen.htttp = 9001: unknown key; did you mean \
         listen.http?\n  --grpc: nowhere: must be an IP address and a port; write 127.0.0.1:8080, \
         a port alone for this machine only, or off\n"
    );
    let error = folder.run(&["serve", "--config", "other.toml"]).failed();
    assert!(error.starts_with("error: other.toml:2: log.level = \"loud\": must be "), "{error}");
    let error = folder.run(&["serve", "--config", "missing.toml"]).failed();
    assert!(error.starts_with("error: missing.toml: cannot be read"), "{error}");
}

#[test]
fn a_misspelt_variable_is_noted() {
    let folder = Folder::new();
    let mut command = folder.outhaul(&["config", "show"]);
    command.env("OUTHAUL_HTPP", "9000").env("OUTHAUL_SERVICE_HOST", "10.0.0.1");
    let ran = Ran::new(command.output().unwrap());
    let note =
        "note: the environment variable OUTHAUL_HTPP is not read; did you mean OUTHAUL_HTTP?";
    assert_eq!(ran.err.trim_end(), note);
    assert_eq!(ran.code, Some(0));
}
