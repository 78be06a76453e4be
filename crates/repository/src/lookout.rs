//! Looking at one source again and again: when asked, when the system tells of a change, and when the
//! interval is over.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::{Scan, Source, SourceError};

/// File events of one change come in flocks: a look waits until they have been still for so long.
const STILL: Duration = Duration::from_millis(20);
/// But no longer than this, or a folder that is never still would never be looked at.
const STILL_AT_MOST: Duration = Duration::from_millis(200);

/// Why to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Something has changed.
    Changed,
    /// Somebody waits for the look with this number.
    Asked(u64),
}

/// What was seen.
pub(crate) struct Looked {
    pub(crate) source: usize,
    /// The newest look that was asked for before this one began.
    pub(crate) ticket: u64,
    pub(crate) result: Result<Scan, SourceError>,
}

/// How a source is kept an eye on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vigilance {
    /// How often to look without any sign; `None` for never.
    pub(crate) interval: Option<Duration>,
    /// Whether the system is asked to tell of changes.
    pub(crate) events: bool,
}

/// Starts to look at a source; the first look is at once. The thread ends where the sender is dropped.
pub(crate) fn spawn(
    index: usize,
    source: Arc<dyn Source>,
    vigilance: Vigilance,
    report: impl Fn(Looked) + Send + 'static,
) -> io::Result<Arc<Sender<Kick>>> {
    let (send, kicks) = channel();
    let send = Arc::new(send);
    // Not the sender itself: the thread would wait for the end of what it holds.
    let kick = Arc::downgrade(&send);
    std::thread::Builder::new().name(format!("looking/{index}")).spawn(move || {
        let folder = source.folder().filter(|_| vigilance.events).map(Path::to_owned);
        let mut watched = None;
        let mut ticket = 0;
        loop {
            if let Some(folder) = &folder {
                // Before the look: what changes after it must not be missed.
                Watched::renew(&mut watched, folder, &kick);
            }
            // A mistake of ours must not end the looking with it.
            let result = catch_unwind(AssertUnwindSafe(|| source.look()));
            let result = result.unwrap_or_else(|_| {
                Err(SourceError {
                    place: source.place().to_owned(),
                    reason: "looking at it panicked; see the log".to_owned(),
                    passing: true,
                })
            });
            let is_told = watched.as_ref().is_some_and(|watched| watched.watcher.is_some());
            let interval = match (is_told && result.is_ok(), vigilance.interval) {
                // The only sign left is looking: half a minute would be long.
                (false, Some(interval)) if folder.is_some() => Some(interval.min(UNWATCHED)),
                (_, interval) => interval,
            };
            report(Looked { source: index, ticket, result });
            match wait(&kicks, interval, &mut ticket) {
                Some(()) => {}
                None => return,
            }
        }
    })?;
    Ok(send)
}

/// How often a folder is looked at that the system tells nothing of.
const UNWATCHED: Duration = Duration::from_secs(5);

/// Waits for a reason to look. `None` where nobody wants to know any more.
fn wait(kicks: &Receiver<Kick>, interval: Option<Duration>, ticket: &mut u64) -> Option<()> {
    let first = match interval {
        None => kicks.recv().ok()?,
        Some(interval) => match kicks.recv_timeout(interval) {
            Ok(kick) => kick,
            Err(RecvTimeoutError::Timeout) => return Some(()),
            Err(RecvTimeoutError::Disconnected) => return None,
        },
    };
    let began = Instant::now();
    let mut next = Some(first);
    loop {
        match next {
            Some(Kick::Asked(asked)) => {
                *ticket = asked.max(*ticket);
                // Who asks does not wait for stillness; what else was asked by now is served too.
                while let Ok(kick) = kicks.try_recv() {
                    if let Kick::Asked(asked) = kick {
                        *ticket = asked.max(*ticket);
                    }
                }
                return Some(());
            }
            Some(Kick::Changed) if began.elapsed() < STILL_AT_MOST => {}
            Some(Kick::Changed) | None => return Some(()),
        }
        next = match kicks.recv_timeout(STILL) {
            Ok(kick) => Some(kick),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return None,
        };
    }
}

