//! The route table: one immutable value, swapped whole.
//!
//! A table is built from the declared routes and from nothing else, so replicas that hold the same
//! declarations send the same caller to the same variant. What is counted outlives the table: a variant's
//! handle is found again by its name.
//!
//! # How a request is dealt
//!
//! 1. A destination that the request names itself, where the route allows it.
//! 2. The destination that its caller is pinned to.
//! 3. With a sticky key whose value the request has: weighted rendezvous hashing (Thaler and Ravishankar 1998,
//!    "Using name-based mappings to increase hit rates", section 4, with the logarithmic weights of Schindelhauer and
//!    Schomaker 2005, "Weighted distributed hash tables"). Each variant scores `-ln(u) / weight` by a hash `u` of
//!    key and variant, and the lowest score wins. Raising one weight changes no other score, so that only callers who come
//!    to the raised variant move.
//! 4. Else the next point of a Weyl sequence (the multiples of a quadratic irrational), whose shares are exact to a
//!    few requests in any stretch, where random dealing errs by hundreds. Routes and shadows go by different irrationals: what one of
//!    them deals says nothing of what another deals to the same request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outhaul_monitor::TrafficMetrics;
use outhaul_monitor::traffic::VariantMetrics;
use outhaul_types::{
    Destination, InferRequest, ModelName, Name, Parameter, RequestContext, RouteSpec, StickyKey,
    Tensor,
};

use crate::RouterError;
use crate::shadow::Shadowing;

/// The step of a Weyl sequence: the fraction of a square root, times 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace(u64);

/// Square roots of so many whole numbers are there to choose from. Those of larger ones would spread less evenly.
const ROOTS: u16 = 4000;

impl Pace {
    fn of_route(name: &str) -> Self {
        Pace::of("route", name)
    }

    /// Returns the pace of a shadow that leads to this destination.
    pub(crate) fn of_shadow(to: &str) -> Self {
        Pace::of("shadow", to)
    }

    /// Two square roots are nearly always independent over the rationals, so that their multiples are spread evenly
    /// together, too.
    fn of(kind: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(name.as_bytes());
        let hash = hasher.finalize();
        let chosen = 2 + u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) % ROOTS;
        let root = |number: u16| f64::from(number).sqrt().fract();
        // The number after a square is none.
        let fraction = if root(chosen) == 0.0 { root(chosen + 1) } else { root(chosen) };
        Pace((fraction * 2f64.powi(64)) as u64 | 1)
    }

    /// Returns the point with this number, as a part of 2^64.
    pub(crate) fn point(self, number: u64) -> u64 {
        number.wrapping_mul(self.0)
    }
}

/// All routes at one moment.
#[derive(Default)]
pub struct RouteTable {
    generation: u64,
    routes: HashMap<ModelName, Arc<Route>>,
    wanted: Vec<StickyKey>,
}

impl RouteTable {
    /// Builds the table of `routes`, which have been checked. `generation` tells tables apart; what `earlier`
    /// holds and has not changed is kept.
    pub fn build(
        generation: u64,
        routes: &BTreeMap<ModelName, RouteSpec>,
        earlier: &RouteTable,
        metrics: &TrafficMetrics,
    ) -> Self {
        let route = |(name, spec): (&ModelName, &RouteSpec)| {
            let route = match earlier.routes.get(name) {
                Some(same) if *same.spec == *spec => Arc::clone(same),
                before => {
                    let before = before.map(|before| &**before);
                    Arc::new(Route::new(name, spec.clone(), before, metrics))
                }
            };
            (name.clone(), route)
        };
        let is_of_context =
            |key: &&StickyKey| matches!(key, StickyKey::Header(_) | StickyKey::Cookie(_));
        let sticky = routes.values().filter_map(|route| route.sticky.as_ref());
        let mut wanted: Vec<StickyKey> = sticky.filter(is_of_context).cloned().collect();
        wanted.sort();
        wanted.dedup();
        RouteTable { generation, routes: routes.iter().map(route).collect(), wanted }
    }

    /// Returns which table it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the route of a name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        // An empty table, the usual case, costs no hash.
        if self.routes.is_empty() { None } else { self.routes.get(name) }
    }

    /// Returns all routes, in order of their names.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        let mut routes: Vec<_> = self.routes.values().collect();
        routes.sort_by(|left, right| left.name.cmp(&right.name));
        routes
    }

    /// Returns the headers and cookies that routes go by: what a listener has to put into
    /// [`RequestContext::attributes`].
    pub fn wanted(&self) -> &[StickyKey] {
        &self.wanted
    }
}

/// Where the requests for one name go.
pub struct Route {
    name: ModelName,
    spec: Arc<RouteSpec>,
    variants: Vec<Variant>,
    /// Each variant's share, added up; the last is 1.
    cumulative: Vec<f64>,
    dealt: AtomicU64,
    pace: Pace,
    pub(crate) shadow: Option<Arc<Shadowing>>,
}

/// One variant of a route.
pub struct Variant {
    /// Where it leads.
    pub to: Destination,
    /// Its name: the destination as text.
    pub name: Name,
    /// Its part of the traffic, 0 to 1.
    pub share: f64,
    /// What became of its requests.
    pub metrics: Arc<VariantMetrics>,
}

/// Where a request goes, and as what.
#[derive(Clone, Copy)]
pub(crate) enum Choice<'a> {
    /// To a variant that the route dealt.
    Dealt(usize),
    /// To where the caller is pinned, or what it named itself: outside of all shares.
    Fixed(&'a Destination),
}

