"""The verbs of the `saelab` command, in groups; importing this imports none of them."""

import difflib
import keyword
from collections.abc import Iterable
from typing import NamedTuple


class Verb(NamedTuple):
    """A row of `saelab --help`."""

    group: str
    """one of GROUPS"""
    does: str
    """what it does, in a few words"""


START, TRAIN, EXPLORE, EXPLAIN, EXCHANGE, CHECK = GROUPS = (
    "start",
    "train and evaluate",
    "explore",
    "explain the model",
    "exchange",
    "check",
)

# Listed group by group; a verb is a row here and a module of its name.
VERBS = {
    "demo": Verb(START, "run the whole main job on the bundled model and open the browser"),
    "capture": Verb(TRAIN, "run a model over text and write an activation cache"),
    "train": Verb(TRAIN, "train an SAE on a cache"),
    "eval": Verb(TRAIN, "measure an SAE: reconstruction, sparsity, effect on the model's loss"),
    "index": Verb(EXPLORE, "build the feature index the browser reads"),
    "explain": Verb(EXPLORE, "say in words what makes features fire, and how well that tells"),
    "compare": Verb(EXPLORE, "say which features SAEs share, and which SAE is better in what"),
    "prompt": Verb(EXPLORE, "take one's own text apart: features, effects, the next token"),
    "steer": Verb(EXPLORE, "continue a text with features scaled, clamped, ablated or added"),
    "browse": Verb(EXPLORE, "open the feature browser"),
    "graph": Verb(EXPLAIN, "trace which features make a model continue a prompt as it does"),
    "circuits": Verb(EXPLAIN, "find the heads that carry out a task, and compare with the truth"),
    "supervise": Verb(EXPLAIN, "compare SAEs with supervised dictionaries on a task"),
    "dark-matter": Verb(EXPLAIN, "split what SAEs miss into linear and nonlinear error"),
    "import": Verb(EXCHANGE, "take a published SAE over into a run"),
    "export": Verb(EXCHANGE, "write SAEs as other tools read them"),
    "info": Verb(EXCHANGE, "say what a folder or file is, and whether it is whole"),
    "compress": Verb(EXCHANGE, "write a model's matrices as factors, and say what that costs it"),
    "reproduce": Verb(CHECK, "measure a paper's claims and say which hold"),
    "bench": Verb(CHECK, "time a training step on this machine"),
}


def usage() -> str:
    """The text of `saelab --help`."""
    groups = "\n\n".join(f"{group}:\n{_members(group)}" for group in GROUPS)
    return f"usage: saelab VERB [options]\n\n{groups}\n\n`saelab VERB --help` lists its options."


def _members(group: str) -> str:
    rows = ((name, verb.does) for name, verb in VERBS.items() if verb.group == group)
    return "\n".join(f"  {name:12} {does}" for name, does in rows)


def module_of(verb: str) -> str:
    """The name of a verb's module."""
    return f"{verb}_" if keyword.iskeyword(verb) else verb.replace("-", "_")


def unknown(word: str) -> str:
    """What is wrong with a word that is no verb, and what may have been meant."""
    near = nearest(word, VERBS)
    if near:
        return f"no verb {word!r}: did you mean {near}? `saelab --help` lists them all"
    return f"no verb {word!r}; there are {', '.join(VERBS)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is spelt most like another; "" if none is like it.

    >>> nearest("trian", VERBS)
    'train'
    """
    return next(iter(difflib.get_close_matches(word, list(known), 1, 0.6)), "")
