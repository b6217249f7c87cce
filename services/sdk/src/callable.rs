//! Which methods of other services this one may call, for those that learn only at run time which one they call.

use proto::rpc::Method;

use crate::fleet::Fleet;

impl Fleet {
    /// The methods that answer once, of the services that the manifest of this service calls, ordered by package.
    pub fn callable(&self) -> impl Iterator<Item = &'static Method> {
        let calls = &self.settings().calls;
        let called = proto::SERVICES.iter().filter(|service| calls.iter().any(|package| package == service.package));
        called.flat_map(|service| service.methods).filter(|method| !method.streaming)
    }
}
