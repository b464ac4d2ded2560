# run.sh: the process of the benchmark on other queues. Sourced.
#
# A peer is a database peer_NAME: the tables of hand.sql, process.sql, and its
# own .sql. Its workers run during a run only. Peers, and voiding in the same way:
#
#   graphile_single  graphile-worker, a job at a time
#   graphile_shared  the same, tasks share their statements
#   boss_notify      pg-boss with LISTEN/NOTIFY
#   boss_poll        pg-boss without
#   pgq_plain        PgQ with pgqd, and a consumer in the database
#   pgq_history      the same, and the process writes its events down as voiding does
#
# A line of $runs has one more figure at the end: microseconds of CPU of workers
# outside of the server.

worker_pids=

fetch_peers() {                       # from npm and from Debian, into the private build folder
	mkdir -p build/peers/pgq
	cp test/bench/peers/* build/peers/
	npm ci --prefix build/peers --no-audit --no-fund --loglevel=error >build/npm.log 2>&1 ||
		{ cat build/npm.log >&2; fail "npm ci failed"; }
	# unpacked, not installed: a daemon would be started
	(cd build/peers/pgq && apt-get -qq download postgresql-15-pgq3 pgqd && for f in *.deb; do dpkg -x "$f" .; done) >build/pgq.log 2>&1 ||
		{ cat build/pgq.log >&2; fail "PgQ's packages cannot be had: is apt-get update needed?"; }
	cp build/peers/pgq/usr/lib/postgresql/15/lib/*.so "$("$PG_CONFIG" --pkglibdir)"
	cp build/peers/pgq/usr/share/postgresql/15/extension/* "$("$PG_CONFIG" --sharedir)/extension"
}

database_of() { [ "$1" = voiding ] && echo voiding || echo "peer_$1"; }

name_of() {                           # PEER
	case $1 in
	voiding) echo 'voiding, 1 worker' ;;
	graphile_single) echo 'graphile-worker' ;;
	graphile_shared) echo 'graphile-worker, shared' ;;
	boss_notify) echo 'pg-boss, LISTEN' ;;
	boss_poll) echo 'pg-boss, polling' ;;
	pgq_plain) echo 'PgQ' ;;
	pgq_history) echo 'PgQ, with events' ;;
	esac
}

# those that notify for each job are too slow for a whole run
size_of() {                           # PEER
	case $1 in
	graphile_single) echo $((voids / 64 * 16)) ;;
	graphile_shared | boss_notify) echo $((voids / 32 * 16)) ;;
	*) echo "$voids" ;;
	esac
}

report_versions() {
	local v
	for v in graphile-worker pg-boss; do line "$v" s "$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "build/peers/node_modules/$v/package.json")"; done
	line Node.js s "$(node --version)"
	line PgQ s "$(dpkg-deb -f build/peers/pgq/postgresql-15-pgq3_*.deb Version)"
	say
}

make_peer() {                         # PEER
	local database=peer_$1 file
	if [ "$1" = voiding ]; then
		make_voiding voiding
		psql -XAtq -v ON_ERROR_STOP=1 -d voiding -f test/bench/peers/voiding.sql >/dev/null || fail "voiding.sql failed"
		return
	fi
	make_database "$database" hand.sql hand
	value postgres "ALTER DATABASE $database SET peer.how = ${1#*_}"
	for file in process "${1%_*}"; do
		psql -XAtq -v ON_ERROR_STOP=1 -d "$database" -f "test/bench/peers/$file.sql" >/dev/null || fail "$file.sql failed"
	done
	start_workers "$1"                # they make their own tables
	stop_workers "$1"
}

# a small run that does not count: plans are not made for empty tables then
warm_up() {                           # PEER
	run_peer "$1" 16 0 800
	: >"$runs"
}

start_workers() {                     # PEER
	local database=peer_$1 log=build/peers/$1.log
	: >"$log"
	case $1 in
	voiding)
		value voiding 'SELECT voiding.start_workers(1)' >/dev/null
		return ;;
	graphile_*) node build/peers/graphile.js "$database" "${1#*_}" >>"$log" 2>&1 & ;;
	boss_*) node build/peers/boss.js "$database" "${1#*_}" >>"$log" 2>&1 & ;;
	pgq_*)
		pgqd_settings "$database" >build/peers/pgqd.ini
		build/peers/pgq/usr/bin/pgqd build/peers/pgqd.ini >>"$log" 2>&1 &
		worker_pids=$!
		psql -Xq -d "$database" -c '\warn ready' -c 'CALL consume()' >>"$log" 2>&1 & ;;
	esac
	worker_pids="$worker_pids $!"
	timeout 60 sh -c 'until grep -q ready "$0"; do sleep 0.1; done' "$log" || { cat "$log" >&2; fail "$1 does not start"; }
}

pgqd_settings() {                     # DATABASE
	cat <<-END
		[pgqd]
		base_connstr = host=$PGHOST port=$PGPORT user=$PGUSER
		initial_database = postgres
		database_list = $1
		ticker_period = 0.01
		syslog = 0
	END
}

stop_workers() {                      # PEER
	case $1 in
	voiding) value voiding 'SELECT voiding.stop_workers()' >/dev/null ;;
	pgq_*) value postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = 'peer_$1' AND query LIKE 'CALL%'" >/dev/null ;;
	esac
	end_workers
}

end_workers() {
	[ -z "$worker_pids" ] || kill $worker_pids 2>/dev/null || true
	[ -z "$worker_pids" ] || wait $worker_pids 2>/dev/null || true
	worker_pids=
}

worker_cpu() {
	local pid
	for pid in $worker_pids; do sed 's/^.*) //' "/proc/$pid/stat"; done |
		awk -v tick="$(getconf CLK_TCK)" '{ n += $12 + $13 } END { printf "%.0f\n", n * 1e6 / tick }'
}

request() {                           # PEER CLIENTS N [OPTION...]
	local script=peers/request
	[ "$1" != voiding ] || script=voiding
	load "$(database_of "$1")" $script "${@:2}"
}

wait_for_end() {                      # PEER
	if [ "$1" = voiding ]; then finish voiding; else value "peer_$1" 'CALL wait_for_end()'; fi
}

# as fast as it goes: until the last process has ended
run_peer() {                          # PEER CLIENTS ROUND N
	local database before start took used
	database=$(database_of "$1")
	issue "$database" "$4" 1000
	before=$(counters "$database")
	start_workers "$1"
	used=$(worker_cpu)
	start=$(now)
	request "$1" "$2" "$4"
	wait_for_end "$1"
	took=$(($(now) - start))
	used=$(($(worker_cpu) - used))
	stop_workers "$1"
	note_run "$1" "$2" "$3" "$4" $took 0 "$before 0" "$(counters "$database") $used"
}

# at random times, 20 a second; the server's times of the commits at both ends
run_latency() {                       # PEER
	local database
	database=$(database_of "$1")
	issue "$database" "$samples" 1000
	start_workers "$1"
	request "$1" 4 "$samples" --rate=20 --random-seed=1
	wait_for_end "$1"
	stop_workers "$1"
	value "$database" "SELECT latency('D$((next[$database] - samples))')" >"build/latency.$1"
	[ "$(wc -l <"build/latency.$1")" = "$samples" ] || fail "$1: not all processes of the latency run have ended"
}

check_peer() {                        # PEER
	local database found
	database=$(database_of "$1")
	found=$(value "$database" "SELECT what || ': ' || n FROM breaches($((next[$database] - 10000001)))")
	[ -z "$found" ] || fail "$1: $found"
}
