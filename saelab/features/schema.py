"""What the index's writer and its reader agree on: schema, histogram bins, how many of what are
kept.

Blobs are little-endian: token ids and positions int32, values float32. A context's text is the join
of its tokens' texts, see `spelling.spell`; it is stored once, as ids, and its full-text index keeps
no copy (contentless FTS5).
"""

SCHEMA = "saelab/features/3"
# Histogram: eighths of octaves of |value|, from 2^-16 to 2^16; the first and last are open.
PER_OCTAVE = 8
LOWEST, HIGHEST = -16, 16
N_TOKENS = 10  # strongest tokens by total, and by mean
N_LISTED = 5  # of them, in the table
MIN_SEEN = 5  # occurrences a token needs before its mean activation is ranked
TABLES = """
create table meta (key text primary key, value text) without rowid;
create table token (id integer primary key, text text, seen integer, bytes blob);
create table document (id integer primary key, name text);
create table context (id integer primary key, tokens blob, documents text);
create table feature (
    id integer primary key, fired integer, density real, mean real, max real, positive real,
    histogram blob, tokens text
);
create table example (
    feature integer, band integer, rank integer, context integer, position integer, peak real,
    positions blob, activations blob, primary key (feature, band, rank)
) without rowid;
create table feature_token (
    feature integer, token integer, total real, mean real, fired integer,
    by_total integer, by_mean integer, primary key (feature, token)
) without rowid;
create table logit (
    feature integer, rank integer, token integer, value real, primary key (feature, rank)
) without rowid;
create table neighbour (
    feature integer, rank integer, other integer, cosine real, primary key (feature, rank)
) without rowid;
create table nearest (
    feature integer, sae integer, other integer, cosine real,
    partner integer, partner_cosine real, primary key (feature, sae)
) without rowid;
create virtual table token_search using fts5(
    text, content='token', content_rowid='id', tokenize='trigram'
);
create virtual table context_search using fts5(text, content='', tokenize='trigram');
"""
INDEXES = """
create index feature_density on feature (density);
create index feature_max on feature (max);
create index example_context on example (context);
create index feature_token_token on feature_token (token);
create index logit_token on logit (token);
insert into token_search (token_search) values ('rebuild');
insert into context_search (context_search) values ('optimize');
analyze;
"""
