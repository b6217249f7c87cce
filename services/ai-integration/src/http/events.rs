//! Parses server-sent events as chat completions use them: every `data` line is one event.

/// Longer lines are rejected.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Splits a stream of chunks into events.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    line: Vec<u8>,
}

impl EventParser {
    /// Returns the events that end in this chunk; `None` if a line is too long.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Option<Vec<String>> {
        let mut events = Vec::new();
        let mut parts = chunk.split(|&byte| byte == b'\n');
        // What follows the last line break starts a line.
        let rest = parts.next_back().unwrap_or_default();
        for part in parts {
            self.line.extend_from_slice(part);
            events.extend(data(&self.line));
            self.line.clear();
        }
        self.line.extend_from_slice(rest);
        (self.line.len() <= MAX_LINE_BYTES).then_some(events)
    }
}

/// The content of a `data` line; `None` for other lines.
fn data(line: &[u8]) -> Option<String> {
    let data = String::from_utf8_lossy(line.strip_prefix(b"data:")?).trim().to_owned();
    (!data.is_empty()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_do_not_depend_on_chunk_boundaries() {
        let whole = ": hello\r\ndata: {\"a\":\"€\"}\r\n\r\nevent: x\ndata:b\n\ndata: [DONE]\n\n".as_bytes();
        for size in 1..=whole.len() {
            let mut events = EventParser::default();
            let seen: Vec<String> = whole.chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
            assert_eq!(seen, ["{\"a\":\"€\"}", "b", "[DONE]"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let mut events = EventParser::default();
        assert!(events.push(&vec![b'x'; MAX_LINE_BYTES]).is_some());
        assert!(events.push(b"x").is_none());
    }
}
