-- privilege.sql: PUBLIC gets nothing. doc/privilege.md says what to grant.

REVOKE ALL ON SCHEMA voiding FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA voiding FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA voiding FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA voiding FROM PUBLIC;

-- a launcher may wait for the extension
SELECT voiding.definitions_changed();
