# publications.sh: voids against publications: nothing may break. Sourced.

publisher=

stop_publisher() {
	[ -z "$publisher" ] || kill "$publisher" 2>/dev/null || true
	[ -z "$publisher" ] || wait "$publisher" 2>/dev/null || true
	publisher=
}

# two clients publish customers' reports, ten a second each
start_publisher() {
	pgbench -n -f test/bench/publish.pgbench -c 2 -T 3600 --rate=20 -D customers="$customers" stress >build/publish.out 2>&1 &
	publisher=$!
}

acknowledge() {
	value stress "SELECT voiding.acknowledge_process_failure(process_id, 'bench')
		FROM voiding.ongoing_process WHERE failed" >/dev/null
}

measure_publications() {
	local start
	customers=$((voids / 100))
	make_voiding stress
	issue stress "$voids" "$customers"
	value stress "SELECT voiding.start_workers(${workers%% *})" >/dev/null
	start=$(now)
	start_publisher
	load stress voiding 16 "$voids"
	finish stress
	stress_took=$(($(now) - start))
	kill -0 "$publisher" 2>/dev/null || { cat build/publish.out >&2; fail "the publishers failed"; }
	stop_publisher
	acknowledge
	finish stress
	value stress 'SELECT voiding.stop_workers()' >/dev/null
	value stress ANALYZE
	breaches=$(value stress "SELECT what || ': ' || n FROM breaches($voids)")
}

count() { line "$1" 9d "$(value stress "SELECT count(*) FROM $2")"; }

report_publications() {
	say "VOIDS AGAINST PUBLICATIONS: 16 clients void, 2 publish"
	say
	line 'requested' 9d "$voids"
	line 'settled per second' 9.0f "$(awk -v n="$voids" -v us="$stress_took" 'BEGIN { print n * 1e6 / us }')"
	count 'documents voided' "billing.document WHERE status = 'voided'"
	count 'voidings refused, and acknowledged' "voiding.finished_process WHERE outcome = 'failed'"
	count 'reports published' "reports.customer_report WHERE status = 'published'"
	count 'documents published' "reports.report_line JOIN reports.customer_report r USING (report_id) WHERE r.status = 'published'"
	say
	if [ -n "$breaches" ]; then
		say '  WHAT DOES NOT HOLD:'
		say "$breaches" | sed 's/^/    /'
	else
		say '  All holds: nothing is stuck, no document was voided after its report was published, and'
		say '  totals are right to the cent.'
	fi
	say
}
