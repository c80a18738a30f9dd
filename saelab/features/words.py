"""The index's words, each with its definition, once: pages, help and exports show these."""

UNSEEN = "not one firing on the tokens that the index read"
DEAD = (
    "in training: not one firing on the last `dead_window` training tokens; in a report: on the "
    "number of training tokens that it states"
)
DENSITY = "share of the tokens that the index read on which the feature fired (value not 0)"
SELECTIVITY = "share of the feature's activation (of that sign) that lies on the token"
COVERAGE = "share of the token's occurrences on which the feature fires (with that sign)"
SCORE = "selectivity x coverage"
INTEREST = (
    "strength x surprise x breadth x support: mean |activation| where it fires over the mean of "
    "that over features; log2(1 / density) bits; log2(1 + 2^H), H the entropy of the tokens under "
    "its activation in bits; n / (n + 20) for n firings"
)
BANDS = (
    "all firings of that sign, ordered by activation and cut into {} equal parts; a sample of each"
)
TOP = "the contexts in which its activation gets highest"
COPIES = "near-duplicates: the same tokens up to the activation, or nearly the same around it"
JACCARD = "of the tokens on which either of the two fires, the share on which both do"
PMI = "log2 of how many times more often than by chance the two fire together"
STABLE = (
    "share of the other seeds that have the feature, one to one: by cosine of decoder rows, or by "
    "correlation of activations, above 0.7"
)
SUBSPACE = (
    "share of the squared norm of the feature and those that fire most with it that lies in the "
    "span of as many features of another seed, those that fire most with them; mean over seeds"
)
START = "cosine of the decoder row with the random one that training began with"
NEIGHBOUR = "cosine of decoder rows"
HEADS = "norm of the decoder row's part for the head, over the sum of such norms"
HOOKS = "norm of what the decoder row writes to the hook, over the sum of such norms"
MAP = {
    "t-SNE": "decoder directions by t-SNE (cosine): near ones stay near, far distances mean little",
    "PCA": "decoder directions in the plane of their two largest principal components",
}
