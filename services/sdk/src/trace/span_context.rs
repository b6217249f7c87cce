//! What a span passes on to those that it causes, and its text form, the W3C `traceparent`.

use crate::wire;

/// The identity of a span, as W3C trace context passes it on (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanContext {
    /// Never 0.
    pub(crate) trace_id: u128,
    /// Never 0.
    pub(crate) span_id: u64,
    /// Whether whoever sent it records the trace.
    pub(crate) sampled: bool,
}

impl SpanContext {
    /// Parses a `traceparent`. Of a later version of the format, only what version 00 defines is read.
    pub(crate) fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex =
            |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let well_formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
        // Version 00 has four fields; later ones may add some. Version ff is forbidden.
        if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, span_id, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }

    /// The `traceparent` of what this span causes.
    pub(crate) fn traceparent(&self) -> String {
        let mut out = String::with_capacity(55);
        out.push_str("00-");
        out.push_str(wire::as_text(&wire::hex::<32>(self.trace_id)));
        out.push('-');
        out.push_str(wire::as_text(&wire::hex::<16>(self.span_id.into())));
        out.push_str(if self.sampled { "-01" } else { "-00" });
        out
    }
}

/// A random trace id.
pub(crate) fn random_trace_id() -> u128 {
    fastrand::u128(1..)
}

/// A random span id.
pub(crate) fn random_span_id() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_parsed_by_the_w3c_rules() {
        #[track_caller]
        fn check(value: &str, sampled: Option<bool>) {
            let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
            let expected = |sampled| SpanContext { trace_id: id, span_id: 0x00f0_67aa_0ba9_02b7, sampled };
            assert_eq!(SpanContext::parse(value), sampled.map(expected), "{value}");
        }
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some(true));
        check("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some(true));
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None);
        check("", None);
    }

    #[test]
    fn a_traceparent_is_written_as_it_is_read() {
        for text in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-0000000000000000000000000000000a-000000000000000b-00",
        ] {
            assert_eq!(SpanContext::parse(text).unwrap().traceparent(), text);
        }
    }
}
