//! The bodies of the repository extension. An empty body counts as `{}`, as the extension says.

use jiter::Peek;

use super::reader::{Place, Reader};
use crate::repository::{
    LoadRequest, UNLOAD_DEPENDENTS, VERSION, not_a_field, not_for_load, not_for_unload, version,
};
use crate::{FieldProblem, ProtocolError};

/// Reads the body of an index request: whether only versions that answer are asked for.
///
/// # Errors
///
/// Fails where the body is no JSON object, or `ready` is neither true nor false.
pub fn decode_index(body: &[u8]) -> Result<bool, ProtocolError> {
    let Some(text) = text(body)? else { return Ok(false) };
    let mut reader = Reader::new(text);
    let mut ready = None;
    let mut key = reader.first_key(Place::Request("request"), |key| key == "ready")?;
    while let Some(is_ready) = key {
        match is_ready {
            true if ready.is_some() => {
                return Err(Place::Request("ready").error(FieldProblem::Duplicate));
            }
            true if reader.null()? => ready = Some(false),
            true => ready = Some(reader.boolean(Place::Request("ready"))?),
            false => reader.skip()?,
        }
        key = reader.next_key(|key| key == "ready")?;
    }
    reader.finish()?;
    Ok(ready.unwrap_or(false))
}

/// Reads the body of a load request.
///
/// # Errors
///
/// Fails where the body is no JSON object, and with the first field or parameter that a load does not
/// take, such as Triton's `config` and `file:...`, which would load something else than the
/// repository holds.
pub fn decode_load(body: &[u8]) -> Result<LoadRequest, ProtocolError> {
    let mut request = LoadRequest::default();
    each_parameter("a load", body, |name, reader| {
        if name != VERSION {
            return Err(not_for_load(name));
        }
        let place = Place::Parameter(name);
        if request.version.is_some() {
            return Err(place.error(FieldProblem::Duplicate));
        }
        let peek = reader.peek()?;
        let number = match peek {
            Peek::String => version(reader.known_string()?)?,
            _ if peek.is_num() => version(reader.known_number(peek)?)?,
            _ => return Err(reader.wrong_type(place, "a number or a string", peek)),
        };
        request.version = Some(number);
        Ok(())
    })?;
    Ok(request)
}

/// Checks the body of an unload request.
///
/// # Errors
///
/// Fails where the body is no JSON object, and with the first field or parameter that an unload does
/// not take.
pub fn decode_unload(body: &[u8]) -> Result<(), ProtocolError> {
    let mut given = false;
    each_parameter("an unload", body, |name, reader| {
        if name != UNLOAD_DEPENDENTS {
            return Err(not_for_unload(name));
        }
        let place = Place::Parameter(name);
        if std::mem::replace(&mut given, true) {
            return Err(place.error(FieldProblem::Duplicate));
        }
        reader.boolean(place).map(|_| ())
    })
}

