//! All integration tests of natsctl, in one program: each would be linked with the SDKs of AWS again.

mod architecture;
mod docs;
mod e2e;
mod emulator;
mod local;
mod schemas;
mod terminal;
mod terraform;

// What only a natsctl with the platform of AWS can do.
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod images;
