//! TLS against a PostgreSQL and a RabbitMQ that speak it. Their certificate is signed by an authority of their own and names
//! `localhost`, not 127.0.0.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::broker::{BrokerError, Link};
use common::settings::{Certificates, Secret, Settings, SslMode};
use common::store::Store;
use journeys::services::{Services, TestDatabase, Tls};

/// Connects, and has the server say which protocol the connection speaks; what went wrong otherwise.
async fn spoken(of: &TestDatabase, database: common::settings::Database) -> Result<String, String> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let name = format!("tls-test-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    let settings = Arc::new(Settings { database, ..Settings::default() });
    common::store::migrate::migrate(&settings).await.map_err(|error| format!("{error:#}"))?;
    let store = Store::new(Arc::clone(&settings), &name).map_err(|error| format!("{error:#}"))?;
    store.ready().await.map_err(|error| error.to_string())?;
    let asked = "SELECT coalesce(ssl.version, 'plain') FROM pg_stat_activity JOIN pg_stat_ssl ssl USING (pid) \
                 WHERE application_name = $1 AND datname = current_database()";
    let row = of.client().await.query_one(asked, &[&name]).await.expect("the connection is there");
    Ok(row.get(0))
}

fn database(of: &TestDatabase, host: &str, sslmode: SslMode, ca: Option<&str>) -> common::settings::Database {
    let sslrootcert = ca.map(|name| Tls::get().file(name));
    common::settings::Database { host: host.to_owned(), sslmode, sslrootcert, ..of.settings() }
}

