# history.sh: voids of recent documents where much has ended before. Sourced.
#
# Two databases, the one with few processes that have ended ("young"), the other
# with many ("old"). They are written straight into the tables (history.sql);
# what they left is compared with what a void leaves.

few=10000

write_past() {                        # DATABASE N
	local jobs=() w i
	value "$1" "SELECT voiding.add_event_partition(p) FROM generate_series(10000000, 8::bigint * ($2 + $(probe_documents)) + 10000000, 10000000) p" >/dev/null
	for w in 0 1; do
		for ((i = w * few; i < $2; i += 2 * few)); do
			echo "SELECT past($((10000001 + i)), $((10000000 + i + few)));"
		done | psql -XAtq -v ON_ERROR_STOP=1 -d "$1" >/dev/null &
		jobs+=($!)
	done
	for w in "${jobs[@]}"; do wait "$w" || fail "$1: its past was not written"; done
	value "$1" "SELECT setval('voiding.position', 8::bigint * ($2 + 1))" >/dev/null
	[ "$(value "$1" 'SELECT count(*) FROM voiding.process WHERE finished_at IS NOT NULL')" = "$2" ] || fail "$1: it does not have $2 processes"
}

# of one that was written and of one that was voided here
compare_traces() {                    # DATABASE N REAL
	local written
	for written in 10000001 $((10000000 + $2)); do
		value "$1" "SELECT traces('D$written')" >build/traces.written
		value "$1" "SELECT traces('D$3')" >build/traces.voided
		[ "$(wc -l <build/traces.voided)" = 11 ] || fail "$1: a void has not left what was expected"
		diff build/traces.written build/traces.voided >&2 || fail "$1: its past is not what voids leave"
	done
}

measure_history() {
	local d first=$((10000001 + history))
	local -A past=([young]=$few [old]=$history)
	for d in young old; do
		make_voiding $d
		psql -Xq -v ON_ERROR_STOP=1 -d $d -f test/bench/history.sql || fail 'test/bench/history.sql failed'
		write_past $d "${past[$d]}"
		value $d 'SELECT voiding.start_workers(1)' >/dev/null
		ready_for_probes $d $first
	done
	value postgres CHECKPOINT
	probes history young old $first
	declare -gA weight=()
	for d in young old; do
		value $d 'SELECT voiding.stop_workers()' >/dev/null
		check_probes $d $((${past[$d]} + $(probe_documents)))
		compare_traces $d "${past[$d]}" $first
		weight[$d]=$(value $d 'SELECT pg_database_size(current_database()) / 1000000')
	done
	breaches_of young
	for d in young old; do dropdb -f $d; done
}

# what voiding and the services find wrong with themselves
breaches_of() {                       # DATABASE
	local found
	found=$(value "$1" 'SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants()
		UNION ALL SELECT * FROM reports.check_invariants() LIMIT 5')
	[ -z "$found" ] || fail "$1: $found"
}

report_history() {
	say "HISTORY: processes have ended before; 16 clients void recent documents"
	say
	line 'ended before' 11d $few "$history"
	line 'size of the database, MB' 11d "${weight[young]}" "${weight[old]}"
	report_probes history young old
}

targets_history() {
	target 6 "voids after $history processes, to after $few" "$(ratio history.old history.young 16)" '>=' 0.95
}
