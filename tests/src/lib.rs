//! The harness of the journeys.

pub mod proxy;
pub mod services;
