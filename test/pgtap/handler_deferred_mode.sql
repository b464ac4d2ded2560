-- dispatch() does not change when the caller's constraints are checked: one
-- that is INITIALLY IMMEDIATE is checked at once after it too.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(3);

CREATE TABLE regress_unique (x int UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE regress_late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT throws_ok('INSERT INTO regress_unique VALUES (1), (1)', '23505', NULL, 'a constraint is checked at once');
SELECT billing.issue_document('D1', 'C1', 1);
SELECT voiding.dispatch();
SELECT throws_ok('INSERT INTO regress_unique VALUES (1), (1)', '23505', NULL, 'after dispatch() too');
SELECT lives_ok('INSERT INTO regress_late VALUES (1), (1)', 'one that waits for the commit still waits');
DELETE FROM regress_late;

SELECT * FROM finish();
ROLLBACK;
