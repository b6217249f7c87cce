//! The one way in which natsctl changes an environment: load, observe, plan, apply, verify.

pub(crate) mod load;
