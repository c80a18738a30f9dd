"""Five circuit tasks as words: a seeded generator of prompt pairs, clean and corrupted, with the
answers to tell apart.

Indirect object identification (Wang et al. 2022), greater-than (Hanna et al. 2023), docstring
(Heimersheim and Janiak 2023), induction (Olsson et al. 2022), subject-verb agreement (Finlayson et
al. 2021). A corrupted twin keeps the template and every word that the answer does not depend on, so
that what changes between the twins is what the circuit must carry.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from saelab.bundled import templates

N_ARGUMENTS, N_DOCUMENTED = 5, 2
N_SEQUENCE = 18  # words of an induction prompt, both copies together

SUBJECTS = """teacher doctor girl boy farmer writer uncle sister lawyer king friend brother son cousin driver singer actor poet
artist guest worker leader player student neighbor visitor manager pilot""".split()
ATTRACTORS = "car dog tree door table house desk book key chair river window truck".split()
PREPOSITIONS = ("near", "behind", "beside")
VERBS = {"singular": (" is", " has", " does", " was"), "plural": (" are", " have", " do", " were")}


class Drawn(NamedTuple):
    """A prompt pair in words.

    clean, corrupted: the texts, ending just before the answer. right, wrong: the answers that the
    metric compares, leading space included. marks: name of a position -> index in `clean` of the
    last character of the word that stands there. labels: values of the attributes that this prompt
    was drawn with.
    """

    clean: str
    corrupted: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    marks: dict[str, int]
    labels: dict[str, str]


def _last_letters(word: str, text: str) -> list[int]:
    return [match.end() - 1 for match in re.finditer(rf"\b{re.escape(word)}\b", text)]


def ioi(rng: random.Random, held_out: bool) -> Drawn:
    """The twin has three other names, none of them twice: nothing says who receives."""
    index = rng.choice(templates.templates("ioi", held_out))
    first, second, *others = rng.sample(templates.NAMES, 5)
    place, thing = rng.choice(templates.PLACES), rng.choice(templates.OBJECTS)
    giver, receiver = rng.sample((first, second), 2)
    template = templates.IOI[index]
    clean = template.format(A=first, B=second, S=giver, place=place, object=thing)
    corrupted = template.format(A=others[0], B=others[1], S=others[2], place=place, object=thing)
    marks = {
        "io": _last_letters(receiver, clean)[0],
        "s1": _last_letters(giver, clean)[0],
        "s2": _last_letters(giver, clean)[-1],
    }
    order = "ABB" if receiver == first else "BAB"
    labels = {
        "io": receiver,
        "s": giver,
        "order": order,
        "place": place,
        "object": thing,
        "template": str(index),
    }
    return Drawn(clean, corrupted, (f" {receiver}",), (f" {giver}",), marks, labels)


def greater_than(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's start year ends in 01, which leaves every later year possible."""
    index = rng.choice(templates.templates("greater-than", held_out))
    year, century = rng.randint(2, 97), str(rng.randint(11, 19))
    words = {
        "event": rng.choice(templates.EVENTS),
        "place": rng.choice(templates.PLACES),
        "name": rng.choice(templates.NAMES),
    }
    template = templates.GREATER_THAN[index]
    clean = template.format(century=century, year=f"{year:02d}", **words)
    corrupted = template.format(century=century, year="01", **words)
    years = [f"{y:02d}" for y in range(100)]
    labels = {"year": years[year], "century": century, "template": str(index)}
    marks = {"year": clean.index(century) + len(century) + 1}
    return Drawn(
        clean, corrupted, tuple(years[year + 1 :]), tuple(years[: year + 1]), marks, labels
    )


