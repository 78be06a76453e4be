//! A request to predict, what surrounds it, and its answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    Destination, FallbackCause, ModelName, ModelVersion, Name, Priority, StickyKey, Tensor,
    VersionChoice,
};

/// A tensor under its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The name in the model's signature.
    pub name: Name,
    /// The elements.
    pub tensor: Tensor,
}

/// A value of the protocol's free-form parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
}

/// Free-form parameters, by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// An output that a request names.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestedOutput {
    /// The output's name in the signature.
    pub name: Name,
    /// Set where the caller wants the top classes in place of the tensor.
    pub classification: Option<Classification>,
}

/// The classification extension: the `count` highest elements of each row, as
/// `BYTES [batch, count]` of `value:index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// How many classes, at least one.
    pub count: usize,
}

/// A request to predict, independent of the wire it came over.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// The caller's own id, echoed in the answer.
    pub id: Option<Name>,
    /// The model, as the caller wrote it.
    pub model: Name,
    /// The version asked for.
    pub version: VersionChoice,
    /// The input tensors, in the caller's order.
    pub inputs: SmallVec<[NamedTensor; 2]>,
    /// The outputs wanted; none named means all.
    pub outputs: Vec<RequestedOutput>,
    /// Free-form parameters.
    pub parameters: Parameters,
}

impl InferRequest {
    /// Makes a request to the latest version of a model, for all its outputs.
    pub fn new(model: impl Into<Name>, inputs: impl IntoIterator<Item = NamedTensor>) -> Self {
        InferRequest {
            id: None,
            model: model.into(),
            version: VersionChoice::Latest,
            inputs: inputs.into_iter().collect(),
            outputs: Vec::new(),
            parameters: Parameters::new(),
        }
    }
}

/// What surrounds a request on its way.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// The id that logs and answers carry: the caller's, or one that the server made.
    pub id: Name,
    /// The trace that the caller is part of.
    pub trace: Option<TraceParent>,
    /// When the answer becomes worthless.
    pub deadline: Option<Deadline>,
    /// Who asks, where that is known.
    pub caller: Option<Name>,
    /// How urgent it is, where the caller says.
    pub priority: Option<Priority>,
    /// The destination that the caller names itself, in place of the route's choice.
    pub target: Option<Box<Destination>>,
    /// What the routes asked to know of the request.
    pub attributes: SmallVec<[Attribute; 1]>,
    /// Whether the caller wants no answer that was computed before.
    pub no_cache: bool,
    /// How many pipelines, fallbacks and servers stand between the caller and this request.
    pub depth: u8,
    /// Whether this is a part of a request that has been let in already: a step of a pipeline. Never set from
    /// what a caller sends.
    pub is_part: bool,
    /// Whether this is a copy of a request that has been answered. Its answer goes to nobody, so it is not
    /// shadowed again, led on to a fallback, kept in a cache, remembered for feedback, or counted for a variant.
    pub shadow: bool,
}

impl RequestContext {
    /// Returns what is known of the request under a key.
    pub fn attribute(&self, key: &StickyKey) -> Option<&Name> {
        match key {
            StickyKey::Caller => self.caller.as_ref(),
            key => self.attributes.iter().find(|known| known.key == *key).map(|known| &known.value),
        }
    }
}

/// Something of a request that a route asked to know: a header's or a cookie's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// What it is.
    pub key: StickyKey,
    /// Its value.
    pub value: Name,
}

/// The instant after which an answer is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// Returns the deadline `timeout` after `now`, or `None` where that is beyond the clock.
    pub fn after(now: Instant, timeout: Duration) -> Option<Self> {
        now.checked_add(timeout).map(Deadline)
    }

    /// Returns whether it has passed.
    pub fn has_passed(self, now: Instant) -> bool {
        now >= self.0
    }

    /// Returns the earlier of two deadlines, where a missing one never passes.
    pub fn earlier(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        match (left, right) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (one, other) => one.or(other),
        }
    }
}

