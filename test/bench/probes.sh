# probes.sh: the same load in two databases in turn. Sourced.
#
# Each has its worker all the time. A probe is some thousand voids by 16
# clients, until all processes have ended; the order is A B, B A, A B, ..., so
# that what disturbs the machine meets both. What counts is the median of the
# ratios of the pairs.

handled() { value "$1" 'SELECT coalesce(sum(handled), 0) FROM voiding.counters()'; }

# Until the workers have handled so many messages. That is counted in memory;
# whoever looks at the outbox walks over the rows that nobody can remove.
wait_handled() {                      # DATABASE N
	value "$1" "DO \$\$ BEGIN
		FOR i IN 1 .. 240000 LOOP
			IF (SELECT sum(handled) >= $2 FROM voiding.counters()) THEN RETURN; END IF;
			PERFORM pg_sleep(0.005);
		END LOOP;
		RAISE 'not handled in 20 minutes';
	END \$\$" || fail "$1: not all messages are handled"
}

# a document brings one message, its voiding three
probe() {                             # NAME DATABASE ROUND FIRST
	local -A next=([$2]=$(($4 + probe_size)))
	local goal=$(($(handled "$2") + 3 * probe_size)) cpu=$(cpu) start took
	start=$(now)
	load "$2" voiding 16 $probe_size
	wait_handled "$2" $goal
	took=$(($(now) - start))
	[ "$3" = 0 ] || echo "$1 16 $3 $took $cpu $(cpu)" |
		awk -v n=$probe_size '{ printf "%s %s %s %.1f 0 0 0 0 0 0 0 0 %.1f\n", $1, $2, $3, n * 1e6 / $4, ($6 - $5) / n }' >>"$runs"
}

probe_documents() { echo $(((probe_rounds + 1) * probe_size)); }

# round 0 warms up
probes() {                            # SECTION A B FIRST
	local round first=$4
	for ((round = 0; round <= probe_rounds; round++)); do
		if [ $((round % 2)) = 1 ]; then
			probe "$1.$2" "$2" $round $first
			probe "$1.$3" "$3" $round $first
		else
			probe "$1.$3" "$3" $round $first
			probe "$1.$2" "$2" $round $first
		fi
		first=$((first + probe_size))
	done
}

# nothing is left, nothing has failed
check_probes() {                      # DATABASE VOIDS
	local left
	left=$(value "$1" "SELECT count(*) FROM voiding.active_process")
	[ "$left" = 0 ] || fail "$1: $left processes have not ended"
	[ "$(value "$1" 'SELECT count(*) FROM voiding.dead_letter')" = 0 ] || fail "$1: there are dead letters"
	[ "$(value "$1" "SELECT count(*) FROM billing.document WHERE status = 'voided'")" = "$2" ] || fail "$1: not all documents are voided"
}

# the ratios of the pairs at a percentile
probe_ratio() {                       # NAME NAME PERCENTILE
	awk -v a="$1" -v b="$2" '$1 == a { x[$3] = $4 } $1 == b { y[$3] = $4 } END { for (r in x) print x[r] / y[r] }' "$runs" |
		percentile "$3"
}

report_probes() {                     # SECTION A B
	line 'voids per second' 11.0f "$(figure "$1.$2" 16 4)" "$(figure "$1.$3" 16 4)"
	line 'CPU of the server for each, us' 11.0f "$(figure "$1.$2" 16 13)" "$(figure "$1.$3" 16 13)"
	line "ratio of rates, median of $probe_rounds pairs" 11s '' "$(printf '%.3f' "$(ratio "$1.$3" "$1.$2" 16)")"
	line '  half of the pairs lie between' 11.2f "$(probe_ratio "$1.$3" "$1.$2" 0.25)" "$(probe_ratio "$1.$3" "$1.$2" 0.75)"
	say
}
