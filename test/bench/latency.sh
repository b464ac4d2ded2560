# latency.sh: how long a void takes when there is little to do. Sourced.

# A session that asks for one void after the other, about 20 a second; psql's
# \timing takes the time of each statement: a one-row commit, the request, the
# wait until its process has ended, and the same wait once more.
latency_script() {                    # FIRST N
	local i
	for ((i = $1; i < $1 + $2; i++)); do
		cat <<-END
			SELECT pg_sleep(0.022) \\g /dev/null
			\\timing on
			INSERT INTO tick VALUES (1);
			\\timing off
			SELECT pg_sleep(0.022) \\g /dev/null
			\\timing on
			SELECT billing.void_document('D$i', 'bench') AS p \\gset
			SELECT state FROM voiding.wait_for_process(:'p', '30 s');
			SELECT state FROM voiding.wait_for_process(:'p', '30 s');
			\\timing off
		END
	done
}

measure_latency() {
	local start
	issue voiding "$samples" 1000
	value voiding "SELECT voiding.start_workers(${workers%% *})" >/dev/null
	latency_script $((next[voiding] - samples)) "$samples" >build/latency.sql
	start=$(now)
	psql -XAtq -v ON_ERROR_STOP=1 -d voiding -f build/latency.sql >build/latency.out || fail "latency.sql failed"
	pace=$(awk -v n="$samples" -v us=$(($(now) - start)) 'BEGIN { printf "%.1f", n * 1e6 / us }')
	value voiding 'SELECT voiding.stop_workers()' >/dev/null
	[ "$(grep -c DocumentVoided build/latency.out)" = $((2 * samples)) ] || fail "not all processes have ended"
}

timings() { awk -v k="$1" '$1 == "Time:" { if (n++ % 4 == k) print $2 }' build/latency.out; }
both() { line "$1" 9.2f "$(timings "$2" | percentile 0.5)" "$(timings "$2" | percentile 0.99)"; }

report_latency() {
	local p
	p=$(value voiding "SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at) * 1000)
		FROM voiding.finished_process WHERE key >= 'D$((next[voiding] - samples))'" | tr '{},' '   ')
	say "LATENCY at $pace requests a second, one client, $samples of them: milliseconds"
	say
	line '' 9s p50 p99
	both 'one-row commit' 0
	both 'request: sent to committed' 1
	both 'process: committed to told that it ended' 2
	both '  the same wait when it has ended long ago' 3
	line 'process: started to ended, in tables' 9.2f $p
	say
	say '  Times are as the client sees them, its round trip and parsing included. The last line is of the'
	say '  two transactions'"'"' own clocks (started_at, finished_at): without the commit of the second.'
	say
}
