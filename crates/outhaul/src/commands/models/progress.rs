//! What somebody in front of a terminal sees while they wait, and how wide the terminal is.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use terminal_size::{Width, terminal_size_of};

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(100);

/// After this long the line appears: what is done at once needs none.
const PATIENCE: Duration = Duration::from_millis(300);

const TURNS: [char; 4] = ['|', '/', '-', '\\'];

/// Waits for `work`. Where standard error is a terminal, a line tells what goes on and since when.
pub(super) async fn watch<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let (mut work, started) = (pin!(work), Instant::now());
    let mut ticks = tokio::time::interval(EVERY);
    let mut turns = TURNS.iter().cycle();
    let mut written = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if written {
                    say("\r\u{1b}[2K");
                }
                return done;
            }
            _ = ticks.tick() => {}
        }
        let waited = started.elapsed();
        if waited >= PATIENCE {
            let turn = turns.next().copied().unwrap_or(' ');
            say(&format!("\r\u{1b}[2K{turn} {what}, {:.1} s", waited.as_secs_f64()));
            written = true;
        }
    }
}

/// Writes to standard error. If that is closed, there is nobody to tell.
fn say(text: &str) {
    let mut terminal = io::stderr().lock();
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

/// Returns the columns of the terminal that standard output is, or `None` where it is none: what goes
/// to a file or another program is never cut.
pub(super) fn width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(io::stdout())?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}
