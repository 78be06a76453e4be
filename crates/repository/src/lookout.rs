//! Looking at one source again and again: when asked, when the system tells of a change, and when the
//! interval is over.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};

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
) -> io::Result<Sender<Kick>> {
    let (send, kicks) = channel();
    let kick = send.clone();
    std::thread::Builder::new().name(format!("looking/{index}")).spawn(move || {
        let folder = source.folder().filter(|_| vigilance.events).map(Path::to_owned);
        // Before the first look: what changes after it must not be missed.
        let watcher = folder.as_deref().and_then(|folder| watch(folder, kick));
        let interval = match (&watcher, vigilance.interval) {
            // The only sign left is looking: half a minute would be long.
            (None, Some(interval)) if folder.is_some() => Some(interval.min(UNWATCHED)),
            (_, interval) => interval,
        };
        let mut ticket = 0;
        loop {
            report(Looked { source: index, ticket, result: source.look() });
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

fn watch(folder: &Path, kick: Sender<Kick>) -> Option<notify::RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Reading is no change: our own looks would call for the next.
        let is_change = event.as_ref().map_or(true, |event| !event.kind.is_access());
        if is_change {
            let _ = kick.send(Kick::Changed);
        }
    };
    // A file is replaced by renaming another over it, of which only its folder hears.
    let (folder, mode) = match folder.parent() {
        Some(parent) if folder.is_file() => (parent, RecursiveMode::NonRecursive),
        _ => (folder, RecursiveMode::Recursive),
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
