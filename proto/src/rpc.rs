//! The types shared by generated code and transports: descriptions of services, the error type, and the traits between
//! them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use prost::Message;

use crate::common::v1 as common;
pub use crate::common::v1::Code;

/// Last token of the subject of filler messages: a worker that leaves its queue group publishes them to the group, and
/// every member ignores them. No rpc has this name.
pub const FILLER: &str = "_";

/// A service as its `.proto` file describes it.
#[derive(Debug)]
pub struct Service {
    /// Full protobuf name, for example `quest.v1.Quest`.
    pub name: &'static str,
    /// Package, for example `quest.v1`.
    pub package: &'static str,
    /// The prefix of all its subjects, for example `svc.quest.v1`.
    pub subject: &'static str,
    /// In the order of the `.proto` file.
    pub methods: &'static [Method],
}

/// One rpc.
#[derive(Debug)]
pub struct Method {
    /// Full protobuf name: the service and the rpc, for example `quest.v1.Quest/Generate`.
    pub full_name: &'static str,
    /// Last token of the subject, for example `infer_stream`.
    pub name: &'static str,
    /// For example `svc.ai.llm.v1.infer_stream`.
    pub subject: &'static str,
    /// For example `ai.llm.v1`.
    pub package: &'static str,
    /// Whether a request may be retried when its outcome is unknown.
    pub idempotent: bool,
    /// Whether the response is a stream.
    pub streaming: bool,
    /// Full name of the request message.
    pub input: &'static str,
    /// Full name of the response message.
    pub output: &'static str,
}

/// An event as its `.proto` file describes it.
#[derive(Debug)]
pub struct EventInfo {
    /// Full protobuf name, for example `ai.model.v1.Selected`.
    pub message: &'static str,
    /// For example `ai.model.v1`.
    pub package: &'static str,
    /// For example `evt.ai.model.selected.v1`.
    pub subject: &'static str,
}

/// A message that is published on its own subject.
pub trait Event: Message + Default + 'static {
    /// For example `evt.ai.model.selected.v1`.
    const SUBJECT: &'static str;
    /// Sets the metadata of the request that caused the event.
    fn set_meta(&mut self, meta: common::Meta);
}

/// Handles one kind of event. An event may come more than once: the context's idempotency key is the same each time, and
/// goes with every call and event that handling it causes.
pub trait Handler<E: Event>: Send + Sync + 'static {
    /// Handles an event. An error that repeating cannot help (INVALID_ARGUMENT, OUT_OF_RANGE, UNIMPLEMENTED) makes the event
    /// a dead letter at once; after any other it is handled again later, as often as the manifest says.
    fn handle(&self, event: E) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A request: the parameters of one rpc.
pub trait Request: Message + Default + 'static {
    /// The rpc.
    const METHOD: &'static Method;
}

/// A message that is stored in a bucket together with the operations that changed it. The message reserves a field for
/// them, by its number and by the name `operations`.
pub trait Record: Message + Default + Clone + PartialEq + 'static {
    /// The number of that field.
    const OPERATIONS: u32;
    /// Sets the revision at which it is stored, if the message has a field `revision`.
    fn set_revision(&mut self, _revision: u64) {}
}

/// An enumeration of the protocol.
pub trait Enumeration: TryFrom<i32> + Copy {
    /// What its values are called, without the one that stands for an unset field.
    const NAMES: &'static [&'static str];
    /// What this value is called.
    fn name(self) -> &'static str;
}

/// A response: the result, or the error in field 1.
pub trait Response: Message + Default + 'static {
    /// Takes the error, if there is one.
    fn take_error(&mut self) -> Option<common::Error>;
    /// A response that carries only an error.
    fn failed(error: common::Error) -> Self;
}

/// The responses of a streaming method. The stream ends with the first error.
pub type Stream<T> = BoxStream<'static, Result<T, Error>>;

/// Why a request failed, as sent over the wire: a code for programs, a sentence for people, and details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: Cow<'static, str>,
    details: BTreeMap<String, String>,
}

impl Error {
    /// An error with this code; `message` is one sentence, lower case, without a full stop.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new() }
    }

    /// INVALID_ARGUMENT: the request cannot succeed unless it is changed.
    pub fn invalid(reason: impl fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, reason.to_string())
    }

    /// NOT_FOUND: `what` does not exist, for example ``quest `q1` ``.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist"))
    }

    /// FAILED_PRECONDITION: the system is not in the state that the request needs.
    pub fn failed_precondition(reason: impl fmt::Display) -> Self {
        Self::new(Code::FailedPrecondition, reason.to_string())
    }

    /// INTERNAL: a fault of the service.
    pub fn internal(reason: impl fmt::Display) -> Self {
        Self::new(Code::Internal, reason.to_string())
    }

    /// UNAVAILABLE: the caller may retry.
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, reason.to_string())
    }

    /// UNIMPLEMENTED: `service` does not have this method.
    pub fn unimplemented(service: &Service, method: impl fmt::Display) -> Self {
        Self::new(Code::Unimplemented, format!("`{}` has no method `{method}`", service.name))
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    /// Renames a detail, if it is present.
    #[must_use]
    pub fn with_detail_renamed(mut self, from: &str, to: &str) -> Self {
        if let Some(value) = self.details.remove(from) {
            self.details.insert(to.to_owned(), value);
        }
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// One sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Details for programs.
    pub fn details(&self) -> &BTreeMap<String, String> {
        &self.details
    }

    /// One detail.
    pub fn detail(&self, key: &str) -> Option<&str> {
        self.details.get(key).map(String::as_str)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_str_name())
    }
}

