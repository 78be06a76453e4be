//! `kill -9` at any moment, then a restart: what was confirmed holds, and nothing half is ever served.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::model::marked;
use crate::server::{Answer, Folder, QUESTION, Server, Stop, mark_of, pause, send, until};

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // Xorshift: no more is needed to hit different moments.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.below(400))
    }
}

/// What a model was last asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Version(u16),
    Unloaded,
}

impl Asked {
    /// Whether this answer is what was asked for. Version `n` has the mark `n`, and there are three.
    fn is_shown_by(self, answer: &Answer) -> bool {
        match self {
            Asked::Nothing => answer.status == 200 && mark_of(answer) == 3,
            Asked::Version(version) => answer.status == 200 && mark_of(answer) == version,
            Asked::Unloaded => answer.status == 503 && answer.body.contains("unloaded"),
        }
    }
}

/// A model that is loaded and unloaded by request, and what it may be after a restart: what was
/// confirmed last, or what was asked for since without an answer.
struct Subject {
    name: String,
    confirmed: Asked,
    in_flight: Option<Asked>,
}

impl Subject {
    /// Asks for something, and notes whether that was confirmed.
    fn ask(&mut self, address: SocketAddr, asked: Asked) {
        self.in_flight = Some(asked);
        let (what, body) = match asked {
            Asked::Nothing => ("load", "{}".to_owned()),
            Asked::Version(version) => {
                ("load", format!(r#"{{"parameters":{{"version":{version}}}}}"#))
            }
            Asked::Unloaded => ("unload", "{}".to_owned()),
        };
        let path = format!("/v2/repository/models/{}/{what}", self.name);
        let Ok(answer) = send(address, "POST", &path, &body) else { return };
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        self.confirmed = asked;
        self.in_flight = None;
    }
}

/// Everything that changes while servers are killed.
struct Scene {
    folder: Folder,
    subjects: Vec<Subject>,
    /// The newest version of `swapped`, which is its mark too.
    newest: u16,
    /// The mark of the last content that `rewritten` held whole.
    whole: u16,
}

impl Scene {
    fn new() -> Self {
        let folder = Folder::new();
        folder.put_marked("steady", 1, 1);
        folder.put_marked("swapped", 1, 1);
        folder.put_marked("rewritten", 1, 1);
        let subject = |number| {
            let name = format!("subject{number}");
            (1..=3).for_each(|version| folder.put_marked(&name, version, version as u16));
            Subject { name, confirmed: Asked::Nothing, in_flight: None }
        };
        let subjects = (0..2).map(subject).collect();
        Scene { folder, subjects, newest: 1, whole: 1 }
    }

    fn spawn(&self) -> Server {
        let state = format!("sqlite:{}", self.folder.path("state.db").display());
        self.folder.spawn(&["--state", &state, "--poll-interval", "500ms"])
    }

    /// Puts a new version of `swapped` in place.
    fn put_new_version(&mut self) {
        self.newest += 1;
        self.folder.put_marked("swapped", self.newest.into(), self.newest);
        if let Some(old) = self.newest.checked_sub(3).filter(|old| *old > 0) {
            // One that goes while its successor may be on its way.
            let old = self.folder.path(format!("models/swapped/{old}"));
            fs::remove_dir_all(old).unwrap();
        }
    }

    /// Writes over a version that is served, in pieces; ends where it is told to.
    fn rewrite(&mut self, go_on: impl Fn() -> bool) {
        let mut file = self.folder.open_in_place("rewritten", 1);
        for piece in marked(self.whole + 1).chunks(8 << 10) {
            if !go_on() {
                return;
            }
            file.write_all(piece).unwrap();
            pause(Duration::from_millis(5));
        }
        self.whole += 1;
    }

    /// Writes what `rewrite` left undone.
    fn finish_rewriting(&self) {
        let mut file = self.folder.open_in_place("rewritten", 1);
        file.write_all(&marked(self.whole)).unwrap();
    }

    /// What must hold of a server that was started after another was killed.
    fn check(&mut self, server: &Server) {
        assert_eq!(server.mark("steady").unwrap(), 1);
        for subject in &mut self.subjects {
            let answer = server.ask(&subject.name);
            let held = subject.confirmed.is_shown_by(&answer);
            let came = subject.in_flight.filter(|asked| asked.is_shown_by(&answer));
            let (confirmed, in_flight) = (subject.confirmed, subject.in_flight);
            assert!(held || came.is_some(), "{confirmed:?} or {in_flight:?}: {answer:?}");
            subject.confirmed = came.unwrap_or(confirmed);
            subject.in_flight = None;
        }
        // All that was there when it started was taken up before it said that it is ready.
        assert_eq!(server.mark("swapped").unwrap(), self.newest, "{}", server.log());
        assert_eq!(server.mark("rewritten").unwrap(), self.whole, "{}", server.log());
    }
}

/// Asks a model until it is told to stop, and panics where it answers from half a file.
fn watch(address: SocketAddr, model: &str, stop: &Stop) -> usize {
    let mut answers = 0;
    while !stop.is_told() {
        let path = format!("/v2/models/{model}/infer");
        if let Ok(answer) = send(address, "POST", &path, QUESTION)
            && answer.status == 200
        {
            mark_of(&answer);
            answers += 1;
        }
        pause(Duration::from_millis(2));
    }
    answers
}

#[test]
fn what_was_confirmed_survives_kill_9_at_any_moment() {
    let mut scene = Scene::new();
    let mut dice = Dice(0x5eed_0001);
    let mut answers = 0;
    for _ in 0..20 {
        // While it starts.
        let starting = scene.spawn();
        pause(dice.moment());
        starting.kill();

        let server = scene.spawn();
        server.wait_until_ready();
        scene.check(&server);
        let (address, stop, moment) = (server.address(), Stop::default(), dice.moment());
        let asks: Vec<(usize, Asked)> = (0..50)
            .map(|_| {
                let asked = match dice.below(4) {
                    0 => Asked::Nothing,
                    1 => Asked::Unloaded,
                    _ => Asked::Version(1 + dice.below(3) as u16),
                };
                (dice.below(2) as usize, asked)
            })
            .collect();
        if dice.below(2) == 0 {
            scene.put_new_version();
        }
        let mut subjects = std::mem::take(&mut scene.subjects);
        thread::scope(|scope| {
            let (stop, subjects) = (&stop, &mut subjects);
            scope.spawn(move || {
                for (which, asked) in asks {
                    if stop.is_told() || subjects[which].in_flight.is_some() {
                        return;
                    }
                    subjects[which].ask(address, asked);
                }
            });
            let watching = ["rewritten", "swapped"]
                .map(|model| scope.spawn(move || watch(address, model, stop)));
            let scene = &mut scene;
            scope.spawn(move || scene.rewrite(|| !stop.is_told()));
            let stopping = stop.at_end();
            pause(moment);
            server.kill();
            drop(stopping);
            answers += watching.into_iter().map(|watch| watch.join().unwrap()).sum::<usize>();
        });
        scene.subjects = subjects;
        scene.finish_rewriting();
    }
    println!("{answers} answers, none of half a model");
    assert!(answers > 0);
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn kill_9_in_the_middle_of_a_fetch_leaves_no_half_artefact() {
    let (folder, bucket) = (Folder::new(), Bucket::start());
    let spawn = || {
        let mut command = folder.outhaul(&[
            "serve",
            "s3://bucket/models",
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "off",
            "--settle",
            "0s",
            "--poll-interval",
            "100ms",
            "--cache-dir",
            "cache",
        ]);
        bucket.name_to(&mut command);
        Server::spawn(command)
    };
    let put = |model: &str, version: u16| {
        bucket.put(&format!("models/{model}/{version}/model.onnx"), marked(version));
    };
    put("steady", 1);
    let mut dice = Dice(0x5eed_0002);
    let mut cut = 0;
    for version in 1..=20 {
        bucket.be_slow(true);
        put("swapped", version);
        let (server, before) = (spawn(), bucket.begun());
        let began = Instant::now();
        until("it fetches", || {
            bucket.begun() > before || began.elapsed() > Duration::from_secs(10)
        });
        pause(dice.moment());
        let was_ready = server.send("POST", "/v2/models/swapped/infer", QUESTION);
        server.kill();
        cut += usize::from(!(was_ready.status == 200 && mark_of(&was_ready) == version));

        bucket.be_slow(false);
        let server = spawn();
        server.wait_until_ready();
        assert_eq!(server.mark("steady").unwrap(), 1);
        assert_eq!(server.mark("swapped").unwrap(), version);
        check_cache(&folder, &bucket);
    }
    println!("{cut} fetches were cut");
    assert!(cut > 5, "only {cut} fetches were cut");
}

/// Everything that is kept is whole, and what was left unfinished is gone.
fn check_cache(folder: &Folder, bucket: &Bucket) {
    let mut kept = Vec::new();
    for part in ["cache/versions", "cache/blobs"] {
        files(&folder.path(part), &mut kept);
    }
    assert!(kept.len() >= 3, "{kept:?}");
    for path in kept.iter().filter(|path| !path.ends_with("manifest.json")) {
        assert!(bucket.holds(&fs::read(path).unwrap()), "{} is not whole", path.display());
    }
    let unfinished = fs::read_dir(folder.path("cache/tmp")).unwrap().count();
    assert_eq!(unfinished, 1, "only the running process works there");
}
