# targets.sh: what was measured beside what is wanted. Sourced.

targets=$PWD/build/targets            # lines: number, what, measured, how it is compared, wanted, verdict

target() {                            # NUMBER WHAT MEASURED OPERATOR WANTED
	[ -n "$3" ] || fail "no figure for target $1"
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5" \
		"$(awk -v is="$3" -v wanted="$5" -v op="$4" 'BEGIN {
			good = op == ">=" ? is >= wanted : op == "<=" ? is <= wanted : is < wanted
			print good ? "holds" : "missed" }')" >>"$targets"
}

targets_throughput() {
	case " $clients " in *' 16 '*) ;; *) return 0 ;; esac
	target 1 'voids per second, to three transactions by hand' "$(ratio "${voidings%% *}" three 16)" '>=' 2.5
	target 1 'voids per second, to one transaction by hand' "$(ratio "${voidings%% *}" one 16)" '>=' 1.5
}

targets_drain() {
	local v=${voidings%% *}
	target 2 'drained per second, to one transaction by hand' "$(over "$(figure "drain${v#voiding}" 0 4)" "$(figure drainone 16 4)")" '>=' 3
}

# the worst of the states in which a caller may be
targets_price() {
	local c s
	for c in $price_clients; do
		target 3 "captured change, to the same by hand, $c client$([ "$c" = 1 ] || echo s)" "$(for s in $price_states; do
			ratio "change.$(best_by_hand change $s "$c").$s" "change.captured.$s" "$c"
		done | sort -g | tail -1)" '<=' 1.25
	done
	target 3 'event of a bulk, to the best statement trigger' "$(bulk_cost captured trigger)" '<=' 1.3
}

# both to the median of a one-row commit; the wait is told after the process has ended
targets_latency() {
	local commit
	commit=$(timings 0 | percentile 0.5)
	target 4 'request committed to end told, p50, in one-row commits' "$(over "$(timings 2 | percentile 0.5)" "$commit")" '<=' 2
	target 4 'request committed to end told, p99, in one-row commits' "$(over "$(timings 2 | percentile 0.99)" "$commit")" '<=' 10
}

over() { awk -v a="$1" -v b="$2" 'BEGIN { print a / b }'; }

judge() {
	local s
	: >"$targets"
	for s in $sections; do
		! declare -F targets_$s >/dev/null || targets_$s
	done
	sort -s -n -k 1,1 -o "$targets" "$targets"
}

report_targets() {
	say "TARGETS${quick:+ (quick: figures are rough)}"
	say
	awk -F '\t' '{ printf "  %d  %-58s %8.2f   wanted %-2s %-5s %s\n", $1, $2, $3, $4, $5, $6 }' "$targets"
	say
}
