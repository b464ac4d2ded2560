# instance.sh: a private throw-away PostgreSQL with this extension. Sourced.
#
#   build_private       build the tree here and install it into a private PostgreSQL
#   start_instance [CONF]  start a server on a socket; sets PGHOST, PGPORT, PGUSER; CONF: lines
#                       for postgresql.conf, which override those here
#   stop_instance
#
# Everything lives below ./build; nothing listens on a network.

build_private() {
	tree=$PWD
	mkdir -p build
	bin=$(script/pgtree "$tree/build/pg")
	PATH=$bin:$PATH
	export PATH PG_CONFIG="$bin/pg_config"
	make -s all install PG_CONFIG="$PG_CONFIG" ${VOIDING_SANITIZE:+COPT="-fsanitize=address,undefined -fno-sanitize-recover"} >build/make.log 2>&1 ||
		{ cat build/make.log >&2; return 1; }
}

start_instance() {
	export PGHOST="$tree/build" PGPORT=5432 PGUSER=postgres
	unset PGDATABASE PGSERVICE PGOPTIONS PGHOSTADDR PGSERVICEFILE PGPASSFILE
	initdb -D build/data -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >build/initdb.log 2>&1 ||
		{ cat build/initdb.log >&2; return 1; }
	cat >>build/data/postgresql.conf <<-EOF
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		fsync = off
		max_prepared_transactions = 10
		max_connections = 50
		timezone = 'UTC'
		voiding.workers = 0
		${1:-}
	EOF
	pg_ctl -D build/data -l build/server.log -w start >/dev/null ||
		{ cat build/server.log >&2; return 1; }
}

stop_instance() {
	pg_ctl -D build/data -m immediate -w stop >/dev/null 2>&1 || true
}
