//! Servers under measurement: started as processes of their own, ended by pid, looked at from outside.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::client::{Client, wait_until};

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
        Process::outhaul_with(models, &[])
    }

    /// Starts `outhaul serve` on a model repository with more flags.
    pub(crate) fn outhaul_with(models: &Path, flags: &[String]) -> anyhow::Result<Process> {
        let (http, grpc) = (free_address()?, free_address()?);
        let mut command = Command::new(beside("outhaul")?);
        command.arg("serve").arg(models).args(["--http", &http, "--grpc", &grpc]);
        command.args(["--log-level", "warn"]).args(flags);
        // What was asked for in another run, or by the user of this machine, is not to count.
        if !flags.iter().any(|flag| flag == "--state") {
            command.args(["--state", "off"]);
        }
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
        let line = self.status("VmRSS:")?;
        let kib = line.strip_suffix(" kB");
        let kib: f64 = kib.context("no VmRSS in /proc/PID/status")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Returns how many threads the process has.
    pub(crate) fn threads(&self) -> anyhow::Result<usize> {
        Ok(self.status("Threads:")?.parse()?)
    }

    fn status(&self, key: &str) -> anyhow::Result<String> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let line = line.with_context(|| format!("no {key} in /proc/PID/status"))?;
        Ok(line.trim().to_owned())
    }

    /// Returns the processor time that the process has taken, to a hundredth of a second.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold spaces; user and system time are 12th and 13th behind it.
        let behind = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
        let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<_, _>>()?;
        // The kernel counts hundredths for programs, whatever it counts for itself.
        Ok(Duration::from_millis(ticks * 10))
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
            .context("processes are looked at through /proc, which only Linux has")
    }

    /// Waits until the server says that all is loaded, and returns the time since it was started.
    pub(crate) fn until_ready(&mut self, look_every: Duration) -> anyhow::Result<Duration> {
        let mut client = None;
        loop {
            let ready = match client.as_mut() {
                Some(client) => Client::get(client, "/v2/health/ready").is_ok(),
                None => {
                    client = Client::open(&self.http).ok();
                    false
                }
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it was ready: {status}");
            }
            let since = self.spawned.elapsed();
            if ready {
                return Ok(since);
            }
            if since > LONGEST_START {
                bail!("the server was not ready within {LONGEST_START:?}");
            }
            wait_until(Instant::now() + look_every);
        }
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

impl Scratch {
    /// Makes an empty folder for a part of the benchmark.
    pub(crate) fn folder(part: &str) -> anyhow::Result<Scratch> {
        let name = format!("outhaul-bench-{part}-{}", std::process::id());
        let folder = Scratch(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0)?;
        Ok(folder)
    }

    /// Makes a repository of copies of a model, and returns it with the copies' files.
    pub(crate) fn copies(
        part: &str,
        model: &Path,
        names: &[String],
    ) -> anyhow::Result<(Scratch, Vec<PathBuf>)> {
        let folder = Scratch::folder(part)?;
        let mut files = Vec::new();
        for name in names {
            let version = folder.0.join(name).join("1");
            std::fs::create_dir_all(&version)?;
            files.push(version.join("model.onnx"));
            let copied = std::fs::copy(model, version.join("model.onnx"));
            copied.with_context(|| format!("cannot copy {}", model.display()))?;
        }
        Ok((folder, files))
    }
}

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
