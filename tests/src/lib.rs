//! The harness of the journeys.

pub mod configuration;
pub mod proxy;
pub mod services;
pub mod shell;
pub mod site;