def docstring(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's argument names are redrawn, in the signature and in the documentation apart:
    neither foretells the other."""
    index = rng.choice(templates.templates("docstring", held_out))
    key = rng.choice([word for word in templates.NOUNS if word not in templates.HELD_OUT_KEYS])
    opening, before, after = (part.replace("{key}", key) for part in templates.DOCSTRING[index])
    function = f"{rng.choice(templates.VERBS)}_{rng.choice(templates.NOUNS)}"
    title = " ".join(rng.sample(templates.FILLER, 3))
    remarks = [
        after.format(words=" ".join(rng.sample(templates.FILLER, 2))) for _ in range(N_DOCUMENTED)
    ]
    names = rng.sample(templates.ARGUMENTS, 2 * N_ARGUMENTS + N_DOCUMENTED)
    arguments, others, documented = (
        names[:N_ARGUMENTS],
        names[N_ARGUMENTS : 2 * N_ARGUMENTS],
        names[2 * N_ARGUMENTS :],
    )

    def text(signature: Sequence[str], lines: Sequence[str]) -> str:
        head = opening.format(head=f"def {function}(self, {', '.join(signature)})", title=title)
        return (
            head
            + "".join(
                f"{before} {name}{remark}" for name, remark in zip(lines, remarks, strict=True)
            )
            + before
        )

    clean, answer = text(arguments, arguments[:N_DOCUMENTED]), arguments[N_DOCUMENTED]
    last = arguments[N_DOCUMENTED - 1]
    start = clean.index("(self, ")
    marks = {"definition": clean.index(f", {answer}", start) + len(answer) + 1}
    marks |= {
        "previous": clean.index(f", {last}", start) + len(last) + 1,
        "documented": clean.rindex(f" {last}") + len(last),
    }
    wrong = tuple(f" {name}" for name in arguments if name != answer)
    return Drawn(
        clean,
        text(others, documented),
        (f" {answer}",),
        wrong,
        marks,
        {"answer": answer, "template": str(index)},
    )


def induction(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's first copy is another sequence, so that the second repeats nothing."""
    index = rng.choice(templates.templates("induction", held_out))
    keep = rng.randint(4, 8)
    length = N_SEQUENCE - keep
    words = rng.sample(
        list(dict.fromkeys(templates.NAMES + templates.NOUNS + templates.ARGUMENTS)), 2 * length
    )
    once, other = (
        "".join(f" {word}" for word in part) for part in (words[:length], words[length:])
    )
    again = "".join(f" {word}" for word in words[:keep])
    before = templates.INDUCTION[index].split("{again}")[0]
    clean = before.format(once=once) + again
    marks = {
        "first": before.index("{once}") + len("".join(f" {word}" for word in words[: keep + 1])) - 1
    }
    wrong = tuple(f" {word}" for word in words[:length] if word != words[keep])
    labels = {"answer": words[keep], "template": str(index)}
    return Drawn(
        clean, before.format(once=other) + again, (f" {words[keep]}",), wrong, marks, labels
    )


def agreement(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's subject has the other number; a phrase with a noun of either number stands between
    subject and verb."""
    noun = rng.choice(
        SUBJECTS[3::4] if held_out else [noun for i, noun in enumerate(SUBJECTS) if i % 4 != 3]
    )
    number = rng.choice(("singular", "plural"))
    subject, other = (noun, f"{noun}s") if number == "singular" else (f"{noun}s", noun)
    attractor = rng.choice(ATTRACTORS) + rng.choice(("", "s"))
    phrase = f"{rng.choice(PREPOSITIONS)} the {attractor}"
    clean = f"The {subject} {phrase}"
    wrong = VERBS["plural" if number == "singular" else "singular"]
    labels = {"number": number, "subject": subject}
    return Drawn(
        clean,
        f"The {other} {phrase}",
        VERBS[number],
        wrong,
        {"subject": len(f"The {subject}") - 1},
        labels,
    )


GENERATORS: dict[str, Callable[[random.Random, bool], Drawn]] = {
    "ioi": ioi,
    "greater-than": greater_than,
    "docstring": docstring,
    "induction": induction,
    "agreement": agreement,
}
