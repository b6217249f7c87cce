//! natsctl on AWS, against emulators on this machine.

mod bus;
mod confirmed;
mod deploy;
mod drift;
mod environment;
mod failing;
mod fleet;
mod foreign;
mod going_back;
mod harness;
mod iam;
mod identities;
mod import;
mod inactive;
mod interrupted;
mod logs;
mod nats_nodes;
mod onbus;
mod proxied;
mod refused;
mod run;
mod stale;
mod status;
mod two_environments;
mod verify;
mod world;
