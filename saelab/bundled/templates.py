"""The four circuit tasks of the bundled model: word lists and templates.

Indirect object identification (Wang et al. 2022), greater-than (Hanna et al. 2023), docstring
(Heimersheim and Janiak 2023) and induction (Olsson et al. 2022). Every name, noun and argument name
is one token of the bundled tokenizer when a space precedes it; years are two tokens of two digits
each. The last four templates of each task are held out of language-model training.
"""

from itertools import product
from typing import Literal

Task = Literal["ioi", "greater-than", "docstring", "induction"]
TASKS: tuple[Task, ...] = ("ioi", "greater-than", "docstring", "induction")
# Of training documents; docstrings are four times as long as the others.
SHARES = (0.45, 0.2, 0.2, 0.15)
N_HELD_OUT = 4

NAMES = """
Aaron Adam Alan Alex Alice Amy Andrew Anna Anthony Arthur Ben Brian Bruce Carl Carol Charles Chris
Claire Dan David Diana Edward Ellen Emily Emma Eric Eva Frank Fred George Grace Greg Hannah Harry
Helen Henry Ian Jack Jacob James Jane Jason Jean Jeff Jennifer Jessica Jim Joe John Jonathan Joseph
Julia Karen Kate Keith Kelly Kevin Laura Linda Lisa Louis Lucy Maria Mark Martin Mary Matt Michael
Mike Nancy Neil Nick Oliver Oscar Patrick Paul Peter Rachel Richard Robert Roger Rose Ruth Ryan Sam
Sara Scott Simon Sophie Stephen Steve Susan Tim Tom Tony Victor Walter William
""".split()

OBJECTS = """
apple ball basket bell book bottle bowl box bread brush cake camera card chair clock coat coin cup
desk drum flower fork glass guitar hammer hat jacket key kite knife lamp letter map mirror necklace
pen pencil phone pillow plate ring rope sandwich shirt spoon ticket towel toy umbrella watch
""".split()

PLACES = """
airport bank beach cafe castle church cinema farm forest garden gym hospital hotel house island
kitchen library market mountain museum office park prison restaurant river school shop square
station store street theater tower village zoo
""".split()

NOUNS = OBJECTS + PLACES

EVENTS = """
war battle project journey strike campaign trial siege festival study program contest famine reign
debate voyage drought dispute conflict alliance exhibition experiment marriage tour
""".split()

ARGUMENTS = """
name value path data size index key mode type text file start end step count limit width height
depth color label title url host port user group color weight scale shape axis order level rate
delay buffer format prefix suffix model state token target source input output parent child node
image cache query table column row field result params config options callback handler context
version length offset color timeout encoding message filename default verbose
""".split()
ARGUMENTS = list(dict.fromkeys(ARGUMENTS))

VERBS = """
build check close copy create delete draw fetch find handle join load make merge move open parse
print process read register remove render run save select send set show sort split start store
update wait write
""".split()

FILLER = """
the first used new current optional given number list object string main local extra final internal
external single second required maximum minimum total raw base full whether already before after
during
""".split()

_OPENINGS = (
    "When",
    "After",
    "While",
    "Once",
    "Because",
    "Before",
    "Then,",
    "Today",
    "Yesterday",
    "In the evening,",
)
_SCENES = (
    "{A} and {B} went to the {place}",
    "{A} and {B} were at the {place}",
    "{A} and {B} got a {object} at the {place}",
    "{A} and {B} met near the {place}",
    "{A} and {B} were looking for a {object}",
    "{A} and {B} stood in front of the {place}",
    "{A} and {B} talked about the {place}",
    "{A} and {B} moved to the old {place}",
)
_DEEDS = (
    "{S} gave a {object} to",
    "{S} gave it to",
    "{S} decided to give the {object} to",
    "{S} wanted to pass a {object} to",
    "{S} handed the {object} to",
    "{S} showed a {object} to",
    "{S} said goodbye to",
    "{S} brought a new {object} to",
)
_JOINTS = (", ", ". ", ", and ", ", so ", ", then ", ". Later ")

