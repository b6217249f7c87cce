//! `natsctl bench`

use std::time::{Duration, Instant};

use clap::Args;
use futures::future::try_join_all;
use hyper::body::Bytes;
use proto::rpc::Method;
use serde::Serialize;

use super::call::request;
use crate::commands::invocation::Invocation;
use crate::error::Hinted;
use crate::model::units::Span;
use crate::nats::call::{decode, encode, method, send};
use crate::screen::Report;

/// Measure how many requests a method answers, and how long they take
///
/// The same request is sent over NATS as an operator does, so many at a time, over one connection: latency is that of a whole round trip.
/// The sizes of request and answer are those of Protocol Buffers, beside their JSON.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Its full name or its subject: `quest.v1.Quest/Get`, `quest.v1.get`
    method: String,
    /// The request; `-` reads it from standard input
    #[arg(default_value = "{}", value_name = "JSON")]
    request: String,
    /// How many requests wait for their answers at the same time
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// How long to measure, after a second at most to warm up
    #[arg(long, default_value = "5 s", value_name = "DURATION")]
    duration: Span,
}

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);
/// What is sent before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    method: &'static str,
    concurrency: u16,
    requests: usize,
    requests_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    request: Sizes,
    answer: Sizes,
}

/// Bytes of a message.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sizes {
    protobuf: usize,
    json: usize,
}

impl Bench {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let method = method(&self.method)?;
        if method.streaming {
            let message = format!("`{}` answers with a stream", method.full_name);
            return Err(Hinted::new(message, "choose a method that answers once").into());
        }
        let json = request(&self.request)?;
        let payload: Bytes = encode(method, &json, LIMIT)?.into();
        let client = invocation.local()?.operator().await?;
        // What is refused would be fast.
        let answer = send(&client, method, payload.clone(), None, LIMIT).await?;
        let decoded = decode(method, &answer).map_err(|error| {
            Hinted::new(format!("`{}`: {error}", method.full_name), "give it a request that succeeds")
        })?;
        let (request, answer) = (Sizes::of(&payload, &json), Sizes::of(&answer, &decoded));
        let callers = || (0..self.concurrency).map(|_| client.clone());
        let round = async |duration: Duration| {
            let started = Instant::now();
            let callers = callers().map(|client| caller(client, method, payload.clone(), started + duration));
            let mut latencies = try_join_all(callers).await?.concat();
            latencies.sort_unstable();
            anyhow::Ok((latencies, started.elapsed()))
        };
        round(self.duration.duration().min(WARM_UP)).await?;
        let (latencies, took) = round(self.duration.duration()).await?;
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        let requests = latencies.len();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let requests_per_second = (requests as f64 / took.as_secs_f64()).round();
        let measured = Measured {
            method: method.full_name,
            concurrency: self.concurrency,
            requests,
            requests_per_second,
            p50_us: at(50),
            p99_us: at(99),
            max_us: latencies.last().copied().unwrap_or_default(),
            request,
            answer,
        };
        Ok(Report::new(&measured, measured.text()))
    }
}

/// Sends one request after the other until the time is over. Returns how long each took, in microseconds.
async fn caller(
    client: async_nats::Client,
    method: &Method,
    payload: Bytes,
    until: Instant,
) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let sent = Instant::now();
        send(&client, method, payload.clone(), None, LIMIT).await?;
        latencies.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(latencies)
}

impl Sizes {
    fn of(encoded: &[u8], json: &serde_json::Value) -> Self {
        Self { protobuf: encoded.len(), json: json.to_string().len() }
    }
}

impl Measured {
    fn text(&self) -> String {
        let Self { method, concurrency, requests, requests_per_second, p50_us, p99_us, max_us, request, answer } = self;
        format!(
            "{method}, {concurrency} at a time, {requests} requests\n\
             requests/s  {requests_per_second}\n\
             p50         {p50_us} µs\n\
             p99         {p99_us} µs\n\
             max         {max_us} µs\n\
             request     {} bytes, {} in JSON\n\
             answer      {} bytes, {} in JSON",
            request.protobuf, request.json, answer.protobuf, answer.json
        )
    }
}
