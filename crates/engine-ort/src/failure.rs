//! What the library says when it fails, and whose mistake that is.
//!
//! The library returns a code and a text. The text is written for its developers: it holds source
//! paths and C++ signatures, which [`clean`] takes out, and the node, which it keeps.

use outhaul_engine::{LoadError, RunError};
use outhaul_onnx::OnnxModel;

use crate::ENGINE;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// The library's codes, as far as they matter to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Anything, mostly a violated assertion.
    Fail,
    /// An argument, an input's value or its shape.
    InvalidArgument,
    /// No such file.
    NoSuchFile,
    /// The file is not a model.
    InvalidFile,
    /// The graph is not a valid one.
    InvalidGraph,
    /// There is no kernel for an operator.
    NotImplemented,
    /// An exception inside a kernel.
    Exception,
    /// Any other.
    Other,
}

impl Code {
    pub(crate) fn from_raw(code: i32) -> Self {
        match code {
            1 => Code::Fail,
            2 => Code::InvalidArgument,
            3 => Code::NoSuchFile,
            4 | 7 => Code::InvalidFile,
            6 => Code::Exception,
            9 => Code::NotImplemented,
            10 => Code::InvalidGraph,
            _ => Code::Other,
        }
    }
}

impl Failure {
    /// Says why a model could not be loaded.
    pub(crate) fn into_load_error(self, model: &OnnxModel) -> LoadError {
        let reason = clean(&self.message);
        let says = |text: &str| reason.contains(text);
        let unsupported = self.code == Code::NotImplemented
            || says("is not a registered function/op")
            || says("No Op registered for")
            || says("Unsupported model IR version")
            || says("is under development and support for this is limited");
        if unsupported {
            let what = unregistered(&reason, model).unwrap_or_else(|| format!("this: {reason}"));
            return LoadError::Unsupported { engine: ENGINE, what, instead: None };
        }
        match self.code {
            // What is wrong with a file before a single kernel ran is the file's fault.
            Code::InvalidArgument | Code::NoSuchFile | Code::InvalidFile | Code::InvalidGraph => {
                LoadError::BadFile { reason }
            }
            Code::Fail | Code::Exception if describes_the_file(&reason) => {
                LoadError::BadFile { reason }
            }
            Code::Fail | Code::Exception | Code::NotImplemented | Code::Other => {
                LoadError::Failed { engine: ENGINE, reason }
            }
        }
    }

    /// Says why a run failed. `shapes_vary` tells whether the model leaves any dimension of its
    /// inputs to the caller: only then can a clash of shapes inside the graph be the caller's.
    pub(crate) fn into_run_error(self, shapes_vary: bool) -> RunError {
        let reason = clean(&self.message);
        let callers = match self.code {
            Code::InvalidArgument => true,
            Code::Fail | Code::Exception => {
                divides_by_zero(&reason) || (shapes_vary && names_a_shape(&reason))
            }
            _ => false,
        };
        if callers {
            RunError::BadInput { reason: format!("the model cannot run on this input: {reason}") }
        } else {
            RunError::Failed { engine: ENGINE, reason }
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&clean(&self.message))
    }
}

/// Names the operator that the library does not know, and the first node that is one. The library's
/// text has only the operator: `com.example:Frobnicate(-1) is not a registered function/op`.
fn unregistered(reason: &str, model: &OnnxModel) -> Option<String> {
    let (before, _) = reason.split_once(" is not a registered function/op")?;
    let (name, version) = before.rsplit(' ').next()?.rsplit_once('(')?;
    let (domain, operator) = name.rsplit_once(':').unwrap_or(("", name));
    let mut found = None;
    model.each_node(|node| {
        if found.is_none() && node.op_type == operator && node.domain == domain {
            found = Some(if node.name.is_empty() {
                format!("the node that makes '{}'", node.outputs.first().map_or("", String::as_str))
            } else {
                format!("node '{}'", node.name)
            });
        }
    });
    let node = found.map(|node| format!(" of {node}")).unwrap_or_default();
    let version = version.trim_end_matches(')');
    Some(format!("operator '{operator}'{node} (domain '{domain}', version {version})"))
}

fn describes_the_file(reason: &str) -> bool {
    [
        "This is an invalid model",
        "Deserialize tensor",
        "External data path",
        "TensorProto",
        // A size computed from the file's dimensions.
        "Integer overflow",
    ]
    .iter()
    .any(|text| reason.contains(text))
}

