"""What the index's writer and its reader agree on: tables, records, histogram bins, how many of
what are kept.

A number per feature stands in `array`, a column whole, as one blob: a list is ordered and filtered
without reading any feature. What a feature has several of stands in its row of `feature`, each list
as one blob of records; a token's row lists the features at home on it, a context's row the examples
in it. Of these a feature's, a context's and its ids are packed, see `packing`; a token's, which a
search reads by the thousand, are not. Blobs are little-endian. A context's text is the join of its
tokens' texts, see `spelling.spell`; it is stored as ids, and once more case folded, to be searched.
"""

import numpy as np

SCHEMA = "saelab/features/6"
# Histogram: quarters of octaves of |value|, from 2^-16 to 2^16; the first and last are open.
PER_OCTAVE = 4
LOWEST, HIGHEST = -16, 16
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
N_TOKENS = 10  # strongest tokens by total, and by mean, of each sign
N_LISTED = 5  # of them, in the table
N_FEATURES = 50  # features listed per token
N_LOGITS = 10  # promoted, and suppressed, tokens per feature
N_NEIGHBOURS = 8  # nearest features, and features that fire together
MIN_SEEN = 5  # occurrences a token needs before its mean activation is ranked
N_TOP = 12  # contexts of highest peak, of each sign
N_BANDS, PER_BAND = 4, 3  # quantile bands of the firings of each sign, and examples of each
MORE = -2  # band of an example that is a place alone, to be read from the cache
TOP = -1  # band of a context of highest peak

EXAMPLE = np.dtype(
    [
        ("sign", "i1"),
        ("band", "i1"),
        ("context", "<i4"),
        ("position", "<i4"),
        ("value", "<f4"),
        ("copies", "<i4"),
        ("pairs", "<i4"),  # how many of the feature's PAIR records are this example's
    ]
)
ID = np.dtype("<i4")  # of a token
PAIR = np.dtype([("position", "<i4"), ("value", "<f4")])
STRONG = np.dtype(
    [
        ("sign", "i1"),
        ("by_total", "i1"),  # rank; N_TOKENS and more: not among them
        ("by_mean", "i1"),
        ("token", "<i4"),
        ("total", "<f8"),
        ("fired", "<i4"),
        ("selectivity", "<f4"),
        ("coverage", "<f4"),
    ]
)
HOME = np.dtype([("feature", "<i4"), ("sign", "i1"), ("selectivity", "<f4"), ("coverage", "<f4")])
LOGIT = np.dtype([("token", "<i4"), ("value", "<f4")])
NEIGHBOUR = np.dtype([("feature", "<i4"), ("cosine", "<f4")])
COFIRING = np.dtype([("feature", "<i4"), ("both", "<i4"), ("jaccard", "<f4"), ("pmi", "<f4")])
BAR = np.dtype([("bin", "<i4"), ("fired", "<i4")])
PLACE = np.dtype([("feature", "<i4"), ("position", "<i4"), ("value", "<f4")])

# What a feature has several of, by its column in the table `feature`.
LISTS = {
    "tokens": STRONG,
    "logits": LOGIT,
    "neighbours": NEIGHBOUR,
    "cofiring": COFIRING,
    "histogram": BAR,
    "heads": np.dtype("<f4"),
    "examples": EXAMPLE,
    "pairs": PAIR,
}
TABLES = """
create table meta (key text primary key, value text) without rowid;
create table array (name text primary key, dtype text, shape text, entries blob);
create table document (id integer primary key, name text);
create table token (
    id integer primary key, text text, bytes blob, seen integer, features blob, promoted blob
);
create table context (
    id integer primary key, first integer, tokens blob, documents text, examples blob, text text
);
create table feature (
    id integer primary key, {lists}
);
""".format(lists=", ".join(f"{name} blob" for name in LISTS))
