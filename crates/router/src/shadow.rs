//! Copies of requests to a destination whose answers are compared and thrown away.

use std::sync::Arc;

use outhaul_monitor::traffic::ShadowMetrics;
use outhaul_types::ShadowSpec;

/// What a route shadows.
pub struct Shadowing {
    spec: ShadowSpec,
    metrics: Arc<ShadowMetrics>,
}

impl Shadowing {
    pub(crate) fn new(spec: &ShadowSpec, metrics: Arc<ShadowMetrics>) -> Self {
        Shadowing { spec: spec.clone(), metrics }
    }

    /// Returns what was declared.
    pub fn spec(&self) -> &ShadowSpec {
        &self.spec
    }

    /// Returns what became of the copies.
    pub fn metrics(&self) -> &Arc<ShadowMetrics> {
        &self.metrics
    }
}
