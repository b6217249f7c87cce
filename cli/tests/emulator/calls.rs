//! Which AWS call an HTTP request is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::http::Request;

/// Number of the next request id: unique, whatever is reset.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// One call that went through the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// From 1, since the last [`reset_calls`](super::Emulator::reset_calls).
    pub(crate) number: usize,
    /// As IAM names it: `ecs`, `ssm`, `cloudwatch`.
    pub(crate) service: String,
    /// As IAM names it: `UpdateService`.
    pub(crate) action: String,
    /// Whether it changes anything.
    pub(crate) is_write: bool,
    /// The access key id of the caller.
    pub(crate) caller: String,
    /// What the caller says it is.
    pub(crate) agent: String,
    /// What was sent; a form as an object of texts.
    pub(crate) body: Value,
    /// `None` until there is an answer, and when the connection was cut.
    pub(crate) status: Option<u16>,
    pub(crate) request_id: String,
    /// What the proxy did to it.
    pub(crate) fault: Option<String>,
    /// When it came, since 1970.
    pub(crate) since_epoch: Duration,
}

impl Call {
    /// `ecs:UpdateService`
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    pub(crate) fn of(request: &Request, number: usize) -> Self {
        let (caller, scope) = credential(request);
        let target = request.header("x-amz-target").unwrap_or_default();
        let body = body(request);
        let service = scope.or_else(|| service_of_target(target)).unwrap_or_else(|| "sts".to_owned());
        let action = action(request, target, &body);
        Self {
            number,
            is_write: !is_read(&action),
            service: match service.as_str() {
                "monitoring" => "cloudwatch".to_owned(),
                _ => service,
            },
            action,
            caller,
            agent: request.header("user-agent").unwrap_or_default().to_owned(),
            body,
            status: None,
            request_id: format!("00000000-0000-4000-8000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed)),
            fault: None,
            since_epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// The resource that the call is about, as far as its body says.
    pub(crate) fn resource(&self) -> String {
        let mut texts = Vec::new();
        collect(&self.body, &mut texts);
        texts.into_iter().find(|text| text.starts_with("arn:")).unwrap_or_else(|| "*".to_owned())
    }

    /// Whether a text of the body is this one, or an ARN that ends in it.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        let mut texts = Vec::new();
        collect(&self.body, &mut texts);
        texts
            .iter()
            .any(|text| text == name || text.ends_with(&format!("/{name}")) || text.ends_with(&format!(":{name}")))
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, texts)),
        _ => {}
    }
}

/// Access key id and service of the signature.
fn credential(request: &Request) -> (String, Option<String>) {
    let authorization = request.header("authorization").unwrap_or_default();
    let Some((_, rest)) = authorization.split_once("Credential=") else { return (String::new(), None) };
    let scope: Vec<_> = rest.split(',').next().unwrap_or_default().split('/').collect();
    (scope[0].to_owned(), scope.get(3).map(|service| (*service).to_owned()))
}

fn service_of_target(target: &str) -> Option<String> {
    let service = match target.split(['.', '_']).next()? {
        "AmazonEC2ContainerServiceV20141113" => "ecs",
        "AmazonEC2ContainerRegistry" => "ecr",
        "Logs" => "logs",
        "AmazonSSM" => "ssm",
        "DynamoDB" => "dynamodb",
        "secretsmanager" => "secretsmanager",
        "AnyScaleFrontendService" => "application-autoscaling",
        _ => return None,
    };
    Some(service.to_owned())
}

fn action(request: &Request, target: &str, body: &Value) -> String {
    if let Some((_, action)) = target.rsplit_once('.') {
        return action.to_owned();
    }
    let path = request.target.split('?').next().unwrap_or_default();
    if let Some((_, action)) = path.split_once("/operation/") {
        return action.to_owned();
    }
    if let Some(action) = body["Action"].as_str() {
        return action.to_owned();
    }
    format!("{} {path}", request.method)
}

/// JSON as it is, forms and queries as objects of texts, anything else as nothing.
fn body(request: &Request) -> Value {
    let kind = request.header("content-type").unwrap_or_default();
    if kind.contains("json") {
        return serde_json::from_slice(&request.body).unwrap_or_default();
    }
    let query = request.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let form = if kind.contains("form") { String::from_utf8_lossy(&request.body).into_owned() } else { String::new() };
    let pairs = query.split('&').chain(form.split('&')).filter_map(|pair| pair.split_once('='));
    Value::Object(pairs.map(|(name, value)| (decode(name), Value::String(decode(value)))).collect())
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_read(action: &str) -> bool {
    const READS: [&str; 16] = [
        "BatchCheck",
        "BatchGet",
        "Describe",
        "Filter",
        "GET ",
        "Get",
        "HEAD ",
        "Head",
        "List",
        "Lookup",
        "Query",
        "Scan",
        "Search",
        "Simulate",
        "TransactGet",
        "AssumeRole",
    ];
    READS.iter().any(|read| action.starts_with(read))
}
