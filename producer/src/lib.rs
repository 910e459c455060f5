//! The producer: see `tick`, `scan`, `prepare`.
