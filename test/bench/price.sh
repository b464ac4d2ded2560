# price.sh: what capturing its changes costs a caller, beside writing the same
# events by hand. Sourced.
#
# By hand: "two" statements in one round trip, and "one". Captured, with who is
# there: "alone", nobody listens and no worker runs; "heard", a session LISTENs;
# "told", that and a worker. In each of these states blocks of transactions
# alternate, two one captured, two one captured, ... A block is noted as
# CHANGE.WAY.STATE, CHANGE being "change" (of a row) or "add".
#
# And "served", a service that the worker delivers each event to: that is a row
# of the outbox more, and the delivery. There is no limit to hold it against.

listener=
price_states='alone heard told'

price_settings() {
	price_clients='1 32'
	bulk=100000 bulk_rounds=$((quick ? 1 : 3))
	declare -gA price_rounds=([1]=$((quick ? 3 : 7)) [32]=$((quick ? 1 : 3)))
	declare -gA price_size=([1]=$((quick ? 200 : 400)) [32]=$((quick ? 2400 : 4800)))
}

way_name() {                          # WAY.STATE
	case $1 in
	two.*) echo 'hand, two statements' ;;
	one.*) echo 'hand, one statement' ;;
	*) echo 'voiding' ;;
	esac
}

state_name() {
	case $1 in
	alone) echo 'nobody listens, no worker' ;;
	heard) echo 'a session LISTENs, no worker' ;;
	told) echo 'a session LISTENs, a worker runs' ;;
	served) echo 'and the worker delivers each event, for comparison' ;;
	esac
}

# ---- who is there ----

# a session that reads at once what it is told
start_listener() {
	{ echo 'LISTEN voiding_event; LISTEN voiding_process; LISTEN voiding_audience;'
	  yes 'SELECT pg_sleep(0.05) \g /dev/null'; } 2>/dev/null | PGAPPNAME=listener psql -XAtq -d voiding >build/listener.out 2>&1 &
	listener=$!
}

stop_listener() {
	[ -n "$listener" ] || return 0
	value voiding "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'listener'" >/dev/null
	wait "$listener" 2>/dev/null || true
	listener=
	grep -q 'notification "voiding_event"' build/listener.out || fail 'the listener was told nothing'
}

enter() {                             # STATE EVENT
	[ "$1" = alone ] || start_listener
	[ "$1" != served ] || value voiding "SELECT voiding.subscribe('$2', 'audience.hear', takes_set => true)" >/dev/null
	case $1 in told | served) value voiding 'SELECT voiding.start_workers(1)' >/dev/null ;; esac
	value voiding CHECKPOINT
}

leave() {                             # STATE EVENT
	case $1 in told | served) value voiding 'SELECT voiding.stop_workers()' >/dev/null ;; esac
	stop_listener
	[ "$1" != served ] || value voiding "SELECT voiding.unsubscribe('$2', 'audience')" >/dev/null
}

# each event was delivered, if it had to be
check_delivered() {                   # STATE N
	case $1 in told | served) finish voiding ;; esac
	[ "$1" = served ] || return 0
	[ "$(value voiding 'SELECT count(*) FROM audience.heard')" = "$2" ] || fail 'not all events were delivered'
	value voiding 'TRUNCATE audience.heard'
}

# ---- runs ----

price_load() {                        # CHANGE WAY CLIENTS N
	local database=voiding
	local -A next
	[ "$2" = captured ] || database=hand
	next[$database]=$((price_next[$1] + $4))
	load $database "$1_$2" "$3" "$4"
}

# the next rows: those to change are 1 to 100000, again and again
price_advance() {                     # CHANGE N
	price_next[$1]=$((price_next[$1] + $2))
	[ "$1" = add ] || [ $((price_next[$1] + $2)) -le 100000 ] || price_next[$1]=1
}

# pgbench's rate is without the time of connecting
price_block() {                       # CHANGE WAY STATE CLIENTS ROUND
	local n=${price_size[$4]}
	price_load "$1" "$2" "$4" "$n"
	awk -v head="$1.$2.$3 $4 $5" '$1 == "tps" { print head, $3 }' build/pgbench.out >>"$runs"
	[ "$2" != captured ] || check_delivered "$3" "$n"
}

price_blocks() {                      # CHANGE EVENT STATE WAY...
	local change=$1 event=$2 state=$3 c round way
	shift 3
	enter $state "$event"
	for c in $price_clients; do
		for ((round = 1; round <= price_rounds[$c]; round++)); do
			for way; do price_block $change "$way" $state "$c" $round; done
			price_advance $change "${price_size[$c]}"
		done
	done
	leave $state "$event"
}

# what the server does for each of 32 clients' changes; nobody else is in the
# database when that is read
price_counted() {                     # WAY STATE
	local database=voiding n=${price_size[32]} before start
	[ "$1" = captured ] || database=hand
	value $database CHECKPOINT
	before=$(counters $database)
	start=$(now)
	enter "$2" ItemChanged
	price_load change "$1" 32 "$n"
	check_delivered "$2" "$n"
	leave "$2" ItemChanged
	note_run "counted.$1.$2" 32 1 "$n" $(($(now) - start)) 0 "$before" "$(counters $database)"
}

