//! CTA: the program, its front ends, and the lists that the other checks need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::cta::reference::{LogicalLibrary, Route, TapePool};
use common::cta::reply::{Named, Version, VirtualOrganization};
use common::cta::{Cta, Frontend, Query, Trouble};
use common::settings::{CtaAdmin, Settings};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::local::{executable, readable};
use super::{Check, pools};

/// The longest silence of one question, and the longest list: a dead front end must not keep the whole report waiting.
const SILENCE: Duration = Duration::from_secs(30);
const LIST: Duration = Duration::from_secs(120);

/// A client that loses patience sooner than the one that works.
pub fn impatient(settings: &CtaAdmin) -> Cta {
    Cta::new(&CtaAdmin {
        timeout: settings.timeout.min(SILENCE),
        list_timeout: settings.list_timeout.min(LIST),
        ..settings.clone()
    })
}

/// A list, or why there is none.
pub type Listed<T> = Result<Vec<T>, String>;

/// The lists of the users' front end.
pub struct Lists {
    /// `tapepool ls`.
    pub pools: Listed<TapePool>,
    /// `mountpolicy ls`.
    pub policies: Listed<Named>,
    /// `virtualorganization ls`.
    pub vos: Listed<VirtualOrganization>,
    /// `archiveroute ls`.
    pub routes: Listed<Route>,
    /// `mediatype ls`.
    pub media: Listed<Named>,
    /// `logicallibrary ls`.
    pub libraries: Listed<LogicalLibrary>,
    /// The release of the front end, such as `5.11.20.0-1`; empty if it is not known.
    pub release: String,
}

impl Lists {
    fn none(why: &str) -> Lists {
        let why = || why.to_owned();
        Lists {
            pools: Err(why()),
            policies: Err(why()),
            vos: Err(why()),
            routes: Err(why()),
            media: Err(why()),
            libraries: Err(why()),
            release: String::new(),
        }
    }

    async fn ask(cta: &Cta, release: String) -> Lists {
        let (pools, policies, vos, routes, media, libraries) = tokio::join!(
            list(cta, Query::TapePools),
            list(cta, Query::MountPolicies),
            list(cta, Query::VirtualOrganizations),
            list(cta, Query::ArchiveRoutes),
            list(cta, Query::MediaTypes),
            list(cta, Query::LogicalLibraries),
        );
        Lists { pools, policies, vos, routes, media, libraries, release }
    }
}

/// One list, or why there is none, in words.
pub async fn list<T: DeserializeOwned + Send + 'static>(cta: &Cta, query: Query) -> Listed<T> {
    cta.list(&query).await.map_err(|trouble| trouble.to_string())
}

/// Everything about CTA: the program, the front ends, and what must exist.
pub async fn checks(settings: &Settings) -> Vec<Check> {
    let program = program(&settings.cta_admin.program);
    let runs = program.result == super::Verdict::Ok;
    let mut checks = vec![program];
    let fronts = fronts(&settings.cta_admin);
    checks.extend(fronts.iter().filter_map(configuration));
    let lists = if runs {
        let cta = impatient(&settings.cta_admin);
        let (mut of_fronts, lists) = front_ends(&cta, &fronts).await;
        checks.append(&mut of_fronts);
        lists
    } else {
        let why = "cta-admin cannot be run";
        checks.extend(fronts.iter().map(|front| Check::not_asked("front-end", front.name, why)));
        checks.push(Check::not_asked("repack-requests", "", why));
        Lists::none(why)
    };
    checks.extend(pools::checks(settings, &lists));
    checks
}

fn program(path: &Path) -> Check {
    let shown = path.display().to_string();
    match executable(path) {
        Ok(()) => Check::ok("cta-admin", shown, "is there and may be executed"),
        Err(why) => {
            let mend = "install cta-cli, or set cta-admin under binaries of the configuration to where it is";
            Check::fails("cta-admin", shown, why, mend)
        }
    }
}

/// A front end as the configuration names it.
struct Front {
    name: &'static str,
    kind: Frontend,
    /// The key of its client configuration.
    key: &'static str,
    config: Option<PathBuf>,
}