#[tokio::test]
async fn each_sslmode_verifies_of_postgresql_what_libpq_says_it_does() {
    let own = Services::get().fresh_database();
    let ours = Some("ca.pem");
    let stranger = Some("stranger-ca.pem");
    let rows = [
        ("localhost", SslMode::Disable, None, "plain"),
        ("localhost", SslMode::Prefer, None, "TLSv1.3"),
        ("127.0.0.1", SslMode::Require, None, "TLSv1.3"),
        ("127.0.0.1", SslMode::Require, ours, "TLSv1.3"),
        ("127.0.0.1", SslMode::Require, stranger, "UnknownIssuer"),
        ("127.0.0.1", SslMode::VerifyCa, ours, "TLSv1.3"),
        ("localhost", SslMode::VerifyCa, stranger, "UnknownIssuer"),
        ("localhost", SslMode::VerifyFull, ours, "TLSv1.3"),
        ("127.0.0.1", SslMode::VerifyFull, ours, "not valid for name"),
        ("localhost", SslMode::VerifyFull, stranger, "UnknownIssuer"),
    ];
    for (host, mode, ca, expected) in rows {
        let said = spoken(&own, database(&own, host, mode, ca)).await;
        let text = said.clone().unwrap_or_else(|error| error);
        assert!(text.contains(expected), "{host} {mode:?} {ca:?}: expected {expected}, got {said:?}");
        assert_eq!(
            said.is_ok(),
            expected.starts_with("TLS") || expected == "plain",
            "{host} {mode:?} {ca:?}: {said:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_certificate_file_is_named() {
    let own = Services::get().fresh_database();
    let error = spoken(&own, database(&own, "localhost", SslMode::VerifyFull, Some("no-such.pem"))).await.unwrap_err();
    assert!(error.contains("sslrootcert") && error.contains("no-such.pem"), "{error}");
    let tls = Certificates { sslrootcert: Some(Tls::get().file("no-such.pem")), ..Certificates::default() };
    let vhost = Services::get().fresh_vhost();
    let error = Link::connect(&amqps(&vhost, "localhost", tls), "test").await.unwrap_err();
    assert!(matches!(error, BrokerError::Settings(_)), "no attempt can mend it: {error:?}");
    assert!(error.to_string().contains("no-such.pem"), "{error}");
}

/// A role on this server for the length of a test; roles are not of one database.
async fn as_role(of: &TestDatabase, role: &str, password: Option<&str>) {
    let client = of.client().await;
    let password = password.map_or_else(String::new, |password| format!("PASSWORD '{password}'"));
    // Another test may be making it at this moment.
    let made = format!(
        "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    );
    client.batch_execute(&made).await.expect("a role");
    client.batch_execute(&format!("ALTER ROLE {role} {password} SUPERUSER")).await.expect("its rights");
}

#[tokio::test]
async fn postgresql_may_ask_for_a_certificate_of_ours() {
    let own = Services::get().fresh_database();
    as_role(&own, "with_cert", None).await;
    let tls = Tls::get();
    let with = |cert: Option<&str>, key: Option<&str>| common::settings::Database {
        username: "with_cert".to_owned(),
        sslcert: cert.map(|name| tls.file(name)),
        sslkey: key.map(|name| tls.file(name)),
        ..database(&own, "localhost", SslMode::VerifyFull, Some("ca.pem"))
    };
    assert_eq!(spoken(&own, with(Some("client.pem"), Some("client.key"))).await.as_deref(), Ok("TLSv1.3"));
    let error = spoken(&own, with(None, None)).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    let error = spoken(&own, with(Some("client.pem"), Some("stranger-ca.key"))).await.unwrap_err();
    assert!(error.contains("sslkey") || error.contains("KeyMismatch") || error.contains("keys"), "{error}");
}

#[tokio::test]
async fn a_password_goes_to_postgresql_as_scram_and_a_wrong_one_is_named_without_being_shown() {
    let own = Services::get().fresh_database();
    as_role(&own, "with_password", Some("correct horse")).await;
    let with = |password: &str, sslmode| common::settings::Database {
        username: "with_password".to_owned(),
        password: Some(Secret::new(password)),
        ..database(&own, "localhost", sslmode, Some("ca.pem"))
    };
    assert_eq!(spoken(&own, with("correct horse", SslMode::VerifyFull)).await.as_deref(), Ok("TLSv1.3"));
    let error = spoken(&own, with("hunter2-geheim", SslMode::VerifyFull)).await.unwrap_err();
    assert!(error.contains("password authentication failed") && !error.contains("hunter2"), "{error}");
    // The server wants TLS of this role.
    let error = spoken(&own, with("correct horse", SslMode::Disable)).await.unwrap_err();
    assert!(error.contains("pg_hba.conf"), "{error}");
}

fn amqps(vhost: &journeys::services::TestVhost, host: &str, tls: Certificates) -> common::settings::Broker {
    let plain = vhost.broker();
    let (_, rest) = plain.url.split_once('@').expect("a user");
    let (_, vhost) = rest.split_once('/').expect("a virtual host");
    let url = format!("amqps://guest@{host}:{}/{vhost}", Tls::get().amqps_port());
    common::settings::Broker { url, tls, ..plain }
}

#[tokio::test]
async fn rabbitmq_is_believed_only_if_its_certificate_is_of_an_authority_we_trust_and_names_the_host() {
    let vhost = Services::get().fresh_vhost();
    let trusting = |name: &str| Certificates { sslrootcert: Some(Tls::get().file(name)), ..Certificates::default() };
    let link = Link::connect(&amqps(&vhost, "localhost", trusting("ca.pem")), "test").await.expect("a connection");
    assert_eq!(link.depth("no-such-queue").await.expect("an answer"), None);
    link.close().await;
    for (host, tls, why) in [
        ("localhost", trusting("stranger-ca.pem"), "UnknownIssuer"),
        ("127.0.0.1", trusting("ca.pem"), "not valid for name"),
        ("localhost", Certificates::default(), "UnknownIssuer"),
    ] {
        let error = Link::connect(&amqps(&vhost, host, tls), "test").await.expect_err(why);
        // A certificate may be renewed while we wait.
        assert!(!error.is_final(), "{error:?}");
        assert!(error.to_string().contains(why), "{host}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_of_ours_is_a_login_at_rabbitmq() {
    let vhost = Services::get().fresh_vhost();
    vhost.must("PUT", "/api/users/with_cert", Some(&serde_json::json!({"password_hash": "", "tags": ""})));
    vhost.allow("with_cert", ".*", ".*", ".*");
    let tls = Tls::get();
    let ours = Certificates {
        sslrootcert: Some(tls.file("ca.pem")),
        sslcert: Some(tls.file("client.pem")),
        sslkey: Some(tls.file("client.key")),
    };
    let external = |tls: Certificates| {
        let broker = amqps(&vhost, "localhost", tls);
        let url = format!("{}?auth_mechanism=external", broker.url.replace("guest@", ""));
        common::settings::Broker { url, password: None, ..broker }
    };
    Link::connect(&external(ours.clone()), "test").await.expect("a connection").close().await;
    let without = Certificates { sslcert: None, sslkey: None, ..ours };
    let error = Link::connect(&external(without), "test").await.expect_err("nobody in particular");
    assert!(error.is_refusal(), "{error:?}");
}