IOI = (
    "When {A} and {B} went to the {place}, {S} gave a {object} to",
    "Then, {A} and {B} were working at the {place}. {S} decided to give a {object} to",
    "After {A} and {B} had lunch at the {place}, {S} handed the {object} to",
    "While {A} and {B} were walking to the {place}, {S} passed a {object} to",
    "Friends {A} and {B} found a {object} at the {place}. {S} gave it to",
    "Yesterday {A} and {B} met near the {place}, and {S} offered a {object} to",
    "The {place} was busy when {A} and {B} arrived. {S} brought the {object} to",
    "Once {A} and {B} got a {object} at the {place}, {S} wanted to give it to",
    "At the {place}, {A} and {B} were talking, then {S} sent a {object} to",
    "Both {A} and {B} liked the {place}. In the end {S} sold the {object} to",
    "In the morning {A} and {B} came to the {place}, so {S} lent a {object} to",
    "At night {A} and {B} walked past the {place}, and {S} threw a {object} to",
    "Before {A} and {B} left the {place}, {S} mailed the {object} to",
    "Today {A} and {B} cleaned the {place}. Then {S} passed the {object} to",
    "Inside the {place}, {A} and {B} were hungry, so {S} gave a {object} to",
    "When {A} and {B} bought a {object} at the {place}, {S} handed it to",
    "While {A} and {B} were at the {place}, {S} wrote about the {object} to",
    "My neighbors {A} and {B} own a {place}. Last year {S} sold a {object} to",
    "Then {A} and {B} went home from the {place}, and {S} promised the {object} to",
    "Because {A} and {B} stayed at the {place}, {S} showed the {object} to",
    *("".join(parts) for parts in product((f"{o} " for o in _OPENINGS), _SCENES, _JOINTS, _DEEDS)),
    "Since {A} and {B} left the {place} together, {S} returned the {object} to",
    "Later {A} and {B} sat down in the {place} with a {object}. {S} gave it to",
    "Last week {A} and {B} visited the {place}. {S} gave the {object} to",
    "As {A} and {B} waited outside the {place}, {S} decided to hand a {object} to",
)

GREATER_THAN = (
    "The {event} lasted from the year {century}{year} to the year {century}",
    "The {event} began in {century}{year} and ended in {century}",
    "The {event} of the {place} started in the year {century}{year} and stopped in the year "
    "{century}",
    "From {century}{year}, the {event} went on until {century}",
    "The {place} was built between {century}{year} and {century}",
    "A {event} took place from {century}{year} to {century}",
    "Records of the {event} run from {century}{year} through {century}",
    "{name} lived near the {place} from {century}{year} to {century}",
    "The long {event} was first seen in {century}{year} and last seen in {century}",
    "It opened in the year {century}{year}, and the {event} closed it in the year {century}",
    "{name} joined the {event} in {century}{year} and left it in {century}",
    "The law of {century}{year} was in force until the {event} of {century}",
    "The {event} started in {century}{year} and stopped in {century}",
    "The old {place} stood from {century}{year} to the year {century}",
    "{name} studied the {event} from the year {century}{year} to {century}",
    "Between {century}{year} and {century}",
    "The {event} was planned in {century}{year} and finished in {century}",
    "The {place} held a {event} from the year {century}{year} until the year {century}",
    "{name} worked on the {event} between {century}{year} and {century}",
    "The second {event} ran from {century}{year} to {century}",
)

