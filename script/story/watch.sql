-- watch.sql: from here on row changes are noted.
CREATE TRIGGER demo_note_change AFTER INSERT OR UPDATE ON billing.document
  FOR EACH ROW EXECUTE FUNCTION demo.note_change();
CREATE TRIGGER demo_note_change AFTER INSERT OR UPDATE ON billing.aborted_voiding
  FOR EACH ROW EXECUTE FUNCTION demo.note_change();
CREATE TRIGGER demo_note_change AFTER INSERT OR UPDATE ON reports.report_line
  FOR EACH ROW EXECUTE FUNCTION demo.note_change();
CREATE TRIGGER demo_note_change AFTER INSERT OR UPDATE ON reports.refusal
  FOR EACH ROW EXECUTE FUNCTION demo.note_change();
