//! TLS: one cryptography provider for the whole process, whoever opens the connection, and whom to trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::{Certificates, Database, SslMode};

/// Makes *ring* the process-wide provider of rustls. Call it before the first TLS connection; calling it again is harmless.
///
/// Without it rustls would have to guess, and refuses to guess (by a panic) as soon as a second provider is linked in.
pub fn install() {
    // The error says that a provider is there already: ours from an earlier call, or the choice of whoever came first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whether the driver asks for TLS; what is then verified is decided in [`postgres`].
pub fn mode(mode: SslMode) -> tokio_postgres::config::SslMode {
    match mode {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
    }
}

/// How TLS to PostgreSQL is made, as libpq does it: `prefer` and `require` verify nothing, unless `sslrootcert` is set,
/// which makes `require` verify the chain; `verify-ca` verifies the chain, `verify-full` the host name too.
///
/// # Errors
/// When a certificate or key file cannot be read.
pub fn postgres(database: &Database) -> anyhow::Result<MakeRustlsConnect> {
    install();
    let builder = ClientConfig::builder().dangerous();
    let provider = CryptoProvider::get_default().context("no cryptography provider")?.clone();
    let chain = matches!(database.sslmode, SslMode::VerifyCa | SslMode::VerifyFull)
        || (database.sslmode == SslMode::Require && database.sslrootcert.is_some());
    let strict = if chain {
        let roots = roots(database.sslrootcert.as_deref(), "database.sslrootcert")?;
        Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .context("trusted certificates")?,
        )
    } else {
        None
    };
    let verifier = Verifier { strict, name: database.sslmode == SslMode::VerifyFull, provider };
    let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
    Ok(MakeRustlsConnect::new(with_ours(builder, database.sslcert.as_deref(), database.sslkey.as_deref())?))
}

/// How TLS to RabbitMQ is made: the chain and the host name are always verified, against `sslrootcert` alone where it is set,
/// else against what the system trusts.
///
/// # Errors
/// When a certificate or key file cannot be read.
pub fn broker(files: &Certificates) -> anyhow::Result<Arc<ClientConfig>> {
    install();
    let roots = roots(files.sslrootcert.as_deref(), "broker.sslrootcert")?;
    let builder = ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(with_ours(builder, files.sslcert.as_deref(), files.sslkey.as_deref())?))
}

/// Shows our own certificate to a server that asks for it, if there is one.
fn with_ours(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    cert: Option<&Path>,
    key: Option<&Path>,
) -> anyhow::Result<ClientConfig> {
    let (Some(cert), Some(key)) = (cert, key) else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| anyhow::anyhow!("reading sslkey {}: {error}", key.display()))?;
    builder.with_client_auth_cert(certificates(cert, "sslcert")?, private).context("sslcert and sslkey")
}

fn certificates(path: &Path, key: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| anyhow::anyhow!("reading {key} {}: {error}", path.display()))?;
    anyhow::ensure!(!found.is_empty(), "{key} {} holds no certificate", path.display());
    Ok(found)
}

fn roots(file: Option<&Path>, key: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = match file {
        Some(file) => certificates(file, "sslrootcert")?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (good, _) = roots.add_parsable_certificates(found);
    anyhow::ensure!(good > 0, "there is no certificate authority to trust: set {key}");
    Ok(roots)
}

/// Verifies as much as the `sslmode` asks for.
#[derive(Debug)]
struct Verifier {
    /// Verifies the chain; none: anything goes.
    strict: Option<Arc<WebPkiServerVerifier>>,
    /// The host name must match.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(strict) = &self.strict else { return Ok(ServerCertVerified::assertion()) };
        match strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name: only the name was wrong.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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
