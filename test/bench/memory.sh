# memory.sh: how much memory of its own a worker takes. Sourced.
#
# A sampler runs beside all sections and notes the RssAnon of each worker once a
# second: memory that is not shared and is no file. The section itself is an
# hour of steady load, if that is asked for: voids, publications now and then,
# and every ten minutes a backlog.

samples_of_memory=$PWD/build/memory   # lines: second, section, process, kB
sampler=

sample_memory() {
	local server
	while sleep 1; do
		server=$(head -1 build/data/postmaster.pid 2>/dev/null) || continue
		awk -v server="$server" -v head="$SECONDS $(cat build/section)" '
			$1 == "Pid:" { pid = $2 } $1 == "PPid:" { ours = $2 == server } $1 == "RssAnon:" && ours { print head, pid, $2 }
		' $(grep -lsa '^postgres: voiding worker' /proc/[0-9]*/cmdline | sed 's/cmdline/status/') </dev/null 2>/dev/null >>"$samples_of_memory" || true
	done
}

start_sampler() {
	: >"$samples_of_memory"
	sample_memory &
	sampler=$!
}

stop_sampler() {
	[ -z "$sampler" ] || kill "$sampler" 2>/dev/null || true
	[ -z "$sampler" ] || wait "$sampler" 2>/dev/null || true
	sampler=
}

# MB at most: in a section, or in all
memory_peak() {                       # [SECTION]
	awk -v s="${1:-}" 's == "" || $2 == s { if ($4 > max) max = $4 } END { if (max) printf "%.1f\n", max / 1024 }' "$samples_of_memory"
}

# of the first worker in this section: the median of a minute of it
memory_in_minute() {                  # MINUTE
	awk -v m="$1" '$2 == "memory" { if (!start) { start = $1; pid = $3 } if ($3 == pid && int(($1 - start) / 60) == m - 1) print $4 / 1024 }' "$samples_of_memory" | median
}

minute_of_load() {                    # MINUTE
	local n=$((memory_rate * 60 / 16 * 16)) first=${next[hour]}
	value hour "SELECT issue($first, $((first + n - 1)), 1000)" >/dev/null
	next[hour]=$((first + n))
	load hour voiding 16 $n --rate=$memory_rate
	value hour "SELECT publish('C' || $1 % 1000)" >/dev/null
	[ $(($1 % 10)) != 0 ] || { backlog_of_load "$n"; }
	finish hour
}

# requested in one transaction: the worker has all of it before it at once
backlog_of_load() {                   # N
	local first=${next[hour]}
	value hour "SELECT issue($first, $((first + $1 - 1)), 1000)" >/dev/null
	next[hour]=$((first + $1))
	finish hour
	value hour "SELECT count(billing.void_document('D' || i, 'bench')) FROM generate_series($first, $((first + $1 - 1))) i" >/dev/null
}

measure_memory() {
	local minute
	[ "$memory_minutes" -gt 0 ] || return 0
	make_voiding hour
	value hour "SELECT voiding.start_workers(${workers%% *})" >/dev/null
	for ((minute = 1; minute <= memory_minutes; minute++)); do
		minute_of_load $minute
	done
	value hour 'SELECT voiding.stop_workers()' >/dev/null
	[ "$(value hour 'SELECT count(*) FROM voiding.active_process WHERE NOT failed')" = 0 ] || fail 'not all voids are finished'
	[ "$(value hour 'SELECT count(*) FROM voiding.dead_letter')" = 0 ] || fail 'there are dead letters'
	voided_in_hour=$(finished hour)
	dropdb -f hour
}

report_memory() {
	local s m
	say 'MEMORY of a worker: RssAnon at most, MB, looked at once a second'
	say
	for s in $sections; do
		m=$(memory_peak "$s")
		[ -z "$m" ] || line "$s" 9.1f "$m"
	done
	if [ "$memory_minutes" -gt 0 ]; then
		say
		line "voids in the $memory_minutes minutes of 'memory'" 9d "$voided_in_hour"
		line '  in the second minute' 9.1f "$(memory_in_minute 2)"
		line '  in the last one' 9.1f "$(memory_in_minute "$memory_minutes")"
	fi
	say
}

targets_memory() {
	local load='this run'
	[ "$memory_minutes" = 0 ] || load="$memory_minutes minutes of load"
	[ -z "$(memory_peak)" ] || target 7 "a worker's own memory in $load, MB" "$(memory_peak)" '<' 64
}
