//! The harness of the journeys.

pub mod services;
