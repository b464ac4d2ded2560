# instance.sh: a private throw-away PostgreSQL with this extension. Sourced.
#
#   build_private       build the tree here and install it into a private PostgreSQL
#   start_instance [CONF]  start a server on a socket; sets PGHOST, PGPORT, PGUSER; CONF: lines
#                       for postgresql.conf, which override those here
#   stop_instance
#   serve DB            let workers serve a database, as many as SERVED says
#
# Everything lives below ./build; nothing listens on a network. From the
# environment: SERVED=n, n workers serve what can be served, and a database
# that keeps them busy is there; PRELOAD=1, the library is preloaded, and its
# launcher starts the workers.

served=${SERVED:-0}
preload=${PRELOAD:-0}

build_private() {
	tree=$PWD
	rm -rf build/pg
	mkdir -p build
	bin=$(script/pgtree "$tree/build/pg")
	PATH=$bin:$PATH
	export PATH PG_CONFIG="$bin/pg_config"
	make -s all install PG_CONFIG="$PG_CONFIG" ${VOIDING_SANITIZE:+COPT="-fsanitize=address,undefined -fno-sanitize-recover"} >build/make.log 2>&1 ||
		{ cat build/make.log >&2; return 1; }
}

worker_settings() {
	if [ "$preload" = 0 ]; then
		echo "voiding.workers = 0"
		return
	fi
	cat <<-EOF
		shared_preload_libraries = 'voiding'
		voiding.databases = 'busy, regress_voiding, regress_isolation, regress_pgtap'
		voiding.workers = $served
	EOF
}

start_instance() {
	export PGHOST="$tree/build" PGPORT=5432 PGUSER=postgres
	unset PGDATABASE PGSERVICE PGOPTIONS PGHOSTADDR PGSERVICEFILE PGPASSFILE
	# who dispatches by hand is not told that nobody serves his database
	[ "$preload" = 0 ] || export PGOPTIONS='-c voiding.workers=0'
	stop_instance               # one that was killed may have left its server
	rm -rf build/data
	initdb -D build/data -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >build/initdb.log 2>&1 ||
		{ cat build/initdb.log >&2; return 1; }
	cat >>build/data/postgresql.conf <<-EOF
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		fsync = off
		max_prepared_transactions = 10
		max_connections = 50
		max_worker_processes = 32
		timezone = 'UTC'
		$(worker_settings)
		${1:-}
	EOF
	pg_ctl -D build/data -l build/server.log -w start >/dev/null ||
		{ cat build/server.log >&2; return 1; }
	[ "$served" = 0 ] || start_busy
}

stop_instance() {
	pg_ctl -D build/data -m immediate -w stop >/dev/null 2>&1 || true
}

# with the library preloaded they come by themselves
serve() {
	[ "$served" -gt 0 ] || return 0
	if [ "$preload" = 0 ]; then
		psql -XAtq -d "$1" -c "SELECT voiding.start_workers($served)" >/dev/null
		return
	fi
	psql -XAtq -d "$1" <<-EOF
		\set ON_ERROR_STOP on
		DO \$\$ BEGIN
		  FOR i IN 1 .. 3000 LOOP
		    IF (SELECT count(pid) = $served FROM voiding.worker) THEN RETURN; END IF;
		    PERFORM pg_sleep(0.01);
		  END LOOP;
		  RAISE 'the preloaded launcher has not started $served workers for this database';
		END \$\$
	EOF
}

start_busy() {
	createdb busy && psql -XAtq -v ON_ERROR_STOP=1 -d busy -f test/lib/busy.sql >/dev/null && serve busy
}

# what went on beside the tests went on to the end, and is right
busy_is_right() {
	local breaches
	breaches=$(psql -XAtq -d busy -c "SELECT 'wheel stands still', name FROM mill.wheel WHERE turns < 2" \
		-c "SELECT 'workers', count(pid) FROM voiding.worker HAVING count(pid) <> $served" \
		-c "SELECT 'dead letter', error FROM voiding.dead_letter" -c "SELECT * FROM voiding.check_invariants()" 2>&1)
	[ -z "$breaches" ] || { echo "the busy database: $breaches" >&2; return 1; }
}
