/*
 * uuid.c
 *	  Ids: version 7 where a conversation begins, derived ones where a second
 *	  process belongs to the same conversation.
 *
 * Both carry the time in their first 48 bits, so that tables partitioned by
 * process id can be purged by age. (A version 5 id would be scattered.)
 * RFC 9562, sections 5.7 and 5.8.
 */
#include "postgres.h"

#include <time.h>

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_uuid);

static void
set_version(pg_uuid_t *u, int version)
{
	u->data[6] = (u->data[6] & 0x0f) | (version << 4);
	u->data[8] = (u->data[8] & 0x3f) | 0x80;
}

/* 8 random bytes; they are drawn many at a time, since each draw is costly */
static void
random_bytes(uint8 *to)
{
	static uint8 drawn[512];
	static size_t left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(drawn, sizeof(drawn)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(drawn);
	}
	left -= 8;
	memcpy(to, drawn + left, 8);
}

/*
 * A version 7 id: milliseconds, then 12 bits of the rest of the millisecond,
 * then random bits. Within a backend each one is larger than the one before.
 */
pg_uuid_t
vd_uuid_new(void)
{
	static uint64 last = 0;
	struct timespec ts;
	uint64		ms;
	uint64		stamp;
	pg_uuid_t	u;

	clock_gettime(CLOCK_REALTIME, &ts);
	ms = (uint64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	stamp = (ms << 12) | (uint64) ((ts.tv_nsec % 1000000) * 4096 / 1000000);
	if (stamp <= last)
		stamp = last + 1;
	last = stamp;

	random_bytes(u.data + 8);
	for (int i = 0; i < 6; i++)
		u.data[i] = (uint8) (stamp >> (52 - 8 * i));
	u.data[6] = (uint8) ((stamp >> 8) & 0x0f);
	u.data[7] = (uint8) (stamp & 0xff);
	set_version(&u, 7);
	return u;
}

/* the time of an id that carries one, in ms since 1970 */
uint64
vd_uuid_ms(const pg_uuid_t *u)
{
	uint64		ms = 0;

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | u->data[i];
	return ms;
}

/*
 * Does the id carry a time, of the years since 2020 up to tomorrow? Others (a
 * random one from a user's column) would be scattered over all partitions.
 */
bool
vd_uuid_has_time(const pg_uuid_t *u)
{
	int			version = u->data[6] >> 4;
	uint64		ms = vd_uuid_ms(u);
	time_t		now = time(NULL);

	return (version == 7 || version == 8) && ms >= UINT64CONST(1577836800000) &&
		ms <= ((uint64) now + 86400) * 1000;
}

/*
 * The id of one more process in a conversation: the same for the same
 * (conversation, type, key), and of the same age. Version 8: the time of the
 * conversation, then SHA-256 over the three.
 */
pg_uuid_t
vd_uuid_derive(const pg_uuid_t *from, const char *type, const char *key)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		hash[PG_SHA256_DIGEST_LENGTH];
	pg_uuid_t	u;

	if (pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, from->data, UUID_LEN) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) type, strlen(type) + 1) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) key, strlen(key)) < 0 ||
		pg_cryptohash_final(ctx, hash, sizeof(hash)) < 0)
		elog(ERROR, "could not compute SHA-256");
	pg_cryptohash_free(ctx);

	memset(u.data, 0, 6);
	if (vd_uuid_has_time(from))
		memcpy(u.data, from->data, 6);
	memcpy(u.data + 6, hash, 10);
	set_version(&u, 8);
	return u;
}

bool
vd_uuid_equal(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
}

char *
vd_uuid_text(const pg_uuid_t *u)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(u)));
}

/*
 * voiding.uuid() RETURNS uuid: a version 7 id.
 */
Datum
voiding_uuid(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *u = palloc(sizeof(pg_uuid_t));

	*u = vd_uuid_new();
	PG_RETURN_UUID_P(u);
}
