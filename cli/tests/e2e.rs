//! The whole fleet, run by the real binary on this machine.