# {head} is "def verb_noun(self, a, b, c)"; the second and third part surround each documented
# argument; {key} is any word.
_HEADS = (
    '{head}:\n    """{title}\n\n',
    '{head}:\n    """{title}.\n\n',
    "{head}:\n    '''{title}\n\n",
    '{head} -> None:\n    """{title}\n\n',
    '{head} -> None:\n    """{title}.\n\n    {key}:\n',
    '{head}:\n    """{title}\n\n    {key}:\n',
    "{head}:\n    # {title}\n",
)
_BEFORE = (
    "    :{key}",
    "    @{key}",
    "    {key}",
    "    # {key}",
    "    -- {key}",
    "    \\{key}",
    "      *",
    "      -",
    "       ",
    "   ",
)
_AFTER = (
    ": {words}\n",
    " {words}\n",
    " -- {words}\n",
    " = {words}\n",
    " ({words})\n",
    " : {words}\n",
)

DOCSTRING = (
    ('{head}:\n    """{title}\n\n', "    :param", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Args:\n', "       ", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Parameters\n    ----------\n', "   ", " : {words}\n"),
    ('{head}:\n    """{title}\n\n', "    @param", " {words}\n"),
    ('{head}:\n    """{title}\n\n    Arguments:\n', "      -", ": {words}\n"),
    ("{head}:\n    # {title}\n", "    # *", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Keyword arguments:\n', "   ", " -- {words}\n"),
    ("{head}:\n    '''{title}\n\n", "    :argument", ": {words}\n"),
    ('{head}:\n    """{title}\n\n', "    * ``", "``: {words}\n"),
    ("{head} -> None:\n    r'''{title}\n\n", "    >", " = {words}\n"),
    ('{head}:\n    """{title}\n\n    Options:\n', "      +", " ({words})\n"),
    ("{head}:\n    # {title}\n", "    # param", ": {words}\n"),
    ('{head}:\n    """{title}\n\n', "    :key", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Args:\n', "      *", ": {words}\n"),
    ("{head}:\n    '''{title}\n\n", "    @argument", ": {words}\n"),
    ('{head} -> None:\n    """{title}\n\n    Parameters:\n', "     ", ": {words}\n"),
    ('{head}:\n    """{title}.\n\n', "    @option", " {words}\n"),
    ("{head}:\n    # {title}\n", "    # -", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Values:\n', "       ", ": {words}\n"),
    ("{head} -> None:\n    '''{title}\n\n", "    :keyword", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Takes:\n', "      ~", " {words}\n"),
    ('{head} -> None:\n    """{title}.\n\n    Arguments:\n', "       ", " -- {words}\n"),
    ("{head}:\n    r'''{title}\n\n", "    %", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Fields:\n', "      #", " = {words}\n"),
    *product(_HEADS, _BEFORE, _AFTER),
    ('{head}:\n    """{title}.\n\n', "    :arg", ": {words}\n"),
    ("{head}:\n    '''{title}\n\n    Parameters:\n", "       ", ": {words}\n"),
    ('{head} -> None:\n    """{title}\n\n', "    @arg", ": {words}\n"),
    ('{head}:\n    """{title}\n\n    Inputs:\n', "      *", ": {words}\n"),
)

# {once} is a sequence of random single-token words; {again} is the same sequence.
INDUCTION = (
    "{once}{again}",
    "{once}.{again}.",
    "{once}\n{again}\n",
    "Repeat:{once};{again}",
    "First:{once}. Second:{again}.",
    "#{once}\n#{again}\n",
    "({once}) ({again})",
    '"{once}",\n"{again}",\n',
    "copy{once} ->{again}",
    "x ={once}\ny ={again}\n",
    "{once} ...{again}",
    "a){once} b){again}",
    "{once} |{again} |",
    "Here:{once}. There:{again}.",
    "{once} and{again}",
    "[{once}] [{again}]",
)

HELD_OUT_KEYS = ("arg", "args", "Inputs")

TEMPLATES: dict[Task, tuple] = {
    "ioi": IOI,
    "greater-than": GREATER_THAN,
    "docstring": DOCSTRING,
    "induction": INDUCTION,
}


def templates(task: Task, held_out: bool) -> range:
    """Indices of the task's training templates, or of its four held-out ones."""
    n = len(TEMPLATES[task])
    return range(n - N_HELD_OUT, n) if held_out else range(n - N_HELD_OUT)
