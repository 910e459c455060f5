//! The harness of the journeys.

pub mod chance;
pub mod checker;
pub mod configuration;
pub mod crew;
pub mod desk;
pub mod fleet;
pub mod kinds;
pub mod private;
pub mod prometheus;
pub mod proxy;
pub mod services;
pub mod shell;
pub mod shots;
pub mod site;
pub mod soak;
pub mod steps;
pub mod tap;
