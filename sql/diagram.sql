-- diagram.sql: a process type, or one process, as a Mermaid state diagram.

CREATE FUNCTION voiding.diagram(process_type text, process_id uuid DEFAULT NULL) RETURNS text
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  v   integer;
  d   jsonb;
  out text;
BEGIN
  IF process_id IS NULL THEN
    SELECT max(p.version) INTO v FROM voiding.process_type p WHERE p.name = diagram.process_type;
  ELSE
    SELECT p.version INTO v FROM voiding.process p
     WHERE p.process_id = diagram.process_id AND p.type = diagram.process_type;
    IF v IS NULL THEN
      RAISE EXCEPTION 'there is no process % of type "%"', process_id, process_type USING ERRCODE = 'VD04B';
    END IF;
  END IF;
  SELECT p.definition INTO d FROM voiding.process_type p WHERE p.name = diagram.process_type AND p.version = v;
  IF d IS NULL THEN
    RAISE EXCEPTION 'process type "%" does not exist', process_type USING ERRCODE = 'undefined_object';
  END IF;
  SELECT string_agg(line, E'\n' ORDER BY section, line) INTO out FROM (
    SELECT 1 AS section, 'stateDiagram-v2' AS line
    UNION ALL
    SELECT 2, format('    %s --> %s : %s', CASE t.from_state WHEN '(start)' THEN '[*]' ELSE voiding.diagram_name(t.from_state) END,
                     voiding.diagram_name(coalesce(t.to_state, t.from_state)),
                     concat_ws(' ', CASE WHEN t.trigger IN ('start', 'on') THEN NULL ELSE t.trigger END,
                               ltrim(nullif(t.name, ''), '@'), '[' || replace(t.guard, ':', '#colon;') || ']'))
      FROM voiding.transition t
     WHERE t.process_type = diagram.process_type AND t.version = v AND (t.to_state IS NOT NULL OR t.actions <> '{}')
    UNION ALL
    SELECT 3, format('    %s --> [*]', voiding.diagram_name(s.key)) FROM jsonb_each(d -> 'states') s WHERE s.value ->> 'type' = 'final'
    UNION ALL
    SELECT 4, format('    %s : sends %s', voiding.diagram_name(s.key), string_agg(voiding.long_form(i, 'command') ->> 'command', ', ' ORDER BY n))
      FROM jsonb_each(d -> 'states') s, voiding.items(s.value #> '{entry,send}') WITH ORDINALITY AS i(i, n) GROUP BY s.key
    UNION ALL
    SELECT 5, '    classDef passed fill:#dbeafe' WHERE process_id IS NOT NULL
    UNION ALL
    SELECT 6, '    classDef present fill:#2563eb,color:#fff' WHERE process_id IS NOT NULL
    UNION ALL
    SELECT 7, format('    class %s passed', voiding.diagram_name(h.state))
      FROM (SELECT DISTINCT h.from_state AS state FROM voiding.process_history h
             WHERE h.process_id = diagram.process_id AND h.from_state IS NOT NULL) h
     WHERE h.state <> (SELECT p.state FROM voiding.process p WHERE p.process_id = diagram.process_id)
    UNION ALL
    SELECT 8, format('    class %s present', voiding.diagram_name(p.state)) FROM voiding.process p WHERE p.process_id = diagram.process_id
  ) x;
  RETURN out;
END $$;
COMMENT ON FUNCTION voiding.diagram(text, uuid) IS 'Mermaid state diagram of a process type; with a process its path and present state are marked';

CREATE FUNCTION voiding.diagram_name(state text) RETURNS text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT regexp_replace(state, '[.-]', '_', 'g') $$;
COMMENT ON FUNCTION voiding.diagram_name(text) IS 'internal';
