# clusters.sh: Billing, Reports and the manager in a cluster each, connected by
# logical replication, beside all of it in one database: how many voids a
# second, and how long one takes. All are on this machine and share its cores.
# Sourced.

declare -A port=([billing]=5441 [reports]=5442 [manager]=5443)

clusters_settings() {
	clusters_voids=$((quick ? 3200 : 16000)) clusters_rounds=$((quick ? 1 : 3))
	clusters_paced=$((quick ? 1000 : 10000)) clusters_next=1
}

on() { PGPORT=${port[$1]} value postgres "$2"; }   # CLUSTER SQL

start_cluster() {                     # NAME
	rm -rf "build/$1"
	initdb -D "build/$1" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >build/initdb.log 2>&1 || fail 'initdb failed'
	{
		server_settings
		cat <<-END
			shared_buffers = 256MB
			max_connections = 100
			listen_addresses = ''
			unix_socket_directories = '$PGHOST'
			port = ${port[$1]}
			timezone = 'UTC'
			wal_level = logical
			wal_writer_delay = 10ms
			max_slot_wal_keep_size = 8GB
			max_worker_processes = 32
			voiding.workers = 1
		END
	} >>"build/$1/postgresql.conf"
	pg_ctl -D "build/$1" -l "build/$1.log" -w start >/dev/null || fail "cluster $1 does not start"
	on "$1" "SET voiding.example = off; CREATE EXTENSION voiding" >/dev/null
	on "$1" "SELECT voiding.start_workers(1)" >/dev/null
}

connect() {                           # HERE THERE ARGUMENTS
	PGOPTIONS='-c client_min_messages=warning' on "$1" "CALL voiding.connect_service('$2', 'host=$PGHOST port=${port[$2]} user=postgres dbname=postgres', '$1'${3:-})"
}

start_clusters() {
	local name round
	for name in billing reports manager; do start_cluster $name; done
	for name in billing reports; do on $name "SELECT voiding.create_document_voiding_part('$name')" >/dev/null; done
	for round in 1 2; do
		connect billing manager ", events => '{DocumentVoidingRequested, DocumentVoided, DocumentVoidingAborted}'"
		connect billing reports ", events => '{DocumentIssued, DocumentVoided, DocumentVoidingAborted}'"
		connect reports billing
		connect reports manager ", events => '{MarkingDocumentAsVoidedSucceeded, MarkingDocumentAsVoidedFailed}'"
		connect manager billing ", commands => '{CompleteDocumentVoiding, AbortDocumentVoiding, RefuseDocumentVoiding}'"
		connect manager reports ", commands => '{MarkDocumentAsVoided}'"
	done
	on manager "SELECT voiding.create_document_voiding_part('process')" >/dev/null
}

stop_clusters() {
	local name
	for name in billing reports manager; do pg_ctl -D "build/$name" -m immediate -w stop >/dev/null 2>&1 || true; done
}

# a count in a cluster, until it is as large as wanted
until_count() {                       # CLUSTER QUERY WANTED
	PGPORT=${port[$1]} value postgres "DO \$\$ BEGIN
		FOR i IN 1 .. 30000 LOOP
			IF ($2) >= $3 THEN RETURN; END IF;
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
		RAISE 'it does not come';
	END \$\$"
}

clusters_issue() {                    # N
	local name
	on billing "INSERT INTO billing.document (document_id, customer_id, amount)
		SELECT 'D' || i, 'C' || i % 1000, 10 FROM generate_series($clusters_next, $((clusters_next + $1 - 1))) i"
	clusters_next=$((clusters_next + $1))
	until_count reports 'SELECT count(*) FROM reports.report_line' $((clusters_next - 1))
	for name in billing reports manager; do on $name VACUUM; on $name CHECKPOINT; done
}

# the last N documents are voided by 16 clients (RATE a second, all at once)
clusters_void() {                     # N [OPTION...]
	PGPORT=${port[billing]} pgbench -n -M prepared -f test/bench/voiding.pgbench -c 16 -j $cores -t $(($1 / 16)) -D first=$((clusters_next - $1)) -D i=0 \
		-D clients=16 "${@:2}" postgres >build/pgbench.out 2>&1 || { cat build/pgbench.out >&2; fail 'pgbench failed'; }
	until_count manager 'SELECT count(*) FROM voiding.finished_process' $((clusters_next - 1))
}

measure_clusters() {
	local round start
	clusters_voids=$((clusters_voids / 16 * 16)) clusters_paced=$((clusters_paced / 16 * 16))
	start_clusters
	for ((round = 1; round <= clusters_rounds; round++)); do
		run voiding1 16 $round $clusters_voids clusters.one
		clusters_issue $clusters_voids
		start=$(now)
		clusters_void $clusters_voids
		echo "clusters.three 16 $round $(awk -v n=$clusters_voids -v us=$(($(now) - start)) 'BEGIN { printf "%.1f", n * 1e6 / us }')" >>"$runs"
	done
	clusters_issue $clusters_paced
	clusters_void $clusters_paced -R 200
	# from the request to the end, by the clock that the clusters share
	on billing "COPY (SELECT correlation_id, recorded_at FROM voiding.event WHERE type = 'DocumentVoidingRequested' ORDER BY position DESC LIMIT $clusters_paced) TO STDOUT" >build/requested
	PGPORT=${port[manager]} psql -XAtq -v ON_ERROR_STOP=1 -d postgres -c 'CREATE TEMP TABLE requested (id uuid, at timestamptz)' -c '\copy requested FROM build/requested' -c "
		SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM p.finished_at - r.at) * 1000)
		  FROM requested r JOIN voiding.finished_process p ON p.process_id = r.id" | tr '{},' '   ' >build/clusters.latency
	[ "$(on billing "SELECT count(*) FROM billing.document WHERE status <> 'voided'")" = 0 ] || fail 'not all documents are voided'
	stop_clusters
}

report_clusters() {
	say "CLUSTERS: Billing, Reports and the manager in a cluster each, 16 clients, median of $clusters_rounds rounds"
	say
	line 'voids a second, one database' 9.0f "$(figure clusters.one 16 4)"
	line 'voids a second, three clusters' 9.0f "$(figure clusters.three 16 4)"
	line '  to one database' 9.2f "$(ratio clusters.three clusters.one 16)"
	line '' 9s p50 p99
	line 'requested to ended at 200/s, ms' 9.2f $(cat build/clusters.latency)
	say
	say '  Requested: the event in Billing, before its commit; ended: the process, at the manager.'
	say
}

targets_clusters() {
	set -- $(cat build/clusters.latency)
	target 8 'three clusters, voids per second, to one database' "$(ratio clusters.three clusters.one 16)" '>=' 0.25
	target 8 'three clusters, requested to ended at 200/s, p50, ms' "$1" '<=' 10
	target 8 'three clusters, requested to ended at 200/s, p99, ms' "$2" '<=' 50
}
