//! The harness of the journeys.

pub mod configuration;
pub mod desk;
pub mod fleet;
pub mod kinds;
pub mod proxy;
pub mod services;
pub mod shell;
pub mod site;
pub mod steps;
pub mod tap;