/// A divisor of zero came with the request: a constant one would fail every request.
fn divides_by_zero(reason: &str) -> bool {
    reason.contains("division by zero") || reason.contains("modulo by zero")
}

fn names_a_shape(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    // The allocator speaks of sizes too, and running out of memory is nobody's bad shape.
    !reason.contains("allocate")
        && ["broadcast", "dimension", "shape", "axis"].iter().any(|word| reason.contains(word))
}

/// Rewrites a message of the library for people: the node first, then the clause that says what is
/// wrong, on one line, without source paths and C++ signatures.
fn clean(message: &str) -> String {
    let mut text = message.trim();
    let mut node = String::new();
    if let Some((operator, rest)) = between(text, "code returned while running ", " node. Name:'")
        && let Some((name, status)) = rest.split_once("' Status Message: ")
    {
        node = match name {
            "" => format!("operator '{operator}': "),
            name => format!("operator '{operator}' of node '{name}': "),
        };
        text = status;
    }
    if let Some((_, model_failure)) = between(text, "Load model from ", " failed:") {
        text = model_failure;
    }
    // "…/element_wise_ops.h:583 void onnxruntime::…(ptrdiff_t, ptrdiff_t) axis == 1 was false. …"
    if let Some((_, clause)) = text.split_once(" was false. ") {
        text = clause;
    } else if let Some((first, rest)) = text.split_once(' ')
        && is_source_position(first)
    {
        text = rest.split_once(") ").map_or(rest, |(_, clause)| clause);
    }
    let mut line = node;
    for (index, word) in text.split_whitespace().enumerate() {
        if is_source_position(word) {
            continue;
        }
        if index > 0 && !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.trim_end_matches(['.', ' ']).to_owned()
}

/// Returns what lies between two markers, and what follows the second.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(start)?.1.split_once(end)
}

/// Returns whether a word is `tensorprotoutils.cc:461` or the like.
fn is_source_position(word: &str) -> bool {
    word.rsplit_once(':').is_some_and(|(path, line)| {
        [".cc", ".h", ".cpp"].iter().any(|extension| path.ends_with(extension))
            && !line.is_empty()
            && line.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_rewritten_for_people() {
        for (message, expected) in [
            (
                "Non-zero status code returned while running Gather node. Name:'' Status Message: \
                 indices element out of data bounds, idx=99 must be within the inclusive range \
                 [-16,15]",
                "operator 'Gather': indices element out of data bounds, idx=99 must be within the \
                 inclusive range [-16,15]",
            ),
            (
                "Non-zero status code returned while running Sub node. Name:'minus' Status \
                 Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:\
                 583 void onnxruntime::BroadcastIterator::Append(ptrdiff_t, ptrdiff_t) axis == 1 \
                 || axis == largest was false. Attempting to broadcast an axis by a dimension \
                 other than 1. 2 by 4\n",
                "operator 'Sub' of node 'minus': Attempting to broadcast an axis by a dimension \
                 other than 1. 2 by 4",
            ),
            (
                "Load model from /models/a.onnx failed:Protobuf parsing failed.",
                "Protobuf parsing failed",
            ),
            (
                "Got invalid dimensions for input: x for the following indices\n index: 1 Got: 3 \
                 Expected: 4\n Please fix either the inputs/outputs or the model.",
                "Got invalid dimensions for input: x for the following indices index: 1 Got: 3 \
                 Expected: 4 Please fix either the inputs/outputs or the model",
            ),
            (
                "Deserialize tensor w failed.endian_utils.cc:66 CopyLittleEndian sizes differ",
                "Deserialize tensor w CopyLittleEndian sizes differ",
            ),
        ] {
            assert_eq!(clean(message), expected);
        }
    }

    #[test]
    fn a_clash_of_shapes_is_the_callers_only_where_shapes_vary() {
        let failure = Failure {
            code: Code::Fail,
            message: "Attempting to broadcast an axis by a dimension other than 1".to_owned(),
        };
        let bad_input = |error| matches!(error, RunError::BadInput { .. });
        assert!(bad_input(failure.clone().into_run_error(true)));
        assert!(!bad_input(failure.into_run_error(false)));
        let message = "element_wise_ops.cc:692 Compute Integer division by zero".to_owned();
        let division = Failure { code: Code::Fail, message };
        assert!(bad_input(division.into_run_error(false)));
        let message = "Failed to allocate memory for requested buffer of shape [9]".to_owned();
        let memory = Failure { code: Code::Exception, message };
        assert!(!bad_input(memory.into_run_error(true)));
    }
}
