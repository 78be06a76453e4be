//! Servers under measurement: started as processes of their own, ended by pid, looked at from outside.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often to look whether a server answers.
const LOOK_EVERY: Duration = Duration::from_micros(250);

/// How long a server may take to answer.
const LONGEST_START: Duration = Duration::from_secs(60);

/// A server process; dropping it ends the process.
pub(crate) struct Process {
    child: Child,
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) spawned: Instant,
}

impl Process {
    /// Starts `outhaul serve` on a model repository.
    pub(crate) fn outhaul(models: &Path) -> anyhow::Result<Process> {
        let (http, grpc) = (free_address()?, free_address()?);
        let mut command = Command::new(beside("outhaul")?);
        command.arg("serve").arg(models).args(["--http", &http, "--grpc", &grpc]);
        command.args(["--log-level", "warn"]);
        Process::spawn(command, http, grpc)
    }

    /// Starts a reference server of this program.
    pub(crate) fn bare(kind: &str, extra: &[String]) -> anyhow::Result<Process> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([kind, "--address", &address]).args(extra);
        let process = Process::spawn(command, address.clone(), address)?;
        process.until_it_listens()?;
        Ok(process)
    }

    fn spawn(mut command: Command, http: String, grpc: String) -> anyhow::Result<Process> {
        let spawned = Instant::now();
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, http, grpc, spawned })
    }

    /// Waits until something accepts connections.
    fn until_it_listens(&self) -> anyhow::Result<()> {
        until(|| Ok(std::net::TcpStream::connect(&self.http).is_ok()))
    }

    /// Returns the process's resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("resident memory is read from /proc, which only Linux has")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: f64 = kib.context("no VmRSS in /proc/PID/status")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file or folder that is there for one measurement, and goes whatever comes of it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // One of the two fails; what cannot be removed harms nobody.
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `done` says so.
pub(crate) fn until(mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > LONGEST_START {
            bail!("the server did not answer within {LONGEST_START:?}");
        }
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(listener.local_addr()?.to_string())
}

/// Returns a program that was built beside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: build it with `cargo build --release -p outhaul`", path.display());
    }
    Ok(path)
}
