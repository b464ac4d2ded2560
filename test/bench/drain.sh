# drain.sh: a backlog that was requested while nobody worked. Sourced.

drain_by_hand() {                     # PROCEDURE
	local before start took
	issue hand "$backlog" 1000
	load hand request 16 "$backlog"
	value hand 'VACUUM ANALYZE' && value hand 'CHECKPOINT'
	before=$(counters hand)
	start=$(now)
	value hand "CALL $1()"
	took=$(($(now) - start))
	[ "$(value hand 'SELECT count(*) FROM active_process')" = 0 ] || fail "not all voids by hand are finished"
	note_run "$1" 0 1 "$backlog" $took 0 "$before" "$(counters hand)"
}

drain() {                             # WORKERS
	local before start took open
	issue voiding "$backlog" 1000
	PGOPTIONS='-c voiding.notify=off' load voiding voiding 16 "$backlog"
	value voiding 'VACUUM ANALYZE' && value voiding 'CHECKPOINT'
	before=$(counters voiding)
	start=$(now)
	value voiding "SELECT voiding.start_workers($1)" >/dev/null
	finish voiding
	took=$(($(now) - start))
	value voiding 'SELECT voiding.stop_workers()' >/dev/null
	[ "$(value voiding 'SELECT count(*) FROM voiding.active_process')" = 0 ] || fail "not all voids are finished"
	note_run "drain$1" 0 1 "$backlog" $took 0 "$before" "$(counters voiding)"
}

measure_drain() {
	local w
	run one 16 1 "$((backlog / 64 * 16))" drainone
	drain_by_hand drain
	drain_by_hand drain_sets
	for w in $workers; do drain "$w"; done
}

report_drain() {
	local v drains=
	for v in $voidings; do drains="$drains drain${v#voiding}"; done
	say "DRAIN of $backlog voids that had been requested before: finished per second"
	say
	line "$(name_of drainone)" 9.0f "$(figure drainone 16 4)"
	for v in drain drain_sets $drains; do line "$(name_of "$v")" 9.0f "$(figure "$v" 0 4)"; done
	say
	say '  and what the server did for each, the request not included:'
	say
	costs 0 drain drain_sets $drains
}
