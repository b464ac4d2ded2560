-- field_service.sql: a charging point is put up: three kinds of work for
-- people, each in a component of its own, in one process.
--
-- Somebody orders an installation. In the warehouse the parts are picked, on a
-- tablet. A technician with the skill electrician mounts them, on a phone. An
-- editor writes the report, at a desk, and another one reviews it: four eyes.
-- A component knows its own tasks only, says what has become of them as events,
-- and does not know the others. The process knows all three, and no tables.
--
--   InstallationOrdered -> [pick_parts] -> PartsPicked -> [install] -> InstallationDone
--     -> [write_report] -> ReportWritten -> [review_report] -> ReportReviewed -> documented, or written again
--
-- Run people.sql first.

-- ---- the warehouse: a task from an event ----

SELECT voiding.create_service('warehouse', 'warehouse_lead');

CREATE TABLE warehouse.stock (
  article text PRIMARY KEY,
  pieces  integer NOT NULL CHECK (pieces >= 0)
);
INSERT INTO warehouse.stock VALUES ('wallbox', 10);

SELECT voiding.create_task_type('pick_parts', '{
  "title": "$.event.article",
  "document": {"article": "$.event.article", "for": "$.event.installation_id"},
  "roles": ["picker"],
  "form_factors": ["tablet"],
  "due": "P1D",
  "made_by": {"InstallationOrdered": {"key": "$.event.installation_id"}},
  "ended_by": {"InstallationCancelled": {"key": "$.event.installation_id", "state": "cancelled"}},
  "events": {"completed": "PartsPicked", "failed": "PartsMissing"}
}', 'warehouse');

-- what was scanned goes out of stock
CREATE FUNCTION warehouse.take_out(outcome jsonb) RETURNS void
  LANGUAGE sql SET search_path = warehouse, pg_temp
AS $$ UPDATE stock SET pieces = pieces - 1 WHERE article = outcome ->> 'article' $$;

SELECT voiding.subscribe('PartsPicked', 'warehouse.take_out');

-- ---- the field: skill, lease, deadline, expiry ----

SELECT voiding.create_service('field', 'field_lead');

CREATE TABLE field.installation (
  installation_id text PRIMARY KEY,
  article         text NOT NULL,
  address         text NOT NULL,
  status          text NOT NULL DEFAULT 'ordered' CHECK (status IN ('ordered', 'installed', 'withdrawn'))
);

CREATE TRIGGER ordered AFTER INSERT ON field.installation FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('InstallationOrdered', 'installation_id', 'article', 'address');
CREATE TRIGGER withdrawn AFTER UPDATE ON field.installation FOR EACH ROW WHEN (NEW.status = 'withdrawn' AND OLD.status = 'ordered')
  EXECUTE FUNCTION voiding.emit_event('InstallationWithdrawn', 'installation_id');

-- what is wrong with what a technician reports; null: nothing
CREATE FUNCTION field.check_measurement(outcome jsonb) RETURNS text
  LANGUAGE sql STABLE SET search_path = field, pg_temp
AS $$
  SELECT CASE WHEN jsonb_typeof(outcome -> 'megohms') IS DISTINCT FROM 'number' THEN 'megohms must be measured'
              WHEN (outcome ->> 'megohms')::numeric < 1 THEN 'the insulation is too weak: it needs 1 megohm' END
$$;

SELECT voiding.create_task_type('install', '{
  "title": "$.process.address",
  "document": {"address": "$.process.address", "article": "$.process.article", "serial": "$.process.serial"},
  "roles": ["technician"],
  "skills": ["electrician"],
  "form_factors": ["phone"],
  "due": "PT8H",
  "expire": "P5D",
  "lease": "PT2H",
  "deadlines": {"PT4H": {"priority": 10, "emit": "InstallationLate"}},
  "check_outcome": "field.check_measurement",
  "events": {"completed": "InstallationDone", "failed": "InstallationImpossible", "expired": "InstallationMissed"}
}', 'field');

CREATE FUNCTION field.note_installed(key text) RETURNS void
  LANGUAGE sql SET search_path = field, pg_temp
