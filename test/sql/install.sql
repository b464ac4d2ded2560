-- CREATE EXTENSION makes the engine and the voiding process. Billing and
-- Reports are ordinary objects, so DROP EXTENSION refuses while they use it,
-- and a schema of that name in the way is left alone.
\set ECHO none
\i test/lib/database.sql
SELECT name, owner = current_user AS mine, schema FROM voiding.service ORDER BY name;
SELECT name, version FROM voiding.process_type;
SELECT service, kind, type, function FROM voiding.handler ORDER BY service, kind, type;
-- the version is the control file's
SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'voiding') AS same_version
  FROM pg_extension WHERE extname = 'voiding';
-- members are in the engine's schema only, and nothing of billing and reports is one
SELECT DISTINCT coalesce(i.schema, i.name) AS members_in
  FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e',
       LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
 WHERE e.extname = 'voiding' ORDER BY 1;
-- everything in the engine's schema is a member
SELECT c.relname FROM pg_class c
 WHERE c.relnamespace = 'voiding'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace = 'voiding'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e');
-- without CASCADE it is refused
\set VERBOSITY terse
DROP EXTENSION voiding;
SELECT to_regclass('billing.document') IS NOT NULL AS still_there;
-- twice is refused, and so is another schema
CREATE EXTENSION voiding;
CREATE SCHEMA elsewhere;
ALTER EXTENSION voiding SET SCHEMA elsewhere;
-- documents survive the loss of the engine
SELECT document_id FROM billing.issue_document('D-1', 'acme', 10);
CALL test.settle();
SET client_min_messages = warning;
DROP EXTENSION voiding CASCADE;
RESET client_min_messages;
SELECT document_id, status FROM billing.document;
SELECT count(*) AS left_of_engine FROM pg_namespace WHERE nspname = 'voiding';
-- a schema of that name in the way: a notice, and other names serve
\set VERBOSITY default
CREATE EXTENSION voiding;
\set VERBOSITY terse
SELECT count(*) AS services FROM voiding.service;
SELECT voiding.create_document_voiding('my_billing', 'My Reports');
SELECT name, schema FROM voiding.service ORDER BY name;
SELECT voiding.create_document_voiding('my_billing', 'my_reports');
SELECT name, schema FROM voiding.service ORDER BY name;
-- a name that is taken is refused, and nothing is made
SELECT voiding.create_document_voiding('my_billing', 'third');
SELECT to_regnamespace('third') IS NULL AS nothing_made;
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
