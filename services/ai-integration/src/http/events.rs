//! Server-sent events, as chat completions use them: every line of data is an event.

/// No event is longer.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Puts lines together from chunks that end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
}

impl Events {
    /// The events that end in this chunk; none at all if a line gets too long.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Option<Vec<String>> {
        let mut events = Vec::new();
        let mut parts = chunk.split(|&byte| byte == b'\n');
        // What comes after the last line end begins a line.
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

/// What a line of data says; other lines say nothing.
fn data(line: &[u8]) -> Option<String> {
    let data = String::from_utf8_lossy(line.strip_prefix(b"data:")?).trim().to_owned();
    (!data.is_empty()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_wherever_they_are_cut() {
        let whole = ": hello\r\ndata: {\"a\":\"€\"}\r\n\r\nevent: x\ndata:b\n\ndata: [DONE]\n\n".as_bytes();
        for size in 1..=whole.len() {
            let mut events = Events::default();
            let seen: Vec<String> = whole.chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
            assert_eq!(seen, ["{\"a\":\"€\"}", "b", "[DONE]"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut events = Events::default();
        assert!(events.push(&vec![b'x'; MAX_LINE_BYTES]).is_some());
        assert!(events.push(b"x").is_none());
    }
}