/// Gives the name of each parameter to `read`, which reads its value.
fn each_parameter(
    request: &'static str,
    body: &[u8],
    mut read: impl FnMut(&str, &mut Reader<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let Some(text) = text(body)? else { return Ok(()) };
    let mut reader = Reader::new(text);
    let parameters = Place::Request("parameters");
    let mut given = false;
    let mut field = reader.first_key(Place::Request("request"), str::to_owned)?;
    while let Some(name) = field {
        if name != "parameters" {
            return Err(not_a_field(request, &name));
        }
        if std::mem::replace(&mut given, true) {
            return Err(parameters.error(FieldProblem::Duplicate));
        }
        if !reader.null()? {
            let mut parameter = reader.first_key(parameters, str::to_owned)?;
            while let Some(name) = parameter {
                read(&name, &mut reader)?;
                parameter = reader.next_key(str::to_owned)?;
            }
        }
        field = reader.next_key(str::to_owned)?;
    }
    reader.finish()
}

/// Returns the body as text, or `None` where there is nothing in it.
fn text(body: &[u8]) -> Result<Option<&str>, ProtocolError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ProtocolError::NotUtf8 { offset: error.valid_up_to() })?;
    Ok((!text.trim_ascii().is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use outhaul_types::{Classify, ErrorKind, ModelVersion};

    use super::*;

    #[test]
    fn an_index_may_be_asked_for_what_answers() {
        for (body, expected) in [
            ("", Ok(false)),
            (" \n", Ok(false)),
            ("{}", Ok(false)),
            (r#"{"ready": true, "other": [1]}"#, Ok(true)),
            (r#"{"ready": false}"#, Ok(false)),
            (r#"{"ready": null}"#, Ok(false)),
            (r#"{"ready": 1}"#, Err("'ready' must be true or false, got a number")),
            (r#"{"ready": true, "ready": true}"#, Err("'ready' is given twice")),
            ("[]", Err("'request' must be an object, got a list")),
            ("{", Err("malformed JSON: EOF")),
            ("{} {}", Err("malformed JSON: trailing characters")),
        ] {
            match (decode_index(body.as_bytes()), expected) {
                (Ok(ready), Ok(expected)) => assert_eq!(ready, expected, "{body}"),
                (Err(error), Err(start)) => {
                    assert!(error.to_string().starts_with(start), "{body}: {error}");
                }
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
        assert!(matches!(decode_index(b"\xff"), Err(ProtocolError::NotUtf8 { offset: 0 })));
    }

    #[test]
    fn a_load_obeys_or_refuses_each_parameter() {
        struct Case(&'static str, Result<Option<u64>, &'static str>);
        let cases = [
            Case("", Ok(None)),
            Case("{}", Ok(None)),
            Case(r#"{"parameters": {}}"#, Ok(None)),
            Case(r#"{"parameters": null}"#, Ok(None)),
            Case(r#"{"parameters": {"version": 3}}"#, Ok(Some(3))),
            Case(r#"{"parameters": {"version": "12"}}"#, Ok(Some(12))),
            Case(
                r#"{"parameters": {"version": "stable"}}"#,
                Err(
                    "'parameters.version' must be the number of a version, at least 1, got 'stable'",
                ),
            ),
            Case(r#"{"parameters": {"version": 0}}"#, Err("'parameters.version' must be")),
            Case(r#"{"parameters": {"version": 1.0}}"#, Err("'parameters.version' must be")),
            Case(r#"{"parameters": {"version": -1}}"#, Err("'parameters.version' must be")),
            Case(
                r#"{"parameters": {"version": []}}"#,
                Err("'parameters.version' must be a number"),
            ),
            Case(
                r#"{"parameters": {"version": 1, "version": 1}}"#,
                Err("'parameters.version' is given twice"),
            ),
            Case(
                r#"{"parameters": {"config": "{}"}}"#,
                Err("'config' of a load request is not supported: a model is configured by the \
                     model.toml beside it"),
            ),
            Case(
                r#"{"parameters": {"file:1/model.onnx": "AAAA"}}"#,
                Err("'file:1/model.onnx' of a load request is not supported: a model is loaded"),
            ),
            Case(
                r#"{"parameters": {"colour": 1}}"#,
                Err("'colour' of a load request is not supported: a load takes the parameter"),
            ),
            Case(r#"{"version": 3}"#, Err("'version' of a load request is not supported: beside")),
            Case(r#"{"parameters": {}, "parameters": {}}"#, Err("'parameters' is given twice")),
            Case(r#"{"parameters": []}"#, Err("'parameters' must be an object, got a list")),
            Case(r#"{"parameters": {"version": 3}"#, Err("malformed JSON: EOF")),
        ];
        for Case(body, expected) in cases {
            let found = decode_load(body.as_bytes()).map(|request| request.version);
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found, expected.map(ModelVersion), "{body}");
                }
                (Err(error), Err(start)) => {
                    assert!(error.to_string().starts_with(start), "{body}: {error}");
                }
                (found, _) => panic!("{body}: {found:?}"),
            }
        }
    }

    #[test]
    fn an_unload_takes_what_triton_sends() {
        for body in [
            "",
            "{}",
            r#"{"parameters": {"unload_dependents": false}}"#,
            r#"{"parameters": {"unload_dependents": true}}"#,
        ] {
            assert_eq!(decode_unload(body.as_bytes()), Ok(()), "{body}");
        }
        for (body, start) in [
            (
                r#"{"parameters": {"unload_dependents": 1}}"#,
                "'parameters.unload_dependents' must be",
            ),
            (
                r#"{"parameters": {"version": 1}}"#,
                "'version' of an unload request is not supported: an unload takes",
            ),
            (r#"{"unload_dependents": true}"#, "'unload_dependents' of an unload request is not"),
        ] {
            let error = decode_unload(body.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(start), "{body}: {error}");
        }
        let error = decode_unload(br#"{"parameters": {"x": 1}}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
