-- Who may do what in the database: three roles without a login, to be granted to the logins that people and programs have.
--
--   psql -d cta_repack -v table=repack_status -f roles.sql       as a superuser (it makes roles), after 'cta-ops-repack-manager migrate'
--
--   GRANT cta_repack_worker TO repack;                           the login in the configuration file of producer and workers
--   GRANT cta_repack_operator TO alice;                          a person who uses every verb of the manager
--   GRANT cta_repack_viewer TO grafana;                          looking only
--
-- Nobody but the owner can create, alter, truncate or drop a table, and nobody can change or delete what the history says. Run again after
-- an upgrade that brings new tables; running it twice changes nothing. -v schema=NAME if the tables are not in 'public'; the names of the
-- roles can be given with -v viewer=, -v worker= and -v operator=.

\set ON_ERROR_STOP on
\if :{?table}
\else
  \set table repack_status
\endif
\if :{?schema}
\else
  \set schema public
\endif
\if :{?viewer}
\else
  \set viewer cta_repack_viewer
\endif
\if :{?worker}
\else
  \set worker cta_repack_worker
\endif
\if :{?operator}
\else
  \set operator cta_repack_operator
\endif
\set task :table _task
\set event :table _event
\set history :table _history
\set control :table _control
\set statistic :table _statistic
\set migration :table _migration
\set tick :table _tick
\set edited :table _edited
\set compared :table _compared
\set generation :table _generation_seq
\set epoch :table _epoch_seq

BEGIN;
SET LOCAL client_min_messages TO warning;

SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[:'viewer', :'worker', :'operator']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

GRANT USAGE ON SCHEMA :"schema" TO :"viewer", :"worker", :"operator";
GRANT SELECT ON :"schema".:"table", :"schema".:"task", :"schema".:"event", :"schema".:"history", :"schema".:"control",
                :"schema".:"statistic", :"schema".:"migration", :"schema".:"tick", :"schema".:"edited", :"schema".:"compared" TO :"viewer", :"worker", :"operator";

-- The history is written and never rewritten.
GRANT INSERT ON :"schema".:"event", :"schema".:"history" TO :"worker", :"operator";
GRANT INSERT, UPDATE ON :"schema".:"task" TO :"worker", :"operator";
GRANT USAGE ON SEQUENCE :"schema".:"generation", :"schema".:"epoch" TO :"worker", :"operator";

-- The automation sets stamps and the mode. It enters tapes (prepare), and moves rows to the history (abort, prepare again).
GRANT INSERT, DELETE, UPDATE (mode, started, repacked, quarantined, reclaimed, finished) ON :"schema".:"table" TO :"worker";
GRANT INSERT, UPDATE (written_at) ON :"schema".:"statistic" TO :"worker";
GRANT INSERT, UPDATE ON :"schema".:"tick" TO :"worker";
-- What a tick has followed it crosses off. Nobody needs a right for the lines that triggers write.
GRANT INSERT, DELETE ON :"schema".:"edited" TO :"worker";
GRANT INSERT, UPDATE ON :"schema".:"compared" TO :"worker";
-- Locking the gate of the slots needs the right to update some column of it.
GRANT UPDATE (since) ON :"schema".:"control" TO :"worker", :"operator";

-- An operator never sets a stamp: only what CTA shows does.
GRANT INSERT, DELETE, UPDATE (mode, priority, responsible) ON :"schema".:"table" TO :"operator";
GRANT INSERT, UPDATE, DELETE ON :"schema".:"control" TO :"operator";

COMMIT;
