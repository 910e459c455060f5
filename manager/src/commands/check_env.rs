//! `check-env`: whether everything that the automation needs is there.

use std::path::Path;

use common::settings::{Loaded, Problems};

use crate::checks::{self, Check, broker, cta, database, local};
use crate::output::{Desk, Exit};

/// Checks everything, whatever fails first. A configuration that cannot be used is misuse, as everywhere.
///
/// # Errors
/// When nobody can be told.
pub async fn run(
    path: &Path,
    loaded: &Result<Loaded, Problems>,
    actor: &str,
    json: bool,
    desk: &mut Desk<'_>,
) -> anyhow::Result<Exit> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            let mut found = local::unusable(path, problems);
            let why = "the configuration cannot be used";
            found
                .extend(["directory", "database", "broker", "cta-admin"].map(|check| Check::not_asked(check, "", why)));
            checks::print(&found, json, desk)?;
            return Ok(Exit::Misuse);
        }
    };
    let settings = &loaded.settings;
    let mut found = local::configuration(path, loaded);
    let asker = local::Asker::new(actor);
    found.push(local::user(&asker));
    found.extend(local::directories(settings, &asker));
    let (of_database, of_broker, of_cta) =
        tokio::join!(database::checks(settings, actor), broker::checks(settings), cta::checks(settings));
    found.extend(of_database.into_iter().chain(of_broker).chain(of_cta));
    checks::print(&found, json, desk)
}
