# Read a file of documents, say what is wrong with it, and add up its amounts
# by currency, without PostgreSQL: "CURRENCY SUM DOCUMENTS", a line for each.
# Whole and decimal parts are added apart, so that every digit is exact.

function fail(what) {
	printf "line %d: %s\n", first, what > "/dev/stderr"
	failed = 1
	exit 1
}

# the fields of a record into f[1..]; returns how many, -1: a quote is open
function split_record(s, f,    n, i, c, quoted, field) {
	n = 0; field = ""; quoted = 0
	for (i = 1; i <= length(s); i++) {
		c = substr(s, i, 1)
		if (quoted && c == "\"" && substr(s, i + 1, 1) == "\"") { field = field c; i++ }
		else if (c == "\"") quoted = !quoted
		else if (c == "," && !quoted) { f[++n] = field; field = "" }
		else field = field c
	}
	if (quoted)
		return -1
	f[++n] = field
	return n
}

function document(    n, p, whole, part) {
	n = split_record(record, f)
	if (n == -1)
		return 0
	if (!header) {
		header = 1
		if (record != "document_id,customer_id,amount,currency,issued_at")
			fail("the first line must be document_id,customer_id,amount,currency,issued_at")
		return 1
	}
	if (n != 5)
		fail("there are " n " columns, not 5")
	if (f[1] == "" || f[2] == "")
		fail("document_id or customer_id is empty")
	if (f[3] !~ /^[0-9]+(\.[0-9]+)?$/)
		fail("the amount \"" f[3] "\" is not a number of 0 or more, such as 12.50")
	p = index(f[3], ".")
	whole = p ? substr(f[3], 1, p - 1) : f[3]
	part = p ? substr(f[3], p + 1) : ""
	if (length(whole) > 12 || length(part) > 6)
		fail("the amount \"" f[3] "\" has too many digits for this demo: 12 before, 6 behind the point")
	wholes[f[4]] += whole
	parts[f[4]] += substr(part "000000", 1, 6)
	documents[f[4]]++
	total++
	return 1
}

{
	sub(/\r$/, "")
	if (record == "") first = NR
	record = record == "" ? $0 : record "\n" $0
	if (record != "" && document()) record = ""
}

END {
	if (failed)
		exit 1
	if (record != "")
		fail("a quoted field does not end")
	first = NR + 1
	if (!total)
		fail("there are no documents")
	for (c in wholes) {
		carry = int(parts[c] / 1000000)
		printf "%s %.0f.%06d %d\n", c, wholes[c] + carry, parts[c] - carry * 1000000, documents[c]
	}
}
