//! Other services that a test makes up.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::rpc::{Channel, Error, Method, Request, Response, Stream, Transport, decode};

type Answer = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<Bytes, Error>> + Send + Sync>;

/// Answers requests as a test says: `Fake::default().on(|_: NowRequest| Ok(time.into())).client::<TimeManagerClient>()`. A method
/// that the test does not mention is UNAVAILABLE.
#[derive(Clone, Default)]
pub struct Fake(BTreeMap<&'static str, Answer>);

impl Fake {
    /// Answers the requests of one method.
    #[must_use]
    pub fn on<Q: Request, A: Response>(
        self,
        answer: impl Fn(Q) -> Result<A, Error> + Clone + Send + Sync + 'static,
    ) -> Self {
        self.answering::<Q>(move |request| {
            let answer = answer.clone();
            async move { Ok(answer(decode(request)?)?.encode_to_vec().into()) }.boxed()
        })
    }

    /// Never answers the requests of one method.
    #[must_use]
    pub fn silent<Q: Request>(self) -> Self {
        self.answering::<Q>(|_| futures::future::pending().boxed())
    }

    /// A client of these services.
    pub fn client<C: From<Channel>>(&self) -> C {
        C::from(Channel::new(self.clone()))
    }

    fn answering<Q: Request>(
        mut self,
        answer: impl Fn(Bytes) -> BoxFuture<'static, Result<Bytes, Error>> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(Q::METHOD.full_name, Arc::new(answer));
        self
    }

    fn unavailable(method: &Method) -> Error {
        Error::unavailable(format_args!("no `{}` in this test", method.full_name))
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Transport for Fake {
    fn unary<'a>(&'a self, method: &'static Method, request: Bytes) -> BoxFuture<'a, Result<Bytes, Error>> {
        match self.0.get(method.full_name) {
            Some(answer) => answer(request),
            None => futures::future::err(Self::unavailable(method)).boxed(),
        }
    }

    fn streaming<'a>(&'a self, method: &'static Method, _: Bytes) -> BoxFuture<'a, Result<Stream<Bytes>, Error>> {
        futures::future::err(Self::unavailable(method)).boxed()
    }
}
