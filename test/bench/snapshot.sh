# snapshot.sh: voids while somebody holds a snapshot. Sourced.
#
# Two databases go through the same messages; in one of them, "held", a
# REPEATABLE READ transaction has been open since before. Vacuum can remove
# nothing there; a snapshot holds back the vacuum of its own database only.
# A message counts when its row in the outbox was written, and deleted with the
# handler's effects: one for a document that is issued, one for a voiding that
# is requested. What follows in the worker's memory has no row and is not counted.

holder=

hold_snapshot() {                     # DATABASE
	PGAPPNAME=holder psql -XAtq -d "$1" -c 'BEGIN ISOLATION LEVEL REPEATABLE READ' -c 'SELECT count(*) FROM voiding.event' \
		-c 'SELECT pg_sleep(86400)' >build/holder.out 2>&1 &
	holder=$!
	wait_until "$1" "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'holder' AND query LIKE '%pg_sleep%')" ||
		fail 'the snapshot is not held'
}

# how many transactions it is old
snapshot_age() { value "$1" "SELECT age(backend_xmin) FROM pg_stat_activity WHERE application_name = 'holder' AND backend_xmin IS NOT NULL"; }

release_snapshot() {
	[ -n "$holder" ] || return 0
	value postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'" >/dev/null 2>&1 || true
	wait "$holder" 2>/dev/null || true
	holder=
}

# of five messages one is a voiding, with twenty rounds of both
pass_messages() {                     # DATABASE
	local part=$((messages / 20)) first=10000001 documents voids i round
	documents=$((part * 4 / 5)) voids=$((part / 5))
	for ((round = 0; round < 20; round++)); do
		value "$1" "SELECT issue($first, $((first + documents - 1)), 1000)" >/dev/null
		for ((i = first; i < first + voids; i += 500)); do
			echo "SELECT count(billing.void_document('D' || i, 'bench')) FROM generate_series($i, $((i + 499))) i;"
		done | psql -XAtq -v ON_ERROR_STOP=1 -d "$1" >/dev/null || fail "$1: voids were not requested"
		wait_handled "$1" $(((round + 1) * (documents + 3 * voids)))
		first=$((first + documents))
	done
}

# documents for the probes; then as autovacuum would do it
ready_for_probes() {                  # DATABASE FIRST
	local goal=$(($(handled "$1") + $(probe_documents)))
	value "$1" "SELECT issue($2, $(($2 + $(probe_documents) - 1)), 1000)" >/dev/null
	wait_handled "$1" $goal
	value "$1" 'VACUUM ANALYZE'
}

rows_of() { value "$1" "SELECT $2 FROM pg_stat_user_tables WHERE schemaname IN ('voiding', 'billing', 'reports')"; }

measure_snapshot() {
	local d jobs=() first=$((10000001 + messages / 5 * 4))
	for d in free held; do
		make_voiding $d
		value $d 'SELECT voiding.start_workers(1)' >/dev/null
	done
	hold_snapshot held
	for d in free held; do
		pass_messages $d &
		jobs+=($!)
	done
	for d in "${jobs[@]}"; do wait "$d" || fail 'the messages were not handled'; done
	for d in free held; do ready_for_probes $d $first; done
	value postgres CHECKPOINT
	probes snapshot free held $first
	age=$(snapshot_age held)
	[ "${age:-0}" -gt 0 ] || fail 'the snapshot was not held to the end'
	declare -gA passed=() dead=()
	for d in free held; do
		value $d 'SELECT voiding.stop_workers()' >/dev/null
		passed[$d]=$(value $d "SELECT n_tup_del FROM pg_stat_user_tables WHERE relid = 'voiding.outbox'::regclass")
		dead[$d]=$(rows_of $d 'sum(n_dead_tup)')
		[ "${passed[$d]}" -ge "$messages" ] || fail "$d: only ${passed[$d]} messages have passed through the outbox"
		check_probes $d $((messages / 5 + $(probe_documents)))
	done
	[ "${dead[held]}" -ge "$messages" ] || fail "vacuum has removed what the snapshot should keep: ${dead[held]} dead rows"
	release_snapshot
	for d in free held; do dropdb -f $d; done
}

report_snapshot() {
	say "HELD SNAPSHOT: $messages messages have passed; then 16 clients void"
	say
	line '' 11s without held
	line 'messages through the outbox, at the end' 11d "${passed[free]}" "${passed[held]}"
	line 'dead rows, at the end' 11d "${dead[free]}" "${dead[held]}"
	report_probes snapshot free held
}

targets_snapshot() {
	target 5 'voids under a held snapshot, to those without' "$(ratio snapshot.held snapshot.free 16)" '>=' 0.90
}
