//! The wire format beside the protobuf messages: header names, and the fields that all requests and responses share.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use proto::common::v1 as common;
use proto::rpc::{Code, Error};

/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// On what is published to JetStream: by it the stream recognises what it has stored already.
pub(crate) const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
/// The id of an event, which stays the same when it is stored again elsewhere. Without it, [`MESSAGE_ID`] is the id.
pub(crate) const EVENT_ID: HeaderName = HeaderName::from_static("Event-Id");
/// ADR-32: the error message of a failed request.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("Nats-Service-Error");
/// ADR-32: the status code that belongs to [`ERROR`].
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("Nats-Service-Error-Code");
/// On a streaming request: how many messages the worker may send before it must wait for more credit.
pub(crate) const STREAM_CREDIT: HeaderName = HeaderName::from_static("Stream-Credit");
/// On a message of a stream: its number, from 0.
pub(crate) const STREAM_SEQUENCE: HeaderName = HeaderName::from_static("Stream-Seq");
/// On the last message of a stream: `ok` or `error`.
pub(crate) const STREAM_END: HeaderName = HeaderName::from_static("Stream-End");
/// On a message that only keeps the stream alive.
pub(crate) const STREAM_HEARTBEAT: HeaderName = HeaderName::from_static("Stream-Heartbeat");

/// The fields of every request that the SDK reads.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestEnvelope {
    #[prost(message, optional, tag = "1")]
    pub(crate) meta: Option<ReceivedMeta>,
}

/// The fields of `common.v1.Meta` that handling a request needs. Few, because it is decoded separately for each
/// request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceivedMeta {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    /// Text, but only parsed if there is no `traceparent`.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) trace_id: Bytes,
    #[prost(string, tag = "4")]
    pub(crate) idempotency_key: String,
    #[prost(uint32, tag = "5")]
    pub(crate) timeout_ms: u32,
}

/// The fields of every response that the SDK reads.
#[derive(Clone, PartialEq, Message)]
struct ResponseEnvelope {
    #[prost(message, optional, tag = "1")]
    error: Option<common::Error>,
}

/// The fields of `common.v1.Meta` that a call sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentMeta<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) trace_id: &'a [u8; 32],
    pub(crate) timestamp: Duration,
    pub(crate) idempotency_key: &'a str,
    pub(crate) timeout_ms: u32,
}

/// Appends the metadata to an encoded request. Protobuf merges a field that occurs twice, and the later value wins. The
/// encoding of `common.v1.Meta` is written by hand, because it is on the path of every call.
pub(crate) fn with_meta(request: &[u8], meta: SentMeta<'_>) -> Bytes {
    let (seconds, nanos) = (meta.timestamp.as_secs(), u64::from(meta.timestamp.subsec_nanos()));
    let text = |text: &str| if text.is_empty() { 0 } else { 1 + encoded_len_varint(text.len() as u64) + text.len() };
    let timestamp = 2 + encoded_len_varint(seconds) + encoded_len_varint(nanos);
    let timeout = 1 + encoded_len_varint(meta.timeout_ms.into());
    let length = text(meta.request_id) + 2 + meta.trace_id.len() + 2 + timestamp + text(meta.idempotency_key) + timeout;

    let mut out = BytesMut::with_capacity(request.len() + length + 12);
    out.put_slice(request);
    let mut field = |number: u64, wire_type: u64, value: u64| {
        encode_varint(number << 3 | wire_type, &mut out);
        encode_varint(value, &mut out);
    };
    field(1, LENGTH_DELIMITED, length as u64);
    let mut bytes = |number: u8, bytes: &[u8]| {
        if !bytes.is_empty() {
            out.put_u8(number << 3 | LENGTH_DELIMITED as u8);
            encode_varint(bytes.len() as u64, &mut out);
            out.put_slice(bytes);
        }
    };
    bytes(1, meta.request_id.as_bytes());
    bytes(2, meta.trace_id);
    bytes(4, meta.idempotency_key.as_bytes());
    let mut field = |number: u64, wire_type: u64, value: u64| {
        encode_varint(number << 3 | wire_type, &mut out);
        encode_varint(value, &mut out);
    };
    field(3, LENGTH_DELIMITED, timestamp as u64);
    field(1, VARINT, seconds);
    field(2, VARINT, nanos);
    field(5, VARINT, meta.timeout_ms.into());
    out.freeze()
}

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// Lower-case hexadecimal digits; faster than formatting.
pub(crate) fn hex<const DIGITS: usize>(value: u128) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * index)) as usize & 0xf];
    }
    digits
}

/// Hexadecimal digits are ASCII.
pub(crate) fn as_text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

/// A response that carries only `error`.
pub(crate) fn error_payload(error: &Error) -> Bytes {
    ResponseEnvelope { error: Some(error.clone().into()) }.encode_to_vec().into()
}

/// ADR-32's headers for `error`.
pub(crate) fn error_headers(error: &Error) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A header is one line.
    headers.insert(ERROR, error.message().replace(['\r', '\n'], " "));
    headers.insert(ERROR_CODE, status(error.code()).to_string());
    headers
}

/// The value of a header. Names are compared without regard to case: clients in other languages may write them as HTTP
/// libraries do.
pub(crate) fn header<'a>(headers: Option<&'a HeaderMap>, name: &HeaderName) -> Option<&'a str> {
    let headers = headers?;
    let wanted: &str = name.as_ref();
    let any_case = || {
        let mut all = headers.iter();
        let (_, values) = all.find(|(name, _)| AsRef::<str>::as_ref(*name).eq_ignore_ascii_case(wanted))?;
        values.first()
    };
    headers.get(name.clone()).or_else(any_case).map(HeaderValue::as_str)
}

