//! What decides the server's traffic, wired up: routes and roll-outs, experiments, and where both are kept.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use outhaul::Router;
use outhaul::types::error_chain;
use outhaul_rollout::experiment::{ExperimentConfig, Experiments};
use outhaul_rollout::traffic::{Traffic, TrafficConfig};
use outhaul_state::Store;

use crate::config::{Config, StateChoice};

/// What decides the server's traffic.
pub(super) struct Managed {
    pub(super) traffic: Arc<Traffic>,
    pub(super) experiments: Arc<Experiments>,
}

impl Managed {
    /// Takes over what is kept and what is declared: from here on requests follow the routes.
    pub(super) async fn start(config: &Config, router: &Arc<Router>) -> Result<Self> {
        let store = store(config).await?;
        let experiments = Experiments::start(ExperimentConfig::default(), store.clone());
        router.on_predicted(experiments.sink());
        let declared = TrafficConfig {
            declared: config.routes.value.clone(),
            advisors: vec![Box::new(Arc::clone(&experiments))],
            ..TrafficConfig::new(replica())
        };
        let traffic = Traffic::start(declared, Arc::clone(router), store).await;
        let traffic = traffic.context("cannot take over the routes")?;
        Ok(Managed { traffic, experiments })
    }

    /// Writes what waits, and lets other replicas go on.
    pub(super) async fn stop(&self) {
        self.traffic.stop().await;
        self.experiments.stop().await;
    }
}

/// Opens what routes, roll-outs and predictions are kept in. Where nobody says where, it is a file for these
/// places of models alone: another server of this user has routes of its own.
async fn store(config: &Config) -> Result<Option<Store>> {
    match &config.state.value {
        StateChoice::Off => Ok(None),
        StateChoice::Url(url) => {
            Store::open(url).await.map(Some).context("cannot open the state store")
        }
        StateChoice::Default => {
            let Some(file) = default_file(config) else { return Ok(None) };
            let opened = Store::open_file(&file).await;
            Ok(opened
                .inspect_err(|error| {
                    let error = error_chain(error);
                    tracing::warn!(%error, "routes and roll-outs will not survive a restart");
                })
                .ok())
        }
    }
}

fn default_file(config: &Config) -> Option<PathBuf> {
    let folder = outhaul::state_file()?.parent()?.to_owned();
    let mut hasher = blake3::Hasher::new();
    for place in &config.models.value {
        let whole = std::path::absolute(place).unwrap_or_else(|_| place.clone());
        hasher.update(whole.to_string_lossy().as_bytes()).update(b"\n");
    }
    let digest = hasher.finalize().to_hex();
    Some(folder.join(format!("traffic-{}.db", &digest[..16])))
}

/// Names this process among all that ever share the store: no two start in one nanosecond with one number on
/// one machine.
fn replica() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "server".to_owned());
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{host}-{}-{:x}", std::process::id(), since.as_nanos())
}
