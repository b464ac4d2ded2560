# measure.sh: tools of the benchmark: databases, runs, figures. Sourced.
#
# There are two databases: "hand" (hand.sql), and "voiding" with the extension.
# A run is pgbench with one script, timed until all of it is done. It has
# documents of its own, issued before. A line of the file $runs is:
#
#   variant clients round rate open ins upd del wal pages commits syncs cpu
#
# rate: done per second; open: not finished yet when the clients ended; the
# rest is what the server did for each: rows, WAL bytes, full-page images,
# commits, WAL flushes, microseconds of CPU.

runs=$PWD/build/runs
declare -A next                       # database -> its next document

fail() { echo "bench: $*" >&2; exit 1; }
now() { echo "${EPOCHREALTIME/./}"; } # microseconds
value() { psql -XAtq -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }
say() { printf '%s\n' "$*"; }

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
percentile() { sort -g | awk -v p="$1" '{ v[NR] = $1 } END { i = int(NR * p + 0.999999); print v[i < 1 ? 1 : i] }'; }

make_database() {                     # NAME FILE SCHEMA
	createdb "$1"
	psql -Xq -v ON_ERROR_STOP=1 -d "$1" -f "test/bench/$2" || fail "test/bench/$2 failed"
	value "$1" "ALTER DATABASE $1 SET search_path = $3"
	next[$1]=10000001
}

make_hand() {
	make_database hand hand.sql hand
	# plans are made while its small tables are empty; a scan looks cheap then
	value hand 'ALTER DATABASE hand SET enable_seqscan = off'
}

make_voiding() {                      # NAME
	make_database "$1" voiding.sql bench
}

# the comparison is of processes, not of tables: those have to be the same
compare_tables() {
	local side
	for side in hand voiding; do
		psql -XAtq -d $side -f test/bench/tables.sql >build/tables.$side
	done
	diff build/tables.hand build/tables.voiding >&2 || fail "the tables of both sides are not the same"
}

# issue N documents, and let Reports have them
issue() {                             # DATABASE N CUSTOMERS
	local first=${next[$1]} last=$((next[$1] + $2 - 1))
	next[$1]=$((last + 1))
	value "$1" "SELECT issue($first, $last, $3)" >/dev/null
	if [ -n "$(value "$1" "SELECT to_regnamespace('voiding')")" ]; then
		while [ "$(value "$1" 'SELECT voiding.dispatch(batch_size => 10000)')" != 0 ]; do :; done
	fi
	value "$1" 'VACUUM ANALYZE'
	value "$1" 'CHECKPOINT'
}

# pgbench with a script of this folder, for the last N documents
load() {                              # DATABASE SCRIPT CLIENTS N [OPTION...]
	pgbench -n -M prepared -f "test/bench/$2.pgbench" -c "$3" -j "$(($3 < cores ? $3 : cores))" -t $(($4 / $3)) \
		-D first=$((next[$1] - $4)) -D i=0 -D clients="$3" "${@:5}" "$1" >build/pgbench.out 2>&1 ||
		{ cat build/pgbench.out >&2; fail "pgbench failed"; }
}

# microseconds of CPU that the server's processes have used
cpu() {
	{ cat /proc/[0-9]*/stat 2>/dev/null || true; } | sed 's/^\([0-9]*\) (.*) /\1 /' |   # some end meanwhile
		awk -v server="$(head -1 build/data/postmaster.pid)" -v tick="$(getconf CLK_TCK)" '
			$1 == server { n += $12 + $13 + $14 + $15 }
			$3 == server { n += $12 + $13 }
			END { printf "%.0f\n", n * 1e6 / tick }'
}

# until an SQL condition holds, 30 seconds at most
wait_until() {                        # DATABASE CONDITION
	value "$1" "DO \$\$ BEGIN
		FOR i IN 1 .. 3000 LOOP
			IF $2 THEN RETURN; END IF;
			PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
		END LOOP;
		RAISE 'it does not come';
	END \$\$"
}

