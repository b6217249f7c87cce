//! Which methods of other services this one may call, for those that learn only at run time which one they call.

use proto::rpc::{Error, Method};

use crate::fleet::Fleet;

impl Fleet {
    /// The methods that answer once, of the services that the manifest of this service calls, ordered by package.
    pub fn callable(&self) -> impl Iterator<Item = &'static Method> {
        let calls = &self.settings().calls;
        let called = proto::SERVICES.iter().filter(|service| calls.iter().any(|package| package == service.package));
        called.flat_map(|service| service.methods).filter(|method| !method.streaming)
    }

    /// The one with this subject, for example `svc.quest.v1.generate`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the subjects that are accepted. `what` names the field.
    pub fn callable_method(&self, what: &str, subject: &str) -> Result<&'static Method, Error> {
        self.callable().find(|method| method.subject == subject).ok_or_else(|| {
            let accepted: Vec<&str> = self.callable().map(|method| method.subject).collect();
            let accepted = accepted.join(", ");
            Error::invalid(format_args!("{what} `{}` must be one of {accepted}", subject.escape_debug()))
        })
    }
}
