//! Names that mean something to a file system or to a URL, asked for from outside.

use crate::server::{Folder, QUESTION};

#[test]
fn names_in_paths_never_leave_the_models() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    // Somebody else's model, one folder up.
    let outside = folder.path("outside/1");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("model.onnx"), crate::model::marked(9)).unwrap();
    let server = folder.serve(&[]);

    let names = [
        "..",
        "%2e%2e",
        "..%2foutside",
        "%2e%2e%2foutside",
        "..%5coutside",
        "../outside",
        "sound/../../outside",
        "sound%2f..%2f..%2foutside",
        "sound%2F1",
        "sound/1",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "sound%00",
        "sound%0d%0ax-injected:%201",
        "%ff%fe",
        "%",
        "%zz",
        "s%C3%B6und",
        "%3Cscript%3E",
        "~root",
        "*",
        "$(id)",
        "",
    ];
    let long = "n".repeat(5000);
    for name in names.into_iter().chain([long.as_str()]) {
        let requests = [
            ("POST", format!("/v2/models/{name}/infer"), QUESTION),
            ("GET", format!("/v2/models/{name}"), ""),
            ("GET", format!("/v2/models/{name}/ready"), ""),
            ("GET", format!("/v2/models/sound/versions/{name}"), ""),
            ("POST", format!("/v2/repository/models/{name}/load"), "{}"),
            ("POST", format!("/v2/repository/models/{name}/unload"), "{}"),
        ];
        for (method, path, body) in requests {
            // `GET /v2/models/` and its like have other meanings.
            if name.is_empty() && method == "GET" {
                continue;
            }
            let answer = server.send(method, &path, body);
            assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
            assert!(!answer.head.to_lowercase().contains("\nx-injected"), "{path}: {answer:?}");
        }
    }
    assert_eq!(server.mark("sound").unwrap(), 7);
    // Nothing of this was taken for a model, or kept to be asked for again.
    let all = server.send("POST", "/v2/repository/index", "{}").json();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert!(!folder.path(".local/share/outhaul/state.db").exists());
}

#[test]
fn names_on_the_command_line_never_leave_the_models() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let server = folder.serve(&[]);
    let url = format!("http://{}", server.address());
    for name in ["../outside", "..", "sound/1", "/etc/passwd", "a b", "%2e%2e", "", "s\u{f6}und"] {
        for what in ["load", "unload"] {
            let mut command = folder.outhaul(&["models", what, "--url", &url, "--", name]);
            let output = command.output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{what} '{name}' succeeded");
            assert!(error.contains("is not a model name"), "{what} '{name}': {error}");
        }
    }
    assert_eq!(server.mark("sound").unwrap(), 7);
}