/// A folder that the system was asked to tell of.
struct Watched {
    /// Which folder it is, whatever it is called by now; `None` where none was there.
    which: Option<(u64, u64)>,
    /// `None` where the system refused.
    watcher: Option<RecommendedWatcher>,
}

impl Watched {
    /// Asks the system to tell of what is at a path now: another folder may have taken the place of
    /// the one that it tells of. One that is away for a while may come back.
    fn renew(watched: &mut Option<Self>, path: &Path, kick: &Weak<Sender<Kick>>) {
        // A file is replaced by renaming another over it, of which only its folder hears.
        let (folder, mode) = match path.parent() {
            Some(parent) if path.is_file() => (parent, RecursiveMode::NonRecursive),
            _ => (path, RecursiveMode::Recursive),
        };
        let which = which(folder);
        let is_known =
            watched.as_ref().is_some_and(|watched| which.is_none() || watched.which == which);
        if !is_known {
            *watched = Some(Watched { which, watcher: watch(folder, mode, kick.clone()) });
        }
    }
}

#[cfg(unix)]
fn which(folder: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    folder.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn which(folder: &Path) -> Option<(u64, u64)> {
    folder.metadata().ok().map(|_| (0, 0))
}

fn watch(
    folder: &Path,
    mode: RecursiveMode,
    kick: Weak<Sender<Kick>>,
) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Reading is no change: our own looks would call for the next.
        let is_change = event.as_ref().map_or(true, |event| !event.kind.is_access());
        if let Some(kick) = kick.upgrade().filter(|_| is_change) {
            let _ = kick.send(Kick::Changed);
        }
    };
    let watched = notify::recommended_watcher(told)
        .and_then(|mut watcher| watcher.watch(folder, mode).map(|()| watcher));
    watched
        .inspect_err(|error| {
            let folder = folder.display();
            tracing::warn!(
                %folder, %error, "the system tells of no changes here; it is looked at again and again"
            );
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::LocalFolder;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Looks only where it is told to: no interval would end within the test.
    const BY_EVENTS: Vigilance =
        Vigilance { interval: Some(Duration::from_secs(3600)), events: true };

    fn look_at(folder: &Path) -> (Arc<Sender<Kick>>, Receiver<Looked>) {
        let (send, seen) = channel();
        let source = Arc::new(LocalFolder::new(folder));
        let report = move |looked| drop(send.send(looked));
        (spawn(0, source, BY_EVENTS, report).unwrap(), seen)
    }

    fn until_seen(seen: &Receiver<Looked>, models: usize) {
        let has_seen = |looked: Looked| looked.result.is_ok_and(|scan| scan.models.len() == models);
        while !has_seen(seen.recv_timeout(PATIENCE).expect("it looks when something changes")) {}
    }

    #[test]
    fn a_folder_in_the_place_of_another_is_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let (models, away) = (folder.path().join("models"), folder.path().join("away"));
        let put = |name: &str| fs::write(models.join(name), "a model").unwrap();
        fs::create_dir(&models).unwrap();
        put("a.onnx");
        let (_kick, seen) = look_at(&models);
        until_seen(&seen, 1);
        fs::rename(&models, &away).unwrap();
        while seen.recv_timeout(PATIENCE).unwrap().result.is_ok() {}
        // Nothing tells of it, so it is found by looking.
        fs::create_dir(&models).unwrap();
        put("a.onnx");
        until_seen(&seen, 1);
        put("b.onnx");
        until_seen(&seen, 2);
    }

    #[test]
    fn it_ends_when_nobody_wants_to_know() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.onnx"), "a model").unwrap();
        let (kick, seen) = look_at(folder.path());
        until_seen(&seen, 1);
        drop(kick);
        // What reports ends with the thread, and the watcher with it.
        let ended = loop {
            match seen.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(ended, RecvTimeoutError::Disconnected);
    }
}
