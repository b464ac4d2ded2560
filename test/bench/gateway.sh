# gateway.sh: requests through voiding-gateway beside the same calls of http()
# by pgbench with as many connections; then streams, and what they cost.
# Sourced.

gateway_settings() {
	gateway_rounds=$((quick ? 3 : 7)) gateway_seconds=$((quick ? 2 : 4))
	streams=${BENCH_STREAMS:-1000} stream_seconds=$((quick ? 5 : 20))
}

start_gateway() {
	./voiding-gateway --dsn "dbname=voiding" --listen 127.0.0.1:0 >build/gateway.out 2>build/gateway.log &
	gateway=$!
	for _ in $(seq 300); do
		url=$(sed -n 's/^listening on //p' build/gateway.out)
		[ -n "$url" ] && curl -sf "$url/readyz" >/dev/null && return
		sleep 0.1                             # a limit of 30 s
	done
	cat build/gateway.log >&2
	fail 'the gateway does not start'
}

stop_gateway() {
	[ -n "${gateway:-}" ] || return 0
	kill "$gateway" 2>/dev/null && wait "$gateway" || true
	gateway=
}

direct_block() {                      # get|post ROUND
	pgbench -n -M prepared -f "build/http_$1.pgbench" -c 16 -j "$cores" -T "$gateway_seconds" voiding >build/pgbench.out 2>&1 ||
		{ cat build/pgbench.out >&2; fail 'pgbench failed'; }
	awk -v head="http.direct_$1 16 $2" '$1 == "tps" { print head, $3 }' build/pgbench.out >>"$runs"
}

gateway_block() {                     # get|post ROUND
	wrk -t 1 -c 16 -d "$gateway_seconds" -s "test/bench/http_$1.lua" "$url$path" >build/wrk.out 2>&1 || { cat build/wrk.out >&2; fail 'wrk failed'; }
	! grep -q 'Non-2xx\|Socket errors' build/wrk.out || { cat build/wrk.out >&2; fail 'not all answers are good'; }
	awk -v head="http.gateway_$1 16 $2" '$1 == "Requests/sec:" { print head, $2 }' build/wrk.out >>"$runs"
}

rss() { awk '$1 == "RssAnon:" { print $2 }' "/proc/$gateway/status"; }  # kB

measure_gateway() {
	local round kind
	command -v wrk >/dev/null || fail 'wrk is missing'
	[ -x voiding-gateway ] || fail 'the gateway is not built: its libraries are missing'
	path=/commands/$(value voiding "SELECT voiding.send_command('IssueDocument', '{\"document_id\": \"http\", \"customer_id\": \"C\", \"amount\": 1}', 'http')")
	echo "SELECT status, headers, body, wait FROM voiding.http('GET', '$path', '{}', '{\"Host\": \"localhost\"}', NULL);" >build/http_get.pgbench
	cp test/bench/http_post.pgbench build/http_post.pgbench
	start_gateway
	gateway_alone=$(rss)
	for ((round = 1; round <= gateway_rounds; round++)); do
		for kind in get post; do
			direct_block $kind $round
			gateway_block $kind $round
		done
	done
	stop_gateway
	value voiding 'SELECT voiding.start_workers(1)' >/dev/null
	finish voiding
	start_gateway
	gateway_alone=$(rss)
	perl test/bench/streams.pl "${url##*:}" "$streams" 200 "$stream_seconds" "$gateway" >build/streams.out || fail 'streams.pl failed'
	stop_gateway
	value voiding 'SELECT voiding.stop_workers()' >/dev/null
}

timed() { awk -v what="$1" '$1 == what { print $2 }' build/streams.out; }

report_gateway() {
	local k
	say "GATEWAY: 16 connections, one request each at a time; then $streams streams, and 200 requests a second"
	say
	for k in get post; do
		line "$k: calls by pgbench, per second" 9.0f "$(figure http.direct_$k 16 4)"
		line "$k: through the gateway, per second" 9.0f "$(figure http.gateway_$k 16 4)"
		line "$k: rate, to the calls'" 9.2f "$(ratio http.gateway_$k http.direct_$k 16)"
	done
	line 'memory of the gateway, kB' 9d "$gateway_alone"
	line "with $streams streams" 9d "$(timed rss)"
	line 'requests' 9d "$(timed request | wc -l)"
	line 'request to 202, ms: p50' 9.2f "$(timed request | percentile 0.5)"
	line '                    p99' 9.2f "$(timed request | percentile 0.99)"
	line 'events that came' 9d "$(timed event | wc -l)"
	line 'event written to read from its stream, ms: p50' 9.2f "$(timed event | percentile 0.5)"
	line '                                           p99' 9.2f "$(timed event | percentile 0.99)"
	say
	say '  "get" is GET /commands/{id}, "post" POST /commands/IssueDocument. Streams are of /events, of one type: each'
	say '  fiftieth request makes one event, which goes to all of them.'
	say
}