# rows per second of one statement
bulk_run() {                          # WAY DATABASE TABLE ROUND
	value "$2" "TRUNCATE $3"
	value "$2" CHECKPOINT
	printf '%s\n' '\timing on' "INSERT INTO $3 (item_id, name, amount)
		SELECT i, 'item ' || i, i % 100000 / 100.0 FROM generate_series(1, $bulk) i;" |
		psql -XAtq -v ON_ERROR_STOP=1 -d "$2" |
		awk -v head="bulk.$1 0 $4" -v n="$bulk" '$1 == "Time:" { print head, n * 1000 / $2 }' >>"$runs"
}

# what is written has to be the same, up to ids, times and amounts
compare_events() {
	local side
	for side in hand voiding; do
		value $side "SELECT DISTINCT type, source, subject, correlation_id = event_id, causation_id, data - '{amount,changed_at}'::text[],
				data ?& '{amount,changed_at}', actor, process_id, steps
			FROM $side.event WHERE type IN ('ItemChanged', 'ItemAdded') AND subject::bigint <= $bulk ORDER BY 1, 3" >build/events.$side
	done
	[ -s build/events.hand ] && cmp -s build/events.hand build/events.voiding || fail 'the events of both sides are not the same'
}

measure_price() {
	local s round
	declare -gA price_next=([change]=1 [add]=1000001)
	psql -Xq -v ON_ERROR_STOP=1 -d hand -f test/bench/price_hand.sql >/dev/null
	psql -Xq -v ON_ERROR_STOP=1 -d voiding -f test/bench/price_voiding.sql >/dev/null
	for s in $price_states; do price_blocks change ItemChanged $s two one captured; done
	price_blocks change ItemChanged served one captured
	price_blocks add ItemAdded alone one captured
	price_counted one alone
	for s in $price_states served; do price_counted captured $s; done
	for ((round = 1; round <= bulk_rounds; round++)); do
		bulk_run plain hand plain_item $round
		bulk_run trigger hand captured_item $round
		bulk_run captured voiding captured_item $round
	done
	compare_events
}

# ---- report ----

price_rate() { figure "$1" "$2" 4; }

# the cheaper way by hand
best_by_hand() {                      # CHANGE STATE CLIENTS
	awk -v two="$(price_rate "$1.two.$2" "$3")" -v one="$(price_rate "$1.one.$2" "$3")" 'BEGIN { print (two > one ? "two" : "one") }'
}

verdict() {                           # RATIO LIMIT
	[ -n "$1" ] || fail 'no figure to judge'
	awk -v is="$1" -v may="$2" 'BEGIN { printf "%.2f %s\n", is, is <= may ? "holds" : "missed" }'
}

price_of() {                          # CHANGE STATE CLIENTS
	verdict "$(ratio "$1.$(best_by_hand "$@").$2" "$1.captured.$2" "$3")" 1.25
}

# microseconds that an event of a bulk costs: with events less without, in a round
bulk_cost() {                         # WAY [WAY: divided by that of this one]
	awk -v a="bulk.$1" -v b="bulk.${2:-}" '$1 == "bulk.plain" { p[$3] = 1e6 / $4 } $1 == a { x[$3] = 1e6 / $4 } $1 == b { y[$3] = 1e6 / $4 }
		END { for (r in p) print (x[r] - p[r]) / (y[r] ? y[r] - p[r] : 1) }' "$runs" | median
}

report_rates() {                      # CHANGE STATE WAY...
	local change=$1 state=$2 way clients=$price_clients
	shift 2
	for way; do cells "  $(way_name "$way.")" 13.0f price_rate "$change.$way.$state"; done
}

report_blocks() {                     # CHANGE STATE WAY...
	local clients=$price_clients
	report_rates "$@"
	cells '  voiding: price*' 13s price_of "$1" "$2"
}

report_price() {
	local s w clients=$price_clients
	say 'PRICE of capture: transactions that change one row and write its event, per second'
	say
	cells '' 13s cell_clients
	for s in $price_states; do
		say "  $(state_name $s)"
		report_blocks change $s two one captured
	done
	say '  a row is added; nobody listens, no worker'
	report_blocks add alone one captured
	say "  $(state_name served)**"
	report_rates change served one captured
	say
	say '  * how many times what the cheaper way by hand takes: median of the rounds; it may be 1.25'
	say '  ** each event is also put into the outbox and delivered, on the same cores; by hand it is not'
	say
	report_price_costs
	say "BULK: one statement adds $bulk rows: microseconds for each row"
	say
	line 'no events' 13.2f "$(figure bulk.plain 0 4 | awk '{ print 1e6 / $1 }')"
	line 'the events, by hand, statement trigger' 13.2f "$(bulk_cost trigger)"
	line 'the events, by voiding' 13.2f "$(bulk_cost captured)"
	line 'voiding: times by hand, may be 1.3' 13s "$(verdict "$(bulk_cost captured trigger)" 1.3)"
	say
}

report_price_costs() {
	local v k values
	say 'COST OF ONE CHANGE at 32 clients: what the server did for each, delivery included'
	say
	line '' 9s inserted updated deleted 'WAL bytes' 'full pgs' commits flushes 'CPU us'
	for v in one.alone $(printf 'captured.%s ' $price_states served); do
		values=()
		for k in 6 7 8 9 10 11 12 13; do values+=("$(figure counted.$v 32 $k | awk '{ printf $1 < 100 ? "%.2f" : "%.0f", $1 }')"); done
		line "$(way_name $v)$(case $v in captured*) echo ", ${v#*.}" ;; esac)" 9s "${values[@]}"
	done
	say
}
