//! Heads that are not HTTP: hyper answers them by itself, and without a body.

use std::time::Duration;

use http::StatusCode;
use proto::rpc::Code;
use sdk::{Context, ExternalRequest};

use crate::problem::Problem;

/// The longest first line of a head that is looked at.
const MAX_LINE: usize = 64 * 1024;

/// What the first line of a head says, as it is received.
#[derive(Debug, Default)]
pub(crate) struct FirstLine {
    /// What was received of it.
    line: Vec<u8>,
    is_complete: bool,
    /// Whether it names a version of HTTP that the gateway does not speak.
    pub(crate) has_other_version: bool,
}

impl FirstLine {
    /// Looks at what was received. Of a client that starts with HTTP/2, the method is changed: hyper would close its
    /// connection without a word.
    pub(crate) fn receive(&mut self, bytes: &mut [u8]) {
        let mut start = 0;
        while !self.is_complete
            && let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty())
        {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + part.len() > MAX_LINE {
                self.is_complete = true;
                return;
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return };
            let line = self.line.trim_ascii_end();
            // A head may begin with empty lines.
            if !line.is_empty() {
                self.is_complete = true;
                self.has_other_version = has_other_version(line);
                if line == b"PRI * HTTP/2.0" && start == 0 {
                    bytes[0] = b'X';
                }
            }
            self.line.clear();
            start += end + 1;
        }
    }

    /// The next bytes are a new head.
    pub(crate) fn forget(&mut self) {
        self.line.clear();
        (self.is_complete, self.has_other_version) = (false, false);
    }
}

/// Whether a line ends as in `GET / HTTP/3`, with another version than 1.0 and 1.1.
fn has_other_version(line: &[u8]) -> bool {
    let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let Some(version) = word.strip_prefix(b"HTTP/") else { return false };
    let is_version = match version {
        [major] => major.is_ascii_digit(),
        [major, b'.', minor] => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    };
    is_version && line.len() > word.len() && !matches!(version, b"1.0" | b"1.1")
}

/// The answer in place of `written`, if that is an answer of hyper's own. No error of the gateway has an empty body.
pub(crate) fn refusal(written: &[u8], first_line: &FirstLine) -> Option<Vec<u8>> {
    let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let text = std::str::from_utf8(written).ok()?;
    if !text.contains("\r\ncontent-length: 0\r\n") || !text.ends_with("\r\n\r\n") {
        return None;
    }
    let (status, detail) = match status {
        b"00" if first_line.has_other_version => {
            (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are supported")
        }
        b"00" => (StatusCode::BAD_REQUEST, "the head of the request is not valid HTTP/1.1"),
        b"14" => (StatusCode::URI_TOO_LONG, "the path of the request is too long"),
        b"31" => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers of the request are too large"),
        _ => return None,
    };
    let context = Context::external(ExternalRequest {
        traceparent: None,
        request_id: None,
        idempotency_key: None,
        timeout: Duration::ZERO,
    });
    let code = if status.is_server_error() { Code::Unimplemented } else { Code::InvalidArgument };
    let body = Problem::new(status, code, detail).json("", &context);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nx-request-id: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        context.request_id(),
        body.len()
    );
    Some([head.into_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&str], expected: bool) {
        let mut line = FirstLine::default();
        for chunk in chunks {
            line.receive(&mut chunk.as_bytes().to_vec());
        }
        assert_eq!(line.has_other_version, expected, "{chunks:?}");
    }

    #[test]
    fn a_version_of_http_is_recognised_however_it_arrives() {
        check(&["GET / HTTP/2\r\n"], true);
        check(&["\r\n\r\nGET / HTTP/3.0\r\nhost: a\r\n"], true);
        check(&["GE", "T / HTT", "P/1.2\n"], true);
        check(&["\r", "\n", "GET / HTTP/0.9\r", "\n"], true);
        check(&["GET / HTTP/1.1\r\n", "x: a HTTP/2.0\r\n"], false);
        for line in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "GET / http/2\r\n",
            "GET / HTTP/x\r\n",
            "HTTP/2\r\n",
            "GET /\r\n",
        ] {
            check(&[line], false);
        }
        check(&["GET / HTTP/2"], false);
    }

    #[test]
    fn only_the_first_line_of_each_head_counts() {
        let mut line = FirstLine::default();
        line.receive(&mut b"POST / HTTP/1.1\r\n\r\nGET / HTTP/2\r\n".to_vec());
        assert!(!line.has_other_version);
        line.forget();
        line.receive(&mut b"GET / HTTP/2\r\n".to_vec());
        assert!(line.has_other_version);
        line.forget();
        assert!(!line.has_other_version);
        line.receive(&mut vec![b'x'; MAX_LINE + 1]);
        line.receive(&mut b" HTTP/2\r\n".to_vec());
        assert!(!line.has_other_version && line.line.is_empty());
    }

    #[test]
    fn the_start_of_http_2_is_changed_to_what_is_answered() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut line = FirstLine::default();
        line.receive(&mut bytes);
        assert!(line.has_other_version && bytes.starts_with(b"XRI * "));
    }
}
