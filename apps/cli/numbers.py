"""Features as they are named on a command line."""

from typing import Annotated

from tyro.conf import arg

from saelab.errors import UsageError

Numbers = Annotated[str, arg(metavar="NUMBERS", help_behavior_hint="")]


def numbers(words: str, n_features: int) -> list[int]:
    """The features that are named, ascending: `7,12,100-120`, or `all`. Raises UsageError for
    others than the SAE has.

    >>> numbers("7,3-5", 64)
    [3, 4, 5, 7]
    """
    if words == "all":
        return list(range(n_features))
    chosen: set[int] = set()
    for word in filter(None, words.replace(" ", "").split(",")):
        first, _, last = word.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise UsageError(f"--features {words}: {word} is no number and no range such as 7-12")
        low, high = int(first), int(last or first)
        if high >= n_features or low > high:
            there = f"this SAE has features 0 to {n_features - 1}"
            raise UsageError(f"--features {words}: there is no {word}; {there}")
        chosen.update(range(low, high + 1))
    return sorted(chosen)
