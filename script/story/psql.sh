# psql.sh: how the demo talks to its database, "demo" on the server that
# PGHOST, PGPORT and PGUSER name. Sourced.
#
#   sql ARGUMENT...    statements from stdin, or as psql's arguments say
#   value              the same, and what they return, bare
#   wait_until_idle [TIMEOUT]    until the workers have handled every message
#   plural N NOUN

export PGDATABASE=demo PGOPTIONS='-c client_min_messages=warning' PGTZ=UTC PGCLIENTENCODING=UTF8

sql() { psql -X -q -v ON_ERROR_STOP=1 -v SHOW_CONTEXT=never "$@"; }
value() { sql -At "$@"; }
plural() { [ "$1" = 1 ] && echo "1 $2" || echo "$1 $2s"; }

wait_until_idle() {
	local idle
	idle=$(value <<<"SELECT voiding.wait_until_idle('${1:-5 min}');") || return 1
	[ "$idle" = t ] || { echo "demo: after ${1:-5 min} some messages are still not handled" >&2; return 1; }
}