impl Route {
    /// Makes the route; what it was before goes on where it stood.
    fn new(
        name: &ModelName,
        spec: RouteSpec,
        before: Option<&Route>,
        metrics: &TrafficMetrics,
    ) -> Self {
        let dealt = before.map_or(0, |route| route.dealt.load(Ordering::Relaxed));
        let shadow_before = before.and_then(|route| route.shadow.as_ref());
        let shares = spec.shares();
        let mut sum = 0.0;
        let cumulative = shares.iter().map(|share| {
            sum += share;
            sum
        });
        let variant = |(target, &share): (&outhaul_types::TargetSpec, &f64)| {
            let variant: Name = target.to.to_string().into();
            let metrics = metrics.variant(name, &variant);
            Variant { to: target.to.clone(), name: variant, share, metrics }
        };
        let shadow = spec.shadow.as_ref().map(|shadow| match shadow_before {
            // Its worst examples are worth keeping while a roll-out moves the shares.
            Some(same) if same.spec() == shadow => Arc::clone(same),
            _ => Arc::new(Shadowing::new(shadow, metrics.shadow(name, &shadow.to.to_string()))),
        });
        Route {
            name: name.clone(),
            cumulative: cumulative.collect(),
            variants: spec.targets.iter().zip(&shares).map(variant).collect(),
            dealt: AtomicU64::new(dealt),
            pace: Pace::of_route(name.as_str()),
            shadow,
            spec: Arc::new(spec),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// Returns what was declared.
    pub fn spec(&self) -> &Arc<RouteSpec> {
        &self.spec
    }

    /// Returns its variants, in the order declared.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// Returns what is shadowed, where something is.
    pub fn shadow(&self) -> Option<&Arc<Shadowing>> {
        self.shadow.as_ref()
    }

    /// Returns the variants by falling share.
    pub(crate) fn by_share(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.variants.len()).collect();
        order.sort_by(|left, right| {
            self.variants[*right].share.total_cmp(&self.variants[*left].share)
        });
        order
    }

    /// Decides where a request goes; see the module's front page.
    pub(crate) fn choose<'a>(
        &'a self,
        request: &InferRequest,
        context: &'a RequestContext,
    ) -> Result<Choice<'a>, RouterError> {
        if let Some(asked) = context.target.as_deref() {
            return match self.allows(asked) {
                true => Ok(Choice::Fixed(asked)),
                false => Err(RouterError::TargetNotAllowed { target: asked.to_string() }),
            };
        }
        if !self.spec.pinned.is_empty()
            && let Some(caller) = &context.caller
            && let Some(pinned) = self.spec.pinned.get(caller)
        {
            return Ok(Choice::Fixed(pinned));
        }
        if self.variants.len() == 1 {
            return Ok(Choice::Dealt(0));
        }
        let stuck = match &self.spec.sticky {
            None => None,
            Some(StickyKey::Field(field)) => {
                field_value(request, field).map(|value| self.stick(value.as_bytes()))
            }
            Some(key) => context.attribute(key).map(|value| self.stick(value.as_bytes())),
        };
        Ok(Choice::Dealt(stuck.unwrap_or_else(|| self.deal())))
    }

    /// Whether a request may name this destination itself: a version of one of the route's models, or one
    /// of its destinations.
    fn allows(&self, asked: &Destination) -> bool {
        let same_model =
            |other: &Destination| asked.model().is_some() && asked.model() == other.model();
        self.spec.overrides
            && self.spec.destinations().any(|other| other == asked || same_model(other))
    }

    /// Deals the next request without a key.
    fn deal(&self) -> usize {
        self.at(self.pace.point(self.dealt.fetch_add(1, Ordering::Relaxed)) as f64 / 2f64.powi(64))
    }

    fn at(&self, point: f64) -> usize {
        let found = self.cumulative.iter().position(|&end| point < end);
        // Sums of shares may end a little below 1.
        found.unwrap_or_else(|| self.by_share()[0])
    }

    /// Finds the variant that a key belongs to.
    fn stick(&self, key: &[u8]) -> usize {
        let score = |variant: &Variant| {
            let mut hasher = blake3::Hasher::new();
            for part in [self.name.as_str().as_bytes(), key, variant.name.as_bytes()] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            // In (0, 1), neither end included: 52 bits and a half step.
            let unit = ((u64::from_le_bytes(bytes) >> 12) as f64 + 0.5) / 2f64.powi(52);
            -unit.ln() / variant.share
        };
        let scores = self.variants.iter().map(score).enumerate();
        scores.min_by(|left, right| left.1.total_cmp(&right.1)).map_or(0, |(index, _)| index)
    }
}

/// The value of a parameter, else the first element of an input of this name.
fn field_value(request: &InferRequest, field: &str) -> Option<Name> {
    if let Some(parameter) = request.parameters.get(field) {
        return Some(match parameter {
            Parameter::String(text) => text.as_str().into(),
            Parameter::Int(number) => compact_str::format_compact!("{number}"),
            Parameter::Float(number) => compact_str::format_compact!("{number}"),
            Parameter::Bool(value) => compact_str::format_compact!("{value}"),
        });
    }
    let input = request.inputs.iter().find(|input| input.name == field)?;
    first_element(&input.tensor)
}

/// The first element as text: strings as they are, numbers by their bytes.
fn first_element(tensor: &Tensor) -> Option<Name> {
    if tensor.is_empty() {
        return None;
    }
    match tensor.as_strings() {
        Some(strings) => Some(String::from_utf8_lossy(strings.get(0)?).into()),
        None => {
            let bytes = tensor.as_bytes()?;
            let width = bytes.len() / tensor.len();
            let hex = bytes[..width].iter().map(|byte| format!("{byte:02x}"));
            Some(hex.collect::<String>().into())
        }
    }
}

#[cfg(test)]
mod tests;
