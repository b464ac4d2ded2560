# router.sh: calls through a router of PL/Proxy beside the same calls to the
# shard itself: what one more server on the way costs. All databases are on this
# server, so clients, router and shards share the cores. Sourced.

router_settings() {
	router_rounds=$((quick ? 2 : 5)) router_seconds=$((quick ? 1 : 3))
	router_clients='1 16'
}

make_router() {
	local i places=
	for i in 0 1 2 3; do
		createdb shard$i
		psql -XAtq -v ON_ERROR_STOP=1 -d shard$i -c 'CREATE EXTENSION voiding' -v number=$i -v shards=4 -f example/router/shard.sql >/dev/null || fail 'shard.sql failed'
		value postgres "ALTER DATABASE shard$i SET voiding.workers = 0"
		places="$places${places:+, }p$i 'host=$PGHOST port=$PGPORT dbname=shard$i'"
	done
	createdb router
	value router "CREATE EXTENSION plproxy; CREATE SERVER voiding FOREIGN DATA WRAPPER plproxy OPTIONS ($places); CREATE USER MAPPING FOR PUBLIC SERVER voiding"
	psql -Xq -v ON_ERROR_STOP=1 -d router -f example/router/router.sql || fail 'router.sql failed'
	[ -z "$(value router 'SELECT * FROM router.check()')" ] || fail 'the router is not well'
}

# a customer of the first shard, and a command that has ended there
make_calls() {
	local id
	customer=$(value router "SELECT min(i) FROM generate_series(1, 100) i WHERE router.place('c' || i) & 3 = 0")
	id=$(value router "SELECT voiding.send_command('IssueDocument', '{\"document_id\": \"first\", \"customer_id\": \"c$customer\", \"amount\": 1}')")
	while [ "$(value router 'SELECT voiding.dispatch()')" != 0 ]; do :; done
	echo "SELECT status FROM voiding.command_status('$id');" >build/router_get.pgbench
	echo "SELECT status FROM voiding.command_status('$id', 'c$customer');" >build/router_get_keyed.pgbench
	printf '%s\n' '\set n random(1, 1000000000000)' \
		"SELECT document_id FROM billing.issue_document('B' || :n::bigint, 'c$customer', 1);" >build/router_issue.pgbench
	echo 'SELECT count(*) FROM voiding.ongoing_process;' >build/router_all.pgbench
}

router_block() {                      # NAME DATABASE SCRIPT CLIENTS ROUND
	pgbench -n -M prepared -f "build/router_$3.pgbench" -c "$4" -j "$(($4 < cores ? $4 : cores))" -T "$router_seconds" "$2" >build/pgbench.out 2>&1 ||
		{ cat build/pgbench.out >&2; fail 'pgbench failed'; }
	awk -v head="router.$1 $4 $5" '$1 == "tps" { print head, $3 }' build/pgbench.out >>"$runs"
}

measure_router() {
	local round c i
	[ -e "$("$PG_CONFIG" --sharedir)/extension/plproxy.control" ] || fail 'PL/Proxy is missing'
	make_router
	make_calls
	for ((round = 1; round <= router_rounds; round++)); do
		for c in $router_clients; do
			router_block get shard0 get $c $round
			router_block get_keyed router get_keyed $c $round
			router_block get_found router get $c $round
			router_block issue shard0 issue $c $round
			router_block issue_keyed router issue $c $round
		done
		router_block all router all 1 $round
	done
	for i in 0 1 2 3; do dropdb -f shard$i; done
	dropdb -f router
}

# what a call takes longer, in ms, with one client: the difference of the medians
router_ms() { awk -v a="$(figure "router.$1" 1 4)" -v b="$(figure "router.$2" 1 4)" 'BEGIN { print 1000 / b - 1000 / a }'; }

report_router() {
	local c
	say 'ROUTER: calls through PL/Proxy beside the same calls to the shard, 4 shards'
	say
	for c in $router_clients; do
		say "  $(cell_clients "$c")"
		line 'command_status(): the shard, per second' 9.0f "$(figure router.get $c 4)"
		line '  router, id and key: rate, to that' 9.2f "$(ratio router.get_keyed router.get $c)"
		line '  router, id alone: rate, to that' 9.2f "$(ratio router.get_found router.get $c)"
		line 'issue_document(): the shard, per second' 9.0f "$(figure router.issue $c 4)"
		line '  router: rate, to that' 9.2f "$(ratio router.issue_keyed router.issue $c)"
	done
	line 'ms more a call, id and key' 9.2f "$(router_ms get get_keyed)"
	line 'ms more a call, id alone' 9.2f "$(router_ms get get_found)"
	line 'ms more a call, issue_document()' 9.2f "$(router_ms issue issue_keyed)"
	line 'a view of all shards, per second' 9.0f "$(figure router.all 1 4)"
	say
	say '  With an id alone all shards are asked first which of them has it. The servers of a real cluster have cores of'
	say '  their own; what is measured here at 16 clients is how much CPU a call takes more, not how slow it is.'
	say
}