# what the server has done so far; sessions count when they end: wait for that
counters() {                          # DATABASE
	wait_until "$1" "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
		AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker')" || fail 'sessions do not end'
	psql -XAtq -F ' ' -d "$1" -c "SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del), pg_current_wal_lsn() - '0/0',
			(SELECT wal_fpi FROM pg_stat_wal),
			(SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
			(SELECT wal_sync FROM pg_stat_wal)
		FROM pg_stat_user_tables" | tr '\n' ' '
	cpu
}

# let voiding do what is requested; sets open
finish() {                            # DATABASE
	open=$(value "$1" 'SELECT count(*) FROM voiding.active_process')
	value "$1" "CALL voiding.await_idle('30 min')" || fail "voiding did not finish"
}

finished() { value "$1" "SELECT count(*) FROM $([ "$1" = hand ] && echo hand || echo voiding).finished_process"; }

note_run() {                          # VARIANT CLIENTS ROUND N MICROSECONDS OPEN BEFORE AFTER
	echo "$7 $8" | awk -v head="$1 $2 $3" -v n="$4" -v us="$5" -v open="$6" '
		{ printf "%s %.1f %d", head, n * 1e6 / us, open
		  for (i = 1; i <= NF / 2; i++) printf " %.3f", ($(i + NF / 2) - $i) / n
		  print "" }' >>"$runs"
}

# One run. Variants: commit, request, three, one (by hand), voidingW with W
# workers. NAME: as which it is noted.
run() {                               # VARIANT CLIENTS ROUND N [NAME]
	local database=hand script=$1 workers= open=0 before start took done
	case $1 in voiding*) database=voiding script=voiding workers=${1#voiding} ;; esac
	[ "$1" = commit ] || issue $database "$4" 1000
	done=$(finished $database)
	before=$(counters $database)
	[ -z "$workers" ] || value voiding "SELECT voiding.start_workers($workers)" >/dev/null
	start=$(now)
	load $database "$script" "$2" "$4"
	[ -z "$workers" ] || finish voiding
	took=$(($(now) - start))
	[ -z "$workers" ] || value voiding 'SELECT voiding.stop_workers()' >/dev/null
	note_run "${5:-$1}" "$2" "$3" "$4" $took "$open" "$before" "$(counters $database)"
	case $1 in
	request) value hand 'TRUNCATE active_process, outbox, timer' ;;
	commit) ;;
	*) [ $(($(finished $database) - done)) = "$4" ] || fail "$1: not all voids are finished" ;;
	esac
}

server_settings() {
	cat <<-END
		fsync = on
		synchronous_commit = on
		full_page_writes = on
		shared_buffers = 1GB
		max_wal_size = 8GB
		checkpoint_timeout = 15min
		track_io_timing = off
		max_connections = 600
	END
}

report_machine() {
	heading="voiding $(sed -n "s/^default_version = '\(.*\)'/\1/p" voiding.control), benchmark of $(date -u +%F)${quick:+, quick: sizes are small, figures rough}"
	say "$heading"
	say
	line machine s "$cores cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(df -T . | awk 'NR == 2 { print $2 }')"
	line 'load of others before' s "$(cut -d' ' -f1-3 /proc/loadavg)"
	line PostgreSQL s "$(value postgres 'SHOW server_version')"
	value postgres "SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit',
		'full_page_writes', 'shared_buffers', 'max_wal_size', 'checkpoint_timeout', 'autovacuum', 'shared_preload_libraries')
		ORDER BY name" | while IFS='|' read -r name setting; do line "$name" s "${setting:-none}"; done
	say
}

# the median of a column of the runs of a variant
figure() {                            # VARIANT CLIENTS COLUMN
	awk -v v="$1" -v c="$2" -v k="$3" '$1 == v && $2 == c { print $k }' "$runs" | median
}

# the median of the rounds' ratios of two variants' rates
ratio() {                             # VARIANT VARIANT CLIENTS
	awk -v a="$1" -v b="$2" -v c="$3" '$2 == c && $1 == a { x[$3] = $4 } $2 == c && $1 == b { y[$3] = $4 }
		END { for (r in x) if (y[r]) print x[r] / y[r] }' "$runs" | median
}

# a line of the report; a table's cells are as wide as the format says
line() {                              # NAME FORMAT VALUE...
	local name=$1 format=$2 v
	shift 2
	printf '  %-40s' "$name"
	for v; do printf " %$format" "$v"; done
	echo
}
