//! What a node says when a roll looks at it: what there is, and the documents in which its server speaks of itself.

use std::io::Read as _;

use anyhow::Context as _;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::nats::node::state::NodeState;

/// The largest document that is read.
const LARGEST: u64 = 256 << 20;

/// What a node says.
#[derive(Clone, Debug)]
pub(super) struct NodeSurvey {
    /// What there is on it.
    pub(super) state: NodeState,
    /// Documents by their names: `varz`, `enabled`, `meta`, `full`, and `jsz`, as many as there are pages. None if no server runs.
    pub(super) documents: Vec<(String, Value)>,
}

impl NodeSurvey {
    /// Reads the output of the script.
    ///
    /// # Errors
    /// It is not complete. A document that cannot be read is left out: a server that hangs gives none.
    pub(super) fn parse(output: &str) -> anyhow::Result<Self> {
        let (state, documents) = output.split_once("documents:\n").context("the node's answer lacks its documents")?;
        let documents = documents.trim_end().strip_suffix("documents: end").context("the node's answer is cut off")?;
        let read = |line: &str| {
            let (name, encoded) = line.strip_prefix("document ")?.split_once(' ')?;
            Some((name.to_owned(), decoded(encoded.trim()).ok()?))
        };
        Ok(Self { state: NodeState::parse(state.trim_end())?, documents: documents.lines().filter_map(read).collect() })
    }
}

fn decoded(encoded: &str) -> anyhow::Result<Value> {
    let compressed = data_encoding::BASE64.decode(encoded.as_bytes())?;
    let mut text = Vec::new();
    GzDecoder::new(compressed.as_slice()).take(LARGEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const STATE: &str =
        "name: nats-1\nmachine: x86_64\nmounted: yes\nprepared: yes\nowner: c nats-1\nstate: active\naccounts: ab\n";

    fn encoded(text: &str) -> String {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        data_encoding::BASE64.encode(&encoder.finish().unwrap())
    }

    #[test]
    fn documents_come_after_what_there_is() {
        let (varz, nothing) = (encoded(r#"{"server_name":"nats-1"}"#), encoded(""));
        let output = format!("{STATE}documents:\ndocument varz {varz}\ndocument full {nothing}\ndocuments: end\n");
        let survey = NodeSurvey::parse(&output).unwrap();
        assert_eq!(survey.state.name, "nats-1");
        assert_eq!(survey.documents, [("varz".to_owned(), serde_json::json!({ "server_name": "nats-1" }))]);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        for output in [STATE.to_owned(), format!("{STATE}documents:\ndocument varz ")] {
            assert!(NodeSurvey::parse(&output).is_err(), "{output}");
        }
    }
}
