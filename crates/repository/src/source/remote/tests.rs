//! What a network, a disk and a kill do to a fetch.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::store_for_tests::{Fault, Store};
use super::*;

const MODEL: &str = "models/iris/1/model.onnx";

struct Setup {
    store: Store,
    folder: TempDir,
    runtime: Runtime,
}

impl Setup {
    fn new() -> Self {
        let store = Store::start();
        store.put(MODEL, b"the content of a model");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Setup { store, folder: TempDir::new().unwrap(), runtime }
    }

    fn cache(&self) -> Cache {
        Cache::open(self.folder.path(), None).unwrap()
    }

    fn source(&self) -> Remote {
        self.source_over(self.cache())
    }

    fn source_over(&self, cache: Cache) -> Remote {
        let address = Address::paged(Store::client(self.store.address), "REMEDY");
        let (place, path) = ("s3://bucket/models".to_owned(), Location::from("models"));
        let address = Address { place, path, ..address };
        Remote::at(address, Arc::new(cache), self.runtime.handle().clone()).unwrap()
    }

    /// Nothing is left of a fetch that failed, while its process still runs.
    fn assert_nothing_half(&self) {
        for kept in ["versions", "blobs/sha256"] {
            let left = self.folder.path().join(kept).read_dir().unwrap().count();
            assert_eq!(left, 0, "{kept} holds something");
        }
        let processes = self.folder.path().join("tmp").read_dir().unwrap();
        for process in processes.map(|process| process.unwrap().path()) {
            assert_eq!(process.join("uses").read_dir().unwrap().count(), 0);
            let work = process.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
            let work: Vec<_> = work.filter(|name| name != "uses" && name != "alive").collect();
            assert_eq!(work, ["mirror-0"]);
        }
    }
}

fn iris(source: &Remote) -> VersionArtefact {
    source.look().unwrap().models[0].versions[0].clone()
}

#[test]
fn a_fetch_that_fails_leaves_nothing_and_says_whether_to_try_again() {
    struct Case {
        fault: Fault,
        says: &'static str,
        passing: bool,
    }
    let cases = [
        Case { fault: Fault::ObjectStatus(500), says: "It is so. (InternalError)", passing: true },
        Case { fault: Fault::ObjectStatus(503), says: "It is so.", passing: true },
        Case { fault: Fault::HalfABody, says: "error", passing: true },
        Case { fault: Fault::Longer, says: "has changed since it was found", passing: false },
        Case { fault: Fault::ObjectStatus(412), says: "has changed", passing: false },
        Case { fault: Fault::ObjectStatus(404), says: "(NoSuchKey)", passing: false },
        Case {
            fault: Fault::Denied(MODEL),
            says: "access was refused: It is so. (AccessDenied); REMEDY",
            passing: false,
        },
    ];
    for case in cases {
        let setup = Setup::new();
        let source = setup.source();
        let artefact = iris(&source);
        setup.store.fail(case.fault.clone());
        let error = source.fetch(&artefact).unwrap_err();
        assert!(error.place.ends_with(MODEL), "{:?}: {error}", case.fault);
        assert!(error.reason.contains(case.says), "{:?}: {error}", case.fault);
        assert_eq!(error.passing, case.passing, "{:?}: {error}", case.fault);
        setup.assert_nothing_half();

        setup.store.fail(Fault::Nothing);
        let file = source.fetch(&artefact).unwrap();
        assert_eq!(fs::read(file).unwrap(), b"the content of a model", "{:?}", case.fault);
    }
}

#[test]
fn a_look_that_fails_says_so() {
    struct Case {
        fault: Fault,
        says: &'static str,
        passing: bool,
    }
    let cases = [
        Case { fault: Fault::Status(500), says: "It is so. (InternalError)", passing: true },
        Case { fault: Fault::Status(403), says: "REMEDY", passing: false },
        Case { fault: Fault::Status(404), says: "check the URL", passing: false },
    ];
    for case in cases {
        let setup = Setup::new();
        let source = setup.source();
        let before = iris(&source);
        setup.store.fail(case.fault.clone());
        let error = source.look().unwrap_err();
        assert_eq!(error.place, "s3://bucket/models", "{:?}", case.fault);
        assert!(error.reason.contains(case.says), "{:?}: {error}", case.fault);
        assert_eq!(error.passing, case.passing, "{:?}: {error}", case.fault);
        setup.store.fail(Fault::Nothing);
        assert_eq!(iris(&source), before, "{:?}", case.fault);
        // What was found before can still be fetched.
        source.fetch(&before).unwrap();
    }
}

#[test]
fn a_server_that_is_not_there_is_a_passing_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut setup = Setup::new();
    setup.store.address = address;
    let error = setup.source().look().unwrap_err();
    assert!(error.passing, "{error}");
}

