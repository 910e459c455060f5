//! The worker: see `delivery`.