/// The caller's place in a distributed trace (W3C Trace Context, `traceparent`, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id, never all zero.
    pub trace_id: [u8; 16],
    /// The id of the caller's span, never all zero.
    pub span_id: [u8; 8],
    /// Whether the caller records this trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a `traceparent` header. Anything that the specification calls invalid gives `None`,
    /// which it says to treat as no header at all.
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let version = hex::<1>(fields.next()?)?;
        let trace_id = hex::<16>(fields.next()?)?;
        let span_id = hex::<8>(fields.next()?)?;
        let flags = hex::<1>(fields.next()?)?;
        let known_form = version[0] != 0xff && (version[0] != 0 || fields.next().is_none());
        let valid = known_form && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(TraceParent { trace_id, span_id, sampled: flags[0] & 1 == 1 })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// How the time of one answer was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for the model to be loaded; zero where it was in memory.
    pub load: Duration,
    /// Turning what came into the model's tensors, and the model's tensors into the answer.
    pub transform: Duration,
    /// Waiting for an instance.
    pub queue: Duration,
    /// Joining the requests of a batch.
    pub assemble: Duration,
    /// In the engine, for the whole batch.
    pub compute: Duration,
    /// Parting the batch's outputs.
    pub split: Duration,
    /// Rows of the batch that this request was part of.
    pub batch_rows: usize,
}

/// The answer to an [`InferRequest`].
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// The request's id, where it had one.
    pub id: Option<Name>,
    /// The model that answered.
    pub model: ModelName,
    /// The version that answered.
    pub version: ModelVersion,
    /// The outputs, in the order asked for.
    pub outputs: SmallVec<[NamedTensor; 2]>,
    /// How the time was spent.
    pub timings: Timings,
    /// The tokens that the request's texts were turned into; `None` where it had no texts.
    pub tokens: Option<usize>,
    /// What the cache had to do with it.
    pub cache: CacheStatus,
    /// The way that the request took, where it was not the plain one.
    pub via: Option<Box<Via>>,
}

/// What the cache had to do with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheStatus {
    /// The model has no cache.
    #[default]
    Off,
    /// The caller wanted a fresh answer.
    Bypassed,
    /// It was computed for this request.
    Miss,
    /// It had been computed before.
    Hit,
    /// It was being computed for an equal request, which this one joined.
    Joined,
}

/// The way that a request took through routes and fallbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The route.
    pub route: Option<Name>,
    /// The variant that the route chose, such as `reviews@3`.
    pub variant: Option<Name>,
    /// What answered in place of what was asked: a destination, or `default`.
    pub fallback: Option<Name>,
    /// Why what was asked did not.
    pub cause: Option<FallbackCause>,
}

impl InferResponse {
    /// Returns an output by its name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| output.name == name).map(|output| &output.tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let span = "b7ad6b7169203331";
        let parent = TraceParent::parse(&format!("00-{trace}-{span}-01")).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.trace_id[0], 0x0a);
        assert_eq!(parent.span_id[7], 0x31);
        assert!(TraceParent::parse(&format!("01-{trace}-{span}-00-future")).is_some());
        for header in [
            "",
            "00",
            &format!("00-{trace}-{span}-01-more"),
            &format!("ff-{trace}-{span}-01"),
            &format!("00-{}-{span}-01", "0".repeat(32)),
            &format!("00-{trace}-{}-01", "0".repeat(16)),
            &format!("00-{}-{span}-01", trace.to_uppercase()),
        ] {
            assert_eq!(TraceParent::parse(header), None, "{header}");
        }
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let soon = Deadline::after(now, Duration::from_millis(1));
        let late = Deadline::after(now, Duration::from_secs(1));
        assert_eq!(Deadline::earlier(late, soon), soon);
        assert_eq!(Deadline::earlier(None, late), late);
        assert_eq!(Deadline::earlier(None, None), None);
        assert!(soon.is_some_and(|deadline| deadline.has_passed(now + Duration::from_millis(1))));
    }
}
