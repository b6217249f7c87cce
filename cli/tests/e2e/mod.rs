//! The whole fleet on this machine: the real natsctl, real servers, the services that ship, and stories of what people do with them.

mod changes;
mod damaged;
mod demo;
mod events;
mod failures;
pub(crate) mod fleet;
mod hostile;
mod http;
mod interruptions;
mod load;
mod machine;
mod nats_load;
mod nats_roll;
mod newcomer;
mod resumed;
mod rolling;
mod run;
mod scaled;
mod scripts;
mod secrets;
mod top;
mod tour;
mod traces;
mod unwell;
mod usage;