#[test]
fn content_that_changes_after_the_listing_is_an_error() {
    let setup = Setup::new();
    let source = setup.source();
    let artefact = iris(&source);
    // Of the same size, so that only the tag tells.
    setup.store.put(MODEL, b"the content of a mofel");
    let error = source.fetch(&artefact).unwrap_err();
    assert!(error.reason.contains("has changed since it was found"), "{error}");
    setup.assert_nothing_half();
    let now = iris(&source);
    assert_ne!(now.identity, artefact.identity);
    assert_eq!(fs::read(source.fetch(&now).unwrap()).unwrap(), b"the content of a mofel");
}

#[test]
fn files_that_a_transform_needs_come_along_and_their_change_is_seen() {
    let setup = Setup::new();
    let declared = b"transform.input.kind = 'text'\ntransform.output = { kind = 'classification', \
                     labels = 'assets/labels.bin' }";
    // More than a declaration may have, and so not read until it is known to be needed.
    let tokenizer = vec![b' '; 2 * 1024 * 1024];
    setup.store.put("models/iris/model.toml", declared);
    setup.store.put("models/iris/tokenizer.json", &tokenizer);
    setup.store.put("models/iris/assets/labels.bin", b"a\nb");
    setup.store.put("models/iris/sample.json", b"[{}]");
    let source = setup.source();
    let files = |scan: &Scan| {
        let files = files_of(&scan.models[0].manifest);
        files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let first = source.look().unwrap();
    assert_eq!(first.problems, []);
    let content = vec![tokenizer.clone(), b"a\nb".to_vec(), b"[{}]".to_vec()];
    assert_eq!(files(&first), content);
    setup.store.put("models/README.md", b"another object");
    let beside = |scan: &Scan| scan.models[0].beside.clone();
    assert_eq!(beside(&source.look().unwrap()), beside(&first), "none of them has changed");

    setup.store.put("models/iris/assets/labels.bin", b"a\nc");
    let changed = source.look().unwrap();
    assert_ne!(beside(&changed), beside(&first));
    assert_eq!(changed.models[0].versions, first.models[0].versions);
    assert_eq!(files(&changed)[1], b"a\nc");

    setup.store.put("models/iris/assets/labels.bin", &vec![0; LARGEST_NAMED as usize + 1]);
    let large = source.look().unwrap();
    let shown: Vec<String> = large.problems.iter().map(Problem::to_string).collect();
    let expected = "s3://bucket/models/iris/assets/labels.bin: is larger than 64 MiB; declare a \
                    smaller file";
    assert_eq!((shown, large.models.len()), (vec![expected.to_owned()], 0));
    assert_eq!(large.refused.len(), 1, "what is in service goes on");
}

#[test]
fn a_body_that_breaks_off_is_taken_up_where_it_ended() {
    let setup = Setup::new();
    let source = setup.source();
    let artefact = iris(&source);
    setup.store.fail(Fault::HalfABodyOnce);
    let file = source.fetch(&artefact).unwrap();
    assert_eq!(fs::read(file).unwrap(), b"the content of a model");
    let gets = setup.store.state().requests.iter().filter(|line| line.contains("iris")).count();
    assert_eq!(gets, 2);
}

#[test]
fn a_store_whose_listing_writes_tags_otherwise_is_read_all_the_same() {
    let setup = Setup::new();
    setup.store.fail(Fault::BareTagsInListings);
    let source = setup.source();
    let artefact = iris(&source);
    source.fetch(&artefact).unwrap();
    setup.store.put(MODEL, b"another model content");
    let artefact = iris(&source);
    setup.store.put(MODEL, b"another model kontent");
    assert!(source.fetch(&artefact).unwrap_err().reason.contains("has changed"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_passing_failure_and_leaves_nothing() {
    let setup = Setup::new();
    let mut cache = setup.cache();
    // Every write to this device fails as on a full disk.
    cache.create = |_| fs::File::options().write(true).open("/dev/full");
    let source = setup.source_over(cache);
    let error = source.fetch(&iris(&source)).unwrap_err();
    assert!(error.passing, "{error}");
    assert!(error.reason.starts_with("there is no room on the disk"), "{error}");
    assert!(error.place.ends_with("model.onnx"), "{error}");
    setup.assert_nothing_half();
}

#[test]
fn threads_that_want_the_same_version_share_one_download() {
    let setup = Setup::new();
    let source = setup.source();
    let artefact = iris(&source);
    thread::scope(|scope| {
        let fetches: Vec<_> = (0..8).map(|_| scope.spawn(|| source.fetch(&artefact))).collect();
        for fetch in fetches {
            assert!(fetch.join().unwrap().unwrap().exists());
        }
    });
    let gets = setup.store.state().requests.iter().filter(|line| line.contains("iris")).count();
    assert_eq!(gets, 1);
}

#[test]
fn names_that_no_path_can_hold_hide_nothing() {
    let setup = Setup::new();
    for number in 1..40 {
        setup.store.put(&format!("models/model{number:02}/1/model.onnx"), b"content");
    }
    let bad =
        ["models//empty", "models/model05/../../../etc/passwd", "models/model20/./1/model.onnx"];
    for name in bad {
        setup.store.put(name, b"bad");
    }
    let source = setup.source();
    let scan = source.look().unwrap();
    assert_eq!(scan.models.len(), 40);
    let mut problems: Vec<String> = scan.problems.iter().map(ToString::to_string).collect();
    problems.sort();
    assert_eq!(problems.len(), bad.len(), "{problems:#?}");
    for (problem, name) in problems.iter().zip(bad) {
        assert!(problem.starts_with("s3://bucket/models: the object "), "{problem}");
        assert!(problem.contains(name), "{problem}");
    }
}

#[test]
fn a_declaration_that_is_refused_refuses_its_model_alone() {
    let setup = Setup::new();
    setup.store.put("models/secret/1/model.onnx", b"content");
    setup.store.put("models/secret/model.toml", b"[batching]\nmax_rows = 2\n");
    setup.store.fail(Fault::Denied("models/secret/model.toml"));
    let source = setup.source();
    let scan = source.look().unwrap();
    let names: Vec<_> = scan.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["iris"]);
    assert_eq!(scan.refused.len(), 1);
    let problem = scan.problems[0].to_string();
    assert!(problem.starts_with("s3://bucket/models/secret/model.toml: access was refused"));
    assert_eq!(scan.problems.len(), 1);
    setup.store.fail(Fault::Nothing);
    assert_eq!(source.look().unwrap().models.len(), 2);
}

#[test]
fn a_declaration_that_changes_while_it_is_looked_at_is_looked_at_again() {
    let setup = Setup::new();
    setup.store.put("models/iris/model.toml", b"[batching]\nmax_rows = 2\n");
    let new = b"[batching]\nmax_rows = 9\n";
    setup.store.fail(Fault::ChangesBehind("models/iris/model.toml", new));
    let scan = setup.source().look().unwrap();
    assert_eq!(scan.models[0].manifest.batching.max_rows.get(), 9);
}

#[test]
fn a_declaration_that_cannot_be_had_fails_the_look() {
    let setup = Setup::new();
    setup.store.put("models/iris/model.toml", b"[batching]\nmax_rows = 2\n");
    setup.store.fail(Fault::ObjectStatus(500));
    let source = setup.source();
    let error = source.look().unwrap_err();
    assert!(error.passing, "{error}");
    assert_eq!(error.place, "s3://bucket/models/iris/model.toml");
    setup.store.fail(Fault::Nothing);
    assert_eq!(source.look().unwrap().models[0].manifest.batching.max_rows.get(), 2);
}

const CHILD: &str = "OUTHAUL_TEST_FETCH_FROM";

#[test]
fn a_process_that_is_killed_while_it_fetches_leaves_a_sound_cache() {
    let setup = Setup::new();
    // The folders as a first process makes them.
    drop(setup.cache());
    for (killed, arrived) in [0, 1, 11, 21].into_iter().enumerate() {
        setup.store.fail(Fault::Silence(arrived));
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "source::remote::tests::fetch_in_a_process_of_its_own"])
            .args(["--ignored", "--nocapture"])
            .env(CHILD, format!("{} {}", setup.store.address, setup.folder.path().display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        setup.store.wait_for_silence(killed + 1);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = setup.folder.path().join("tmp").read_dir().unwrap().count();
        assert_eq!(left, 1, "the killed process leaves its folder");
        setup.store.fail(Fault::Nothing);
        let source = setup.source();
        source.look().unwrap();
        // Only this process's own folder is left, and no version.
        setup.assert_nothing_half();
    }
    let source = setup.source();
    let file = source.fetch(&iris(&source)).unwrap();
    assert_eq!(fs::read(file).unwrap(), b"the content of a model");
}

#[test]
#[ignore = "run by the test above as a process that is killed"]
fn fetch_in_a_process_of_its_own() {
    let Ok(setup) = env::var(CHILD) else { return };
    let (address, folder) = setup.split_once(' ').unwrap();
    let address = Address::paged(Store::client(address.parse().unwrap()), "REMEDY");
    let (place, path) = ("s3://bucket/models".to_owned(), Location::from("models"));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cache = Arc::new(Cache::open(folder, None).unwrap());
    let source = Remote::at(Address { place, path, ..address }, cache, runtime.handle().clone());
    let source = source.unwrap();
    let _ = source.fetch(&iris(&source));
    panic!("this was to be killed");
}