/// The error of a response whose headers mark it as failed. A service that does not use the SDK may send only the
/// headers.
pub(crate) fn error_in(headers: Option<&HeaderMap>, payload: &Bytes) -> Option<Error> {
    let (description, status) = (header(headers, &ERROR), header(headers, &ERROR_CODE));
    if description.is_none() && status.is_none() {
        return None;
    }
    let carried = ResponseEnvelope::decode(payload.clone()).ok().and_then(|envelope| envelope.error);
    let described = || {
        let description =
            description.filter(|text| !text.is_empty()).unwrap_or("the service did not say why it failed");
        Error::new(code(status.unwrap_or_default()), description.to_owned())
    };
    Some(carried.map_or_else(described, Error::from))
}

/// The code of an HTTP status, as ADR-32 tools send it. Where several codes have the status, the most general one.
fn code(status: &str) -> Code {
    match status.trim().parse::<u16>() {
        Ok(401 | 403) => Code::PermissionDenied,
        Ok(404) => Code::NotFound,
        Ok(409) => Code::Aborted,
        Ok(412 | 422) => Code::FailedPrecondition,
        Ok(429) => Code::ResourceExhausted,
        Ok(501) => Code::Unimplemented,
        Ok(502..=504) => Code::Unavailable,
        Ok(400..=499) => Code::InvalidArgument,
        Ok(500..=599) => Code::Internal,
        _ => Code::Unknown,
    }
}

/// The HTTP status of a code, which ADR-32 tools expect.
fn status(code: Code) -> u16 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::FailedPrecondition => 422,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_merged_into_a_request_that_has_some() {
        #[derive(Clone, PartialEq, Message)]
        struct Request {
            #[prost(message, optional, tag = "1")]
            meta: Option<common::Meta>,
        }
        let before = common::Meta { idempotency_key: "k".into(), request_id: "old".into(), ..Default::default() };
        let added = SentMeta {
            request_id: "new",
            trace_id: &hex(0x4bf9),
            timestamp: Duration::new(1_800_000_000, 5_000),
            idempotency_key: "",
            timeout_ms: 30_000,
        };
        let request = Request { meta: Some(before) }.encode_to_vec();
        let merged = Request::decode(with_meta(&request, added)).unwrap().meta.unwrap();
        let expected = common::Meta {
            request_id: "new".into(),
            trace_id: format!("{:032x}", 0x4bf9),
            timestamp: Some(proto::well_known::Timestamp { seconds: 1_800_000_000, nanos: 5_000 }),
            idempotency_key: "k".into(),
            timeout_ms: 30_000,
        };
        assert_eq!(merged, expected);
        let read = RequestEnvelope::decode(with_meta(&[], SentMeta { idempotency_key: "other", ..added })).unwrap();
        let read = read.meta.unwrap();
        assert_eq!(
            (read.request_id.as_str(), read.idempotency_key.as_str(), read.timeout_ms),
            ("new", "other", 30_000)
        );
        assert_eq!(&read.trace_id[..], added.trace_id);
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        for name in ["traceparent", "TRACEPARENT", "Traceparent"] {
            let mut headers = HeaderMap::new();
            headers.insert("other", "x");
            headers.insert(name, "00-1");
            assert_eq!(header(Some(&headers), &TRACEPARENT), Some("00-1"), "{name}");
            assert_eq!(header(Some(&headers), &STREAM_END), None);
        }
        let mut headers = HeaderMap::new();
        headers.insert("nats-service-error", "no");
        headers.insert("NATS-SERVICE-ERROR-CODE", "404");
        assert_eq!(error_in(Some(&headers), &Bytes::new()), Some(Error::new(Code::NotFound, "no")));
    }

    #[test]
    fn an_error_in_the_headers_alone_has_its_code_and_message() {
        #[track_caller]
        fn check(status: &str, expected: Code) {
            let mut headers = HeaderMap::new();
            headers.insert(ERROR, "no gold");
            headers.insert(ERROR_CODE, status);
            assert_eq!(error_in(Some(&headers), &Bytes::new()), Some(Error::new(expected, "no gold")), "{status}");
        }
        check("400", Code::InvalidArgument);
        check("409", Code::Aborted);
        check("418", Code::InvalidArgument);
        check("429", Code::ResourceExhausted);
        check("500", Code::Internal);
        check("503", Code::Unavailable);
        check("E17", Code::Unknown);
        let mut headers = HeaderMap::new();
        headers.insert(ERROR_CODE, "404");
        assert_eq!(error_in(Some(&headers), &Bytes::new()).unwrap().code(), Code::NotFound);
        let mut headers = HeaderMap::new();
        headers.insert(ERROR, "no gold");
        assert_eq!(error_in(Some(&headers), &Bytes::new()), Some(Error::new(Code::Unknown, "no gold")));
    }

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(Code::Aborted, "two\nlines").with_detail("current_revision", 7);
        let headers = error_headers(&error);
        assert_eq!(headers.get(ERROR_CODE).unwrap().as_str(), "409");
        assert_eq!(error_in(Some(&headers), &error_payload(&error)), Some(error));
        assert_eq!(error_in(None, &Bytes::new()), None);
    }
}
