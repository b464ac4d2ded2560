# results.sh: what stays of a run, in test/bench/results: the report, the
# figures, a chart. Sourced.

results=$PWD/test/bench/results

# what is printed from here on is the report, too
begin_report() {
	rm -rf "$results"
	mkdir -p "$results"
	exec 3>&1 > >(exec tee "$results/report.txt")
	tee=$!
}

end_report() {
	[ -n "${tee:-}" ] || return 0
	exec 1>&3 3>&-
	wait "$tee" 2>/dev/null || true
	tee=
}

# medians of the rounds
figures_of_runs() {
	local variant clients
	awk '!seen[$1, $2]++ { print $1, $2 }' "$runs" | while read -r variant clients; do
		awk -v v="$variant" -v c="$clients" '
			$1 == v && $2 == c { n++; for (k = 4; k <= NF; k++) x[k, n] = $k; if (NF > fields) fields = NF }
			END {
				split("x x x rate open inserted updated deleted wal full_pages commits flushes cpu", name, " ")
				split("x x x 1/s processes rows/void rows/void rows/void bytes/void 1/void 1/void 1/void us/void", unit, " ")
				for (k = 4; k <= fields; k++) {
					m = 0
					for (i = 1; i <= n; i++) {
						for (j = ++m; j > 1 && y[j - 1] > x[k, i] + 0; j--) y[j] = y[j - 1]
						y[j] = x[k, i] + 0
					}
					printf "%s\t%s\t%s\t%s\t%.6g\n", v, c, name[k], unit[k], (y[int((m + 1) / 2)] + y[int(m / 2) + 1]) / 2
				}
			}' "$runs"
	done
}

latency_names='commit request told told_again'

figures_of_latency() {
	local k=0 name p
	for name in $latency_names; do
		for p in 10 25 50 75 90 95 99 100; do
			printf 'latency.%s\t1\tp%s\tms\t%s\n' $name $p "$(timings $k | percentile "$(awk -v p=$p 'BEGIN { print p / 100 }')")"
		done
		k=$((k + 1))
	done
}

figures_of_memory() {
	local s m
	for s in $sections; do
		m=$(memory_peak "$s")
		[ -z "$m" ] || printf 'memory.%s\t\tmost\tMB\t%s\n' "$s" "$m"
	done
}

write_figures() {
	{
		printf 'variant\tclients\tfigure\tunit\tvalue\n'
		figures_of_runs
		case " $sections " in *' latency '*) figures_of_latency ;; esac
		figures_of_memory
	} >"$results/figures.tsv"
	{
		printf 'target\twhat\tmeasured\tcompared\twanted\tverdict\n'
		cat "$targets"
	} >"$results/targets.tsv"
}

# a line for each number of clients: label, then the rate of each variant
chart_throughput() {
	local c v
	printf 'clients'
	for v in request three one $voidings; do printf '\t%s' "$(name_of $v)"; done
	echo
	for c in $clients; do
		printf '%s' "$(cell_clients "$c")"
		for v in request three one $voidings; do printf '\t%s' "$(figure $v "$c" 4)"; done
		echo
	done
}

# a line for each percentile: label, then each of what was timed
chart_latency() {
	printf 'percentile\tone-row commit\trequest: sent to committed\tcommitted to told that it ended\n'
	awk -F '\t' '$1 ~ /^latency/ { v[$1, $3] = $5; if (!seen[$3]++) p[++n] = $3 }
		END { for (i = 1; i <= n; i++) {
			l = p[i] == "p100" ? "most" : p[i]
			print l "\t" v["latency.commit", p[i]] "\t" v["latency.request", p[i]] "\t" v["latency.told", p[i]] } }' "$results/figures.tsv"
}

# how far beyond (above 1) or short of (below 1) what is wanted
chart_targets() {
	awk -F '\t' 'NR > 1 {
		score = $4 == ">=" ? $3 / $5 : $5 / $3
		printf "%s  %s\t%.3f\t%.2f  (%s %s)\t%d\n", $1, $2, score, $3, $4, $5, $6 == "holds" }' "$results/targets.tsv"
}

draw_chart() {
	command -v gnuplot >/dev/null || { echo 'bench: no gnuplot, no chart' >&2; return 0; }
	: >build/chart.throughput
	: >build/chart.latency
	case " $sections " in *' throughput '*) chart_throughput >build/chart.throughput ;; esac
	case " $sections " in *' latency '*) chart_latency >build/chart.latency ;; esac
	chart_targets >build/chart.targets
	[ -s build/chart.targets ] || return 0
	gnuplot -e "out = '$results/chart.svg'; dir = 'build'; heading = '$heading'" test/bench/chart.gnuplot >&2 ||
		echo 'bench: the chart was not drawn' >&2
}

write_results() {
	write_figures
	draw_chart
}
