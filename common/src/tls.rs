//! TLS: one cryptography provider for the whole process, whoever opens the connection.

/// Makes *ring* the process-wide provider of rustls. Call it before the first TLS connection; calling it again is harmless.
///
/// Without it rustls would have to guess, and refuses to guess (by a panic) as soon as a second provider is linked in.
pub fn install() {
    // The error says that a provider is there already: ours from an earlier call, or the choice of whoever came first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_leaves_one_provider() {
        super::install();
        super::install();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
