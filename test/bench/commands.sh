# commands.sh: what sending a command costs, and how soon a waiter is told
# while hundreds of others are asleep. Sourced.

commands_settings() {
	sleepers=${BENCH_SLEEPERS:-500}
	told_seconds=$((quick ? 5 : 30))
	send_rounds=$((quick ? 3 : 9)) send_size=$((quick ? 1600 : 8000))
}

send_block() {                        # SCRIPT ROUND
	pgbench -n -M prepared -f "test/bench/send_$1.pgbench" -c 16 -j "$cores" -t $((send_size / 16)) voiding >build/pgbench.out 2>&1 ||
		{ cat build/pgbench.out >&2; fail 'pgbench failed'; }
	awk -v head="send.$1 16 $2" '$1 == "tps" { print head, $3 }' build/pgbench.out >>"$runs"
}

measure_sending() {
	local round
	for ((round = 1; round <= send_rounds; round++)); do
		send_block plain $round
		send_block command $round
	done
	value voiding 'SELECT voiding.start_workers(1)' >/dev/null
	finish voiding
	[ "$(value voiding "SELECT count(*) FROM voiding.command WHERE status <> 'processed'")" = 0 ] || fail 'not all commands are processed'
}

# microseconds of CPU of the sessions that sleep
sleepers_cpu() {
	value postgres "SELECT string_agg('/proc/' || pid || '/stat', ' ') FROM pg_stat_activity WHERE query LIKE 'CALL voiding.await%'" |
		xargs cat | sed 's/^\([0-9]*\) (.*) /\1 /' | awk -v tick="$(getconf CLK_TCK)" '{ n += $12 + $13 } END { printf "%.0f\n", n * 1e6 / tick }'
}

measure_told() {
	local before pid
	pgbench -n -f test/bench/asleep.pgbench -c "$sleepers" -j 4 -t 1 voiding >build/asleep.out 2>&1 &
	pid=$!
	wait_until postgres "(SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL voiding.await%') >= $sleepers" ||
		{ cat build/asleep.out >&2; fail 'not all sleep'; }
	sleep 5                               # they have looked twice; now nothing is to happen
	before=$(sleepers_cpu)
	sleep 10                              # the time that is measured
	idle_cpu=$((($(sleepers_cpu) - before) / 10))
	pgbench -n -M prepared -f test/bench/told.pgbench -c 8 -j 2 -R 200 -T $told_seconds voiding >build/pgbench.out 2>&1 ||
		{ cat build/pgbench.out >&2; fail 'pgbench failed'; }
	value voiding 'SELECT ms FROM bench.told ORDER BY 1' >build/told
	value postgres "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'CALL voiding.await%'" >/dev/null
	wait $pid 2>/dev/null || true
	value voiding "SELECT count(voiding.cancel_command(command_id)) FROM voiding.command WHERE status = 'accepted'" >/dev/null
	value voiding 'SELECT voiding.stop_workers()' >/dev/null
}

measure_commands() {
	psql -Xq -v ON_ERROR_STOP=1 -d voiding -f test/bench/commands.sql >/dev/null || fail 'commands.sql failed'
	value voiding CHECKPOINT
	measure_sending
	measure_told
}

report_commands() {
	say "COMMANDS: 16 clients send; then $sleepers sessions sleep, and 200 commands a second are sent and waited for"
	say
	line 'plain INSERT of the row, per second' 9.0f "$(figure send.plain 16 4)"
	line 'send_command(), per second' 9.0f "$(figure send.command 16 4)"
	line 'price of send_command()' 9.2f "$(ratio send.plain send.command 16)"
	line "CPU of $sleepers sleepers, us a second" 9d "$idle_cpu"
	line 'waits' 9d "$(wc -l <build/told)"
	line 'told, ms after the work was done: p50' 9.2f "$(percentile 0.5 <build/told)"
	line '                                  p99' 9.2f "$(percentile 0.99 <build/told)"
	say
	say '  send_command() writes the row and a message. "Told" counts from before the commit that ends the'
	say '  command, its flush included, to the first statement of the waiter after it.'
	say
}