impl std::error::Error for Error {}

impl From<Error> for common::Error {
    fn from(error: Error) -> Self {
        Self { code: error.code.into(), message: error.message.into_owned(), details: error.details }
    }
}

impl From<common::Error> for Error {
    fn from(error: common::Error) -> Self {
        Self { code: error.code(), message: error.message.into(), details: error.details }
    }
}

/// Decodes a request, a response or an event.
///
/// # Errors
/// INVALID_ARGUMENT if the bytes are not this message.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::invalid(format_args!("payload is not the expected message: {error}")))
}

/// The reply of a server: one encoded message or a stream of them.
pub enum Reply {
    /// The response of a unary method.
    Message(Bytes),
    /// The responses of a streaming method.
    Stream(BoxStream<'static, Result<Bytes, Error>>),
}

impl Reply {
    /// Encodes the response of a unary method.
    pub fn message<M: Response>(message: M) -> Self {
        Self::Message(message.encode_to_vec().into())
    }

    /// Encodes the responses of a streaming method as they arrive.
    pub fn stream<M: Response>(stream: Stream<M>) -> Self {
        Self::Stream(stream.map(|item| item.map(|message| message.encode_to_vec().into())).boxed())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A server of the methods of one service. Generated for each service's trait.
pub trait Server: Send + Sync + 'static {
    /// The service.
    const SERVICE: &'static Service;
    /// Handles one request; `method` is an index into the methods of [`Self::SERVICE`].
    fn call(&self, method: usize, request: Bytes) -> impl Future<Output = Result<Reply, Error>> + Send;
}

/// Carries encoded requests to a server and encoded responses back. An error in a response may be left there.
pub trait Transport: Send + Sync + 'static {
    /// Calls a unary method.
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>>;
    /// Calls a streaming method.
    fn streaming<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>>;
}

/// The channel through which a generated client sends its requests.
#[derive(Clone)]
pub struct Channel(Arc<dyn Transport>);

impl Channel {
    /// Sends over `transport`.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }

    /// Sends to a server in the same process. For tests.
    pub fn to(server: impl Server) -> Self {
        Self::new(InProcess(Arc::new(server)))
    }

    /// Calls a unary method.
    ///
    /// # Errors
    /// The error of the transport, or the error in the response.
    pub async fn unary<M: Response>(&self, method: &'static Method, request: &impl Message) -> Result<M, Error> {
        let bytes = self.0.unary(method, request.encode_to_vec().into()).await?;
        checked(bytes)
    }

    /// Calls a unary method with an encoded request, and returns the encoded response: for callers that learn only at run time
    /// which method it is ([`SERVICES`](crate::SERVICES) has all of them).
    ///
    /// # Errors
    /// The error of the transport, or the error in the response.
    pub async fn encoded(&self, method: &'static Method, request: Bytes) -> Result<Bytes, Error> {
        let response = self.0.unary(method, request).await?;
        let unreadable = |error: prost::DecodeError| {
            Error::new(Code::DataLoss, format!("the response of `{}` is not readable: {error}", method.full_name))
        };
        match ResponseEnvelope::decode(response.clone()).map_err(unreadable)?.error {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }

    /// Calls a streaming method.
    ///
    /// # Errors
    /// The error of the transport before the first message; later errors are in the stream.
    pub async fn streaming<M: Response>(
        &self,
        method: &'static Method,
        request: &impl Message,
    ) -> Result<Stream<M>, Error> {
        let stream = self.0.streaming(method, request.encode_to_vec().into()).await?;
        Ok(stream.map(|item| item.and_then(checked)).boxed())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

/// What all responses have in common.
#[derive(Clone, PartialEq, Message)]
struct ResponseEnvelope {
    #[prost(message, optional, tag = "1")]
    error: Option<common::Error>,
}

/// Decodes a response, and returns its error if it has one.
fn checked<M: Response>(bytes: Bytes) -> Result<M, Error> {
    let mut message: M = decode(bytes).map_err(|error| Error::new(Code::DataLoss, error.message().to_owned()))?;
    match message.take_error() {
        Some(error) => Err(error.into()),
        None => Ok(message),
    }
}

struct InProcess<S>(Arc<S>);

impl<S: Server> InProcess<S> {
    fn call(
        &self,
        method: &'static Method,
        request: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            let index = S::SERVICE.methods.iter().position(|known| known.subject == method.subject);
            let index = index.ok_or_else(|| Error::unimplemented(S::SERVICE, method.name))?;
            server.call(index, request).await
        })
    }
}

impl<S: Server> Transport for InProcess<S> {
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move {
            match self.call(method, request).await? {
                Reply::Message(bytes) => Ok(bytes),
                Reply::Stream(_) => Err(Error::internal(format_args!("`{}` returns a stream", method.subject))),
            }
        })
    }

    fn streaming<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>> {
        Box::pin(async move {
            match self.call(method, request).await? {
                Reply::Stream(stream) => Ok(stream),
                Reply::Message(_) => {
                    Err(Error::internal(format_args!("`{}` does not return a stream", method.subject)))
                }
            }
        })
    }
}
