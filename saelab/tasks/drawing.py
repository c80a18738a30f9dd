"""Five circuit tasks as words: a seeded generator of prompt pairs, clean and corrupted, with the
answers to tell apart.

Indirect object identification (Wang et al. 2022), greater-than (Hanna et al. 2023), docstring
(Heimersheim and Janiak 2023), induction (Olsson et al. 2022), subject-verb agreement (Finlayson et
al. 2021). A corrupted twin keeps the template and every word that the answer does not depend on, so
that what changes between the twins is what the circuit must carry.
"""

import random
from collections.abc import Callable

from saelab.bundled import prompts, templates
from saelab.bundled.prompts import Drawn

N_ARGUMENTS, N_DOCUMENTED = 5, 2
N_SEQUENCE = 18  # words of an induction prompt, both copies together

SUBJECTS = """teacher doctor girl boy farmer writer uncle sister lawyer king friend brother son
cousin driver singer actor poet artist guest worker leader player student neighbor visitor manager
pilot""".split()
ATTRACTORS = "car dog tree door table house desk book key chair river window truck".split()
PREPOSITIONS = ("near", "behind", "beside")
VERBS = {"singular": (" is", " has", " does", " was"), "plural": (" are", " have", " do", " were")}


def ioi(rng: random.Random, held_out: bool) -> Drawn:
    """The twin has three other names, none of them twice: nothing says who receives."""
    index = rng.choice(templates.templates("ioi", held_out))
    first, second, *others = rng.sample(templates.NAMES, 5)
    place, thing = rng.choice(templates.PLACES), rng.choice(templates.OBJECTS)
    giver, _ = rng.sample((first, second), 2)
    twin = dict(zip("ABS", others, strict=True))
    corrupted, _ = prompts.fill(templates.IOI[index], place=place, object=thing, **twin)
    drawn = prompts.ioi(index, first, second, giver, place, thing)
    return drawn._replace(corrupted=corrupted)


def greater_than(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's start year ends in 01, which leaves every later year possible."""
    index = rng.choice(templates.templates("greater-than", held_out))
    year, century = prompts.YEARS[rng.randint(2, 97)], str(rng.randint(11, 19))
    lists = (templates.EVENTS, templates.PLACES, templates.NAMES)
    words = [rng.choice(values) for values in lists]
    twin = prompts.greater_than(index, century, "01", *words)
    return prompts.greater_than(index, century, year, *words)._replace(corrupted=twin.clean)


def docstring(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's argument names are redrawn, in the signature and in the documentation apart:
    neither foretells the other."""
    index = rng.choice(templates.templates("docstring", held_out))
    key = rng.choice([word for word in templates.NOUNS if word not in templates.HELD_OUT_KEYS])
    function = f"{rng.choice(templates.VERBS)}_{rng.choice(templates.NOUNS)}"
    title = " ".join(rng.sample(templates.FILLER, 3))
    remarks = [" ".join(rng.sample(templates.FILLER, 2)) for _ in range(N_DOCUMENTED)]
    names = rng.sample(templates.ARGUMENTS, 2 * N_ARGUMENTS + N_DOCUMENTED)
    own, others = names[:N_ARGUMENTS], names[N_ARGUMENTS : 2 * N_ARGUMENTS]
    same = (index, key, function, title)
    twin = prompts.docstring(*same, others, remarks, listed=names[2 * N_ARGUMENTS :])
    return prompts.docstring(*same, own, remarks)._replace(corrupted=twin.clean)


def induction(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's first copy is another sequence, so that the second repeats nothing."""
    index = rng.choice(templates.templates("induction", held_out))
    keep = rng.randint(4, 8)
    length = N_SEQUENCE - keep
    every = list(dict.fromkeys(templates.NAMES + templates.NOUNS + templates.ARGUMENTS))
    words = rng.sample(every, 2 * length)
    again = words[:keep]
    twin = prompts.induction(index, words[length:], again)
    return prompts.induction(index, words[:length], again)._replace(corrupted=twin.clean)


def agreement(rng: random.Random, held_out: bool) -> Drawn:
    """The twin's subject has the other number; a phrase with a noun of either number stands between
    subject and verb."""
    training = [noun for i, noun in enumerate(SUBJECTS) if i % 4 != 3]
    noun = rng.choice(SUBJECTS[3::4] if held_out else training)
    number = rng.choice(("singular", "plural"))
    subject, other = (noun, f"{noun}s") if number == "singular" else (f"{noun}s", noun)
    attractor = rng.choice(ATTRACTORS) + rng.choice(("", "s"))
    phrase = f"{rng.choice(PREPOSITIONS)} the {attractor}"
    wrong = VERBS["plural" if number == "singular" else "singular"]
    marks = {"subject": len(f"The {subject}") - 1}
    labels = {"number": number, "subject": subject}
    texts = (f"The {subject} {phrase}", f"The {other} {phrase}")
    return Drawn(*texts, VERBS[number], wrong, marks, labels)


GENERATORS: dict[str, Callable[[random.Random, bool], Drawn]] = {
    "ioi": ioi,
    "greater-than": greater_than,
    "docstring": docstring,
    "induction": induction,
    "agreement": agreement,
}
