//! Compressed bodies, both ways.
//!
//! A compressed body is never believed to be small: decompression stops at the limit, and a zstd frame
//! that asks for a window above 8 MiB (RFC 9659) is refused.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::Failure;
use super::body::too_long;

/// A way to compress a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// A zlib stream, as the specification says, or a bare deflate stream, as some clients send.
    Deflate,
    Zstd,
}

impl Coding {
    /// Returns the coding's name in headers.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
        })
    }

    fn of(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
            () if is("deflate") => Some(Coding::Deflate),
            () if is("zstd") => Some(Coding::Zstd),
            () => None,
        }
    }
}

/// Returns how a request's body is compressed.
///
/// # Errors
///
/// 415 for a coding that is not known, and for several at once.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Coding>, Failure> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().unwrap_or("?").trim();
    let coding = Coding::of(name);
    match coding {
        _ if values.next().is_some() => Err(unknown("more than one header")),
        Some(coding) => Ok(Some(coding)),
        None if name.is_empty() || name.eq_ignore_ascii_case("identity") => Ok(None),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Failure {
    let name: String = name.chars().take(64).collect();
    let message = format!("Content-Encoding '{name}' is not one of gzip, deflate and zstd");
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).naming_encodings()
}

/// Returns how an answer may be compressed: gzip before zstd, where the client weighs them alike.
/// tritonclient's asyncio client lets aiohttp offer all that aiohttp knows, on Python 3.14 zstd too,
/// and then reads gzip alone.
pub(crate) fn of_answer(headers: &HeaderMap) -> Option<Coding> {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best: Option<(u16, Coding)> = None;
    for item in values.flat_map(|value| value.split(',')) {
        let (name, weight) = item.split_once(';').map_or((item, None), |(a, b)| (a, Some(b)));
        let weight = weight.map_or(1_000, quality);
        let Some(coding @ (Coding::Gzip | Coding::Zstd)) = Coding::of(name.trim()) else {
            continue;
        };
        let rank = 2 * weight + u16::from(coding == Coding::Gzip);
        if weight > 0 && best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// Reads `q=0.5` as thousandths. What is not a weight counts as none at all.
fn quality(parameter: &str) -> u16 {
    let weight = parameter.trim().strip_prefix("q=").and_then(|text| text.trim().parse().ok());
    let weight: f32 = weight.unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1_000.0) as u16
}

/// Decompresses a whole body.
///
/// # Errors
///
/// 413 beyond `limit` bytes, 400 where the body is damaged or ends early.
pub(crate) fn decompress(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, Failure> {
    let result = match coding {
        Coding::Gzip => bounded(MultiGzDecoder::new(body), limit),
        Coding::Deflate if is_zlib(body) => bounded(ZlibDecoder::new(body), limit),
        Coding::Deflate => bounded(DeflateDecoder::new(body), limit),
        Coding::Zstd => zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
            decoder.window_log_max(23)?;
            bounded(decoder, limit)
        }),
    };
    match result {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(too_long(limit)),
        Err(error) => {
            let name = coding.header();
            let name = name.to_str().unwrap_or_default();
            Err(Failure::bad_request(format!("the body is not valid {name}: {error}")))
        }
    }
}

fn bounded(decoder: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let mut out = Vec::new();
    let one_too_many = (limit as u64).saturating_add(1);
    decoder.take(one_too_many).read_to_end(&mut out)?;
    Ok((out.len() <= limit).then(|| out.into()))
}

/// Tells a zlib stream by its two bytes of head (RFC 1950), which a deflate stream does not start
/// with in practice.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..]
        if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

/// Compresses a whole body, fast rather than small.
///
/// # Errors
///
/// Fails where the compressor cannot allocate.
pub(crate) fn compress(coding: Coding, body: &[u8]) -> io::Result<Bytes> {
    let mut out = Vec::with_capacity(body.len() / 2);
    match coding {
        Coding::Gzip => GzEncoder::new(body, Compression::fast()).read_to_end(&mut out)?,
        Coding::Deflate => {
            flate2::bufread::ZlibEncoder::new(body, Compression::fast()).read_to_end(&mut out)?
        }
        Coding::Zstd => {
            zstd::stream::copy_encode(body, &mut out, 1)?;
            out.len()
        }
    };
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        let pair = |value: &&'static str| (name.clone(), HeaderValue::from_static(value));
        values.iter().map(pair).collect()
    }

    #[test]
    fn every_coding_gives_back_what_it_took() {
        let text = b"abcabcabc".repeat(1_000);
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let packed = compress(coding, &text).unwrap();
            assert!(packed.len() < 1_000, "{coding:?}");
            assert_eq!(decompress(coding, &packed, 9_000).unwrap(), text, "{coding:?}");
            let failure = decompress(coding, &packed, 8_999).unwrap_err();
            assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE, "{coding:?}");
            let cut = decompress(coding, &packed[..packed.len() / 2], 9_000).unwrap_err();
            assert_eq!(cut.status, StatusCode::BAD_REQUEST, "{coding:?}");
            let nonsense = decompress(coding, b"nonsense", 9_000).unwrap_err();
            assert_eq!(nonsense.status, StatusCode::BAD_REQUEST, "{coding:?}");
        }
    }

    #[test]
    fn a_bare_deflate_stream_is_read_too() {
        let mut packed = Vec::new();
        let mut encoder = flate2::bufread::DeflateEncoder::new(&b"text"[..], Compression::fast());
        encoder.read_to_end(&mut packed).unwrap();
        assert_eq!(decompress(Coding::Deflate, &packed, 4).unwrap(), "text");
    }

    #[test]
    fn a_zstd_frame_cannot_ask_for_a_huge_window() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        io::Write::write_all(&mut encoder, &vec![0; 16 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        let failure = decompress(Coding::Zstd, &packed, 32 << 20).unwrap_err();
        assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{failure:?}");
    }

    #[test]
    fn the_client_chooses_among_what_is_known() {
        for (accepted, expected) in [
            (&[][..], None),
            (&["identity"], None),
            (&["br"], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["zstd"], Some(Coding::Zstd)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Gzip)),
            (&["gzip;q=0.5, zstd;q=1"], Some(Coding::Zstd)),
            (&["gzip;q=0"], None),
            (&["zstd;q=0", "gzip"], Some(Coding::Gzip)),
            (&["gzip;level=9"], None),
        ] {
            assert_eq!(of_answer(&headers(ACCEPT_ENCODING, accepted)), expected, "{accepted:?}");
        }
    }

    #[test]
    fn a_body_in_an_unknown_coding_is_refused() {
        for (sent, expected) in [
            (&[][..], Some(None)),
            (&["identity"], Some(None)),
            (&["GZIP"], Some(Some(Coding::Gzip))),
            (&["br"], None),
            (&["gzip, zstd"], None),
            (&["gzip", "gzip"], None),
        ] {
            let coding = of_request(&headers(CONTENT_ENCODING, sent));
            let status = coding.as_ref().err().map(|failure| failure.status);
            assert!(matches!(status, None | Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)));
            assert_eq!(coding.ok(), expected, "{sent:?}");
        }
    }
}