AS $$ UPDATE installation i SET status = 'installed' WHERE i.installation_id = note_installed.key AND i.status = 'ordered' $$;

SELECT voiding.subscribe('InstallationDone', 'field.note_installed');

-- ---- the editors: four eyes ----

SELECT voiding.create_service('editorial', 'editorial_lead');

CREATE TABLE editorial.report (
  installation_id text PRIMARY KEY,
  text            text NOT NULL,
  author          text NOT NULL,
  reviewer        text CHECK (reviewer <> author)
);

SELECT voiding.create_task_type('write_report', '{
  "document": {"address": "$.process.address", "megohms": "$.process.megohms", "remark": "$.process.remark"},
  "roles": ["editor"],
  "form_factors": ["desk"],
  "events": {"completed": "ReportWritten"}
}', 'editorial');

SELECT voiding.create_task_type('review_report', '{
  "document": {"text": "$.process.text", "author": "$.process.author"},
  "roles": ["editor"],
  "excluded": ["$.process.author"],
  "form_factors": ["desk"],
  "events": {"completed": "ReportReviewed"}
}', 'editorial');

CREATE FUNCTION editorial.keep_report(key text, owner text, outcome jsonb) RETURNS void
  LANGUAGE sql SET search_path = editorial, pg_temp
AS $$
  INSERT INTO report VALUES (key, outcome ->> 'text', owner)
  ON CONFLICT ON CONSTRAINT report_pkey DO UPDATE SET text = EXCLUDED.text, author = EXCLUDED.author
$$;

CREATE FUNCTION editorial.note_review(key text, owner text, outcome jsonb) RETURNS void
  LANGUAGE sql SET search_path = editorial, pg_temp
AS $$ UPDATE report r SET reviewer = owner WHERE r.installation_id = key AND outcome -> 'approved' = 'true' $$;

SELECT voiding.subscribe('ReportWritten', 'editorial.keep_report');
SELECT voiding.subscribe('ReportReviewed', 'editorial.note_review');

-- ---- the process ----

SELECT voiding.create_process_type('installation', '{
  "key": "installation_id",
  "start": {"InstallationOrdered": "Picking"},
  "on": {"InstallationWithdrawn": {"target": "Cancelled", "set": {"why": "the customer does not want it"}}},
  "states": {
    "Picking": {
      "on": {
        "PartsPicked": {"target": "Installing", "set": {"serial": "$.event.outcome.serial"}},
        "PartsMissing": {"target": "Cancelled", "set": {"why": "$.event.reason"}}
      },
      "after": {"P14D": {"target": "Cancelled", "set": {"why": "the warehouse did not answer"}}}
    },
    "Installing": {
      "task": {"type": "install", "with": {"late": "$.process.late"}},
      "on": {
        "InstallationDone": {"target": "Writing", "set": {"megohms": "$.event.outcome.megohms", "technician": "$.event.owner"}},
        "InstallationLate": {"set": {"late": true}},
        "InstallationMissed": {"target": "Installing", "set": {"late": true}},
        "InstallationImpossible": {"target": "Cancelled", "set": {"why": "$.event.reason"}}
      },
      "after": {"P30D": {"target": "Cancelled", "set": {"why": "nobody went there"}}}
    },
    "Writing": {
      "task": {"type": "write_report"},
      "on": {"ReportWritten": {"target": "Reviewing", "set": {"text": "$.event.outcome.text", "author": "$.event.owner"}}},
      "forever": "an editor will come to it"
    },
    "Reviewing": {
      "task": {"type": "review_report"},
      "on": {"ReportReviewed": [
        {"guard": "$.event.outcome.approved == true", "target": "Documented", "set": {"reviewer": "$.event.owner"}},
        {"target": "Writing", "set": {"remark": "$.event.outcome.remark"}}
      ]},
      "forever": "an editor will come to it"
    },
    "Documented": {"type": "final", "result": {"technician": "$.process.technician", "author": "$.process.author", "reviewer": "$.process.reviewer"}},
    "Cancelled": {"type": "final", "outcome": "failed", "reason": "$.process.why", "entry": {"emit": "InstallationCancelled"}}
  }
}');
