# throughput.sh: voids per second, and what one of them costs. Sourced.

name_of() {                           # VARIANT
	case $1 in
	commit) echo 'one-row commit' ;;
	request) echo 'hand, the request alone' ;;
	three) echo 'hand, three transactions' ;;
	one) echo 'hand, one transaction' ;;
	drain) echo 'hand, a worker, one by one' ;;
	drain_sets) echo 'hand, a worker, sets of 100' ;;
	drainone) echo 'hand, one transaction, 16 clients' ;;
	*1) echo 'voiding, 1 worker' ;;
	*) echo "voiding, ${1//[a-z]/} workers" ;;
	esac
}

measure_throughput() {
	local round c v
	for ((round = 1; round <= rounds; round++)); do
		for c in $clients; do
			for v in commit request three one $voidings; do
				run "$v" "$c" $round "${size[$c]}"
			done
		done
	done
}

# a line with a cell for each number of clients: what COMMAND says of it
cells() {                             # NAME FORMAT COMMAND...
	local name=$1 format=$2 c values=()
	shift 2
	for c in $clients; do values+=("$("$@" "$c")"); done
	line "$name" "$format" "${values[@]}"
}

cell_clients() { echo "$1 client$([ "$1" = 1 ] || echo s)"; }
cell_size() { echo "${size[$1]}"; }
cell_rate() { figure "$1" "$2" 4; }
cell_open() { figure "$1" "$2" 5; }

report_throughput() {
	local v
	say "THROUGHPUT, clients at full speed: per second, median of $rounds rounds"
	say
	cells '' 11s cell_clients
	cells 'voids in each run' 11d cell_size
	for v in commit request three one $voidings; do
		cells "$(name_of "$v")" 11.0f cell_rate "$v"
	done
	for v in $voidings; do
		cells "$(name_of "$v") / hand, three" 11.2f ratio "$v" three
		cells "$(name_of "$v") / hand, one" 11.2f ratio "$v" one
		cells "$(name_of "$v"), open at end*" 11.0f cell_open "$v"
	done
	say
	say '  Rates of voiding count until the last process has ended, and all had. Ratios are medians of the'
	say '  ratios of each round.  * processes that had not ended when the clients were done'
	say
}

# what the server did for each void of a run
costs() {                             # CLIENTS VARIANT...
	local c=$1 v k values
	shift
	line '' 9s inserted updated deleted 'WAL bytes' 'full pgs' commits flushes 'CPU us'
	for v; do
		values=()
		for k in 6 7 8 9 10 11 12 13; do values+=("$(figure "$v" "$c" $k | awk '{ printf $1 < 100 ? "%.2f" : "%.0f", $1 }')"); done
		line "$(name_of "$v")" 9s "${values[@]}"
	done
	say
}

report_costs() {
	local c=${clients##* }
	say "COST OF ONE VOID at $c clients: what the server did for each, median of $rounds rounds"
	say
	costs "$c" request three one $voidings
}