/// One where both have the same client configuration.
fn fronts(settings: &CtaAdmin) -> Vec<Front> {
    let (user, repack) = (settings.user_config.clone(), settings.repack_config.clone());
    if user == repack {
        return vec![Front { name: "for all", kind: Frontend::User, key: "cta-admin_config", config: user }];
    }
    vec![
        Front { name: "for users", kind: Frontend::User, key: "cta_admin.user_config", config: user },
        Front { name: "for repack", kind: Frontend::Repack, key: "cta_admin.repack_config", config: repack },
    ]
}

fn configuration(front: &Front) -> Option<Check> {
    let path = front.config.as_ref()?;
    let subject = format!("{} ({})", front.key, path.display());
    Some(match readable(path) {
        Ok(()) => Check::ok("cta-configuration", subject, "can be read"),
        Err(why) => {
            let mend = format!("put 'cta.endpoint HOST:PORT' into {}, or correct {}", path.display(), front.key);
            Check::fails("cta-configuration", subject, why, mend)
        }
    })
}

async fn front_ends(cta: &Cta, fronts: &[Front]) -> (Vec<Check>, Lists) {
    let (users, repacks) = tokio::join!(for_users(cta, fronts), for_repack(cta, fronts));
    let (mut checks, lists) = users;
    checks.extend(repacks);
    (checks, lists)
}

async fn for_users(cta: &Cta, fronts: &[Front]) -> (Vec<Check>, Lists) {
    let front = &fronts[0];
    match cta.version(front.kind).await {
        Ok(version) => {
            let release = version.server_version.cta_version.clone();
            (vec![answers(front, &version)], Lists::ask(cta, release).await)
        }
        Err(trouble) => {
            (vec![does_not(front, &trouble)], Lists::none(&format!("the front end {} does not answer", front.name)))
        }
    }
}

/// The repack front end, where there is one of its own, and whether it knows repacks.
async fn for_repack(cta: &Cta, fronts: &[Front]) -> Vec<Check> {
    let (mut checks, name) = match fronts.get(1) {
        Some(front) => match cta.version(Frontend::Repack).await {
            Ok(version) => (vec![answers(front, &version)], front.name),
            Err(trouble) => {
                let why = format!("the front end {} does not answer", front.name);
                return vec![does_not(front, &trouble), Check::not_asked("repack-requests", "", why)];
            }
        },
        None => (Vec::new(), fronts[0].name),
    };
    let requests = cta.each(&Query::Repacks, |_: IgnoredAny| Ok(())).await;
    checks.push(match requests {
        Ok(count) => Check::ok("repack-requests", "", format!("{count} on the front end {name}")),
        // Where nothing is answered, the front end's own check says so.
        Err(_) if fronts.len() == 1 && cta.version(Frontend::Repack).await.is_err() => {
            Check::not_asked("repack-requests", "", format!("the front end {name} does not answer"))
        }
        Err(trouble) if trouble.is_site() => Check::fails(
            "repack-requests",
            "",
            trouble.to_string(),
            "set cta_admin.repack_config to the client configuration of a front end that does repacks",
        ),
        Err(trouble) => Check::warning(
            "repack-requests",
            "",
            trouble.to_string(),
            "a tape that was deleted while it had a request breaks this list: cta-admin repack rm --vid VID",
        ),
    });
    checks
}

fn answers(front: &Front, version: &Version) -> Check {
    let mut found =
        format!("answers: CTA {}, client {}", version.server_version.cta_version, version.client_version.cta_version);
    for (name, value) in [("instance", &version.instance_name), ("scheduler", &version.scheduler_backend_name)] {
        if !value.is_empty() {
            found.push_str(&format!(", {name} {value}"));
        }
    }
    if version.is_upgrading {
        let found = format!("{found}; the catalogue is being upgraded");
        return Check::warning("front-end", front.name, found, "cta-ops-repack-manager pause all, until it is done");
    }
    Check::ok("front-end", front.name, found)
}

fn does_not(front: &Front, trouble: &Trouble) -> Check {
    let text = trouble.to_string();
    let mend = if text.contains("not authorized") {
        "cta-admin admin add, by a CTA administrator, for the user and host named; and look at the ticket: klist"
            .to_owned()
    } else if text.to_lowercase().contains("cta.endpoint") || text.contains("Configuration error") {
        format!("put 'cta.endpoint HOST:PORT' into the file that {} names", front.key)
    } else {
        let config = front.config.as_deref();
        format!("start the front end, or correct {}; try: {}", front.key, common::cta::typed(config, &["version"]))
    };
    Check::fails("front-end", front.name, text, mend)
}
