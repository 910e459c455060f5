//! Who may do what in the database: the roles of `deploy/postgresql/roles.sql`, named where a login lacks a right.

/// The role of the login of producer and workers.
pub const WORKER: &str = "cta_repack_worker";
/// The role of a person who uses every verb of the manager.
pub const OPERATOR: &str = "cta_repack_operator";
/// The role of those who only look.
pub const VIEWER: &str = "cta_repack_viewer";

/// What to do about an error of the database that is a lack of rights (SQLSTATE 42501), after a `; `. None: it is another error.
/// `role` is the one that has the right.
pub fn advice(error: &str, role: &str) -> Option<String> {
    if !error.contains("(42501)") {
        return None;
    }
    let look = if role == OPERATOR { format!("; {VIEWER} is enough to look") } else { String::new() };
    Some(format!(
        "the login (database.username of the configuration) lacks a right that the role {role} of roles.sql has{look}: as the \
         superuser run roles.sql on this database, if that role is not there, and 'GRANT {role} TO login'"
    ))
}

/// The error, with what to do about it if it is a lack of rights.
pub fn advised(error: anyhow::Error, role: &str) -> anyhow::Error {
    match advice(&format!("{error:#}"), role) {
        Some(advice) => anyhow::anyhow!("{error:#}; {advice}"),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_are_those_that_the_script_makes() {
        let script = include_str!("../../deploy/postgresql/roles.sql");
        for (kind, role) in [("worker", WORKER), ("operator", OPERATOR), ("viewer", VIEWER)] {
            assert!(script.contains(&format!("\\set {kind} {role}\n")), "{role}");
        }
    }

    #[test]
    fn only_a_lack_of_rights_is_answered_with_a_role() {
        let denied = "PostgreSQL says permission denied for table repack_status_control (42501)";
        let advice = advice(denied, OPERATOR).unwrap();
        assert!(advice.contains("GRANT cta_repack_operator TO") && advice.contains("cta_repack_viewer"), "{advice}");
        let told = advised(anyhow::anyhow!(denied).context("entering V01007"), WORKER).to_string();
        assert!(told.starts_with("entering V01007: PostgreSQL says permission denied"), "{told}");
        assert!(told.contains("GRANT cta_repack_worker TO") && !told.contains("viewer"), "{told}");
        let other = "PostgreSQL says relation \"repack_status\" does not exist (42P01)";
        assert_eq!(advised(anyhow::anyhow!(other), WORKER).to_string(), other);
    }
}
