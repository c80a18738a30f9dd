"""The plan to internet scale: `python benchmarks/scale.py` prints the tables of docs/scale.md,
`--write` renews them there, `--check` measures whether a step's time has the structure that they
assume.

The ceilings of cards are given values: nothing of this was run on a GPU by us. `--check` runs here:
it fits the price of any step and three rates (of products, of pairs, of features) to some shapes,
predicts others with them, and writes both to benchmarks/results/.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import scaling
from benchmarks.scaling import CARDS, HALF, Plan
from training.benchmark import Shape

DOC = Path(__file__).parents[1] / "docs" / "scale.md"
RESULTS = Path(__file__).parent / "results" / "scale_epyc_zen4_2cores.json"
ASSUMED = "assumed; not run on a GPU by us"
WHOLE = Plan(width=4096, features=1 << 20, k=64, batch=65536, tokens=10e9, moments=HALF)
LLM = 8e9  # parameters of the language model that is read
SHARE = 0.4  # of a card's products that a language model's forward pass reaches
RANKS = (8, 64)
# d, F, k, B
FITTED = (
    (256, 2048, 32, 512),
    (256, 2048, 32, 2048),
    (256, 8192, 32, 512),
    (256, 8192, 8, 1024),
    (256, 2048, 8, 2048),
    (512, 4096, 16, 512),
)
PREDICTED = ((256, 4096, 32, 2048), (256, 16384, 16, 1024), (512, 8192, 32, 1024))


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Markdown."""
    lines = [list(map(str, head)), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def columns() -> list[tuple[str, Plan, scaling.Ceilings]]:
    """Every card at every number of ranks."""
    return [(f"{n} {c}", WHOLE._replace(ranks=n), CARDS[c]) for c in CARDS for n in RANKS]


def ceilings() -> str:
    """What is assumed of the cards."""
    head = ("", "products, TFLOP/s", "memory, TB/s", "network, GB/s", "disk, GB/s", "GiB", "")
    return table(head, (
        (name, f"{c.products / 1e12:.0f}", f"{c.memory / 1e12:.1f}", f"{c.network / 1e9:.0f}",
         f"{c.disk / 1e9:.0f}", f"{c.held / 2**30:.0f}", ASSUMED)
        for name, c in CARDS.items()
    ))  # fmt: skip


def step() -> str:
    """Milliseconds of a step by stage, the run's length and price."""
    made = [(name, plan, scaling.seconds(plan, card)) for name, plan, card in columns()]
    rows: list[list[object]] = [
        [f"{stage}, ms", *(f"{1e3 * times[stage]:.1f}" for _, _, times in made)]
        for stage in made[0][2]
    ]
    totals = [sum(times.values()) for _, _, times in made]
    rows.append(["**step, ms**", *(f"**{1e3 * total:.0f}**" for total in totals)])
    days = [plan.steps * total / 86400 for (_, plan, _), total in zip(made, totals, strict=True)]
    rows.append([f"days for {WHOLE.steps:,.0f} steps", *(f"{day:.1f}" for day in days)])
    hours = [24 * day * plan.ranks for (_, plan, _), day in zip(made, days, strict=True)]
    rows.append(["GPU-hours", *(f"{hour:,.0f}" for hour in hours)])
    return table(["", *(name for name, _, _ in made)], rows)


def work() -> str:
    """Operations, memory traffic and network bytes of a rank in a step."""
    plans = [WHOLE._replace(ranks=n) for n in RANKS]
    rows = [
        [f"{kind}: {stage}", *(f"{count(plan)[stage] / unit:.3g}" for plan in plans)]
        for kind, count, unit in (
            ("TFLOP", scaling.operations, 1e12),
            ("GB moved", scaling.traffic, 1e9),
            ("GB sent", scaling.wire, 1e9),
        )
        for stage in count(plans[0])
    ]
    extra = [f"{scaling.wire_of_aux(plan, WHOLE.width // 2) / 1e9:.3g}" for plan in plans]
    rows.append(["GB sent beside: AuxK, where features are dead", *extra])
    return table(["", *(f"{n} ranks" for n in RANKS)], rows)


def memory() -> str:
    """GiB of a rank, with moments in float32 and bfloat16, for one card and for several."""
    plans = [
        (f"{n} rank{'s' * (n > 1)}, {name}", WHOLE._replace(ranks=n, moments=size, batch=batch))
        for n, batch in ((1, 8192), (8, 65536), (64, 65536))
        for name, size in (("float32", 4), ("bfloat16", 2))
    ]
    small = WHOLE._replace(width=2304, batch=8192)
    plans.append(("d = 2304, 1 rank, bfloat16", small))
    plans.append(("the same through autograd", small._replace(fused=False)))
    rows = [
        [name, *(f"{part / 2**30:.1f}" for part in scaling.memory(plan).values()),
         f"{sum(scaling.memory(plan).values()) / 2**30:.0f}"]
        for name, plan in plans
    ]  # fmt: skip
    return table(["GiB a rank; moments", *scaling.memory(WHOLE), "together"], rows)


def layouts() -> str:
    """Bytes of a rank in a step under both layouts, and the batch where they meet."""
    rows = []
    for features in (1 << 12, 1 << 14, 1 << 16, 1 << 20):
        plan = WHOLE._replace(features=features, ranks=8)
        shared, all_of_it = sum(scaling.wire(plan).values()), scaling.replicated(plan)
        meet = scaling.crossover(plan.width, features, plan.k, plan.ranks)
        rows.append([f"{features:,}", f"{shared / 1e9:.2f}", f"{all_of_it / 1e9:.2f}",
                     f"{meet:,.0f}", "features" if plan.batch < meet else "tokens"])  # fmt: skip
    head = ("F", "GB, features shared out", "GB, replicated", "they meet at B =",
            f"B = {WHOLE.batch:,}: share out")  # fmt: skip
    return table(head, rows)


def data() -> str:
    """What a pass over all tokens takes live and from caches of each dtype, on eight H100s and one
    disk."""
    card, plan = CARDS["H100"], WHOLE._replace(ranks=8)
    train = plan.steps * sum(scaling.seconds(plan, card).values()) / 3600
    read = scaling.forward(LLM, plan.tokens) / (card.products * SHARE * plan.ranks) / 3600
    rows = [["live", "0", f"{read:.0f}", f"{train:.0f}", f"{read + train:.0f}"]]
    for name, size, scale in (("int8", 1, 4), ("float16", 2, 0), ("float32", 4, 0)):
        held = scaling.cache(plan.tokens, plan.width, size, scale, 1024)
        hours = held / card.disk / 3600
        whole = hours + read + max(train, hours)
        rows.append([f"cache, {name}", f"{held / 1e12:.0f}", f"{hours + read:.0f}",
                     f"{max(train, hours):.0f}", f"{whole:.0f}"])  # fmt: skip
    head = ("", "TB", "hours to capture", "hours to train", "hours")
    return table(head, rows)


TABLES = {t.__name__: t for t in (ceilings, work, step, memory, layouts, data)}


def renewed(document: str) -> str:
    """The document with each table as it is now computed, between its two comments."""
    for name, make in TABLES.items():
        mark = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(document):
            raise ValueError(f"the document has no place for the table {name}")
        document = mark.sub(lambda found, made=make: f"{found[1]}{made()}\n{found[2]}", document)
    return document


def measured(shapes: list[Shape], rounds: int = 9) -> dict[Shape, float]:
    """Milliseconds of the trainer's step here, by shape: the shapes take turns, the first two
    rounds do not count."""
    from apps.cli import bench

    works = {shape: bench.trainer(shape, "topk") for shape in shapes}
    times: dict[Shape, list[float]] = {shape: [] for shape in shapes}
    for _ in range(rounds + 2):
        for shape, work in works.items():
            started = time.perf_counter()
            work()
            times[shape].append(1e3 * (time.perf_counter() - started))
    return {shape: statistics.median(taken[2:]) for shape, taken in times.items()}


def check(out: Path) -> None:
    """Fit the rates, predict, write."""
    import numpy as np
    from scipy.optimize import nnls

    from apps.cli import bench

    known = [Shape(*numbers) for numbers in FITTED]
    asked = [Shape(*numbers) for numbers in PREDICTED]

    def units(shape: Shape) -> list[float]:
        plan = Plan(*shape)
        moved = scaling.traffic(plan)
        pairs = sum(moved.values()) - moved["Adam"]
        return [1, scaling.operations(plan)["product"] / 1e9, pairs / 1e9, moved["Adam"] / 1e9]

    times = measured([*known, *asked])
    # Each shape weighs by its own time: it is relative errors that matter.
    scaled = np.array([[unit / times[s] for unit in units(s)] for s in known])
    rates, _ = nnls(scaled, np.ones(len(known)))
    rows = [
        {**shape._asdict(), "ms": round(times[shape], 2),
         "predicted": round(float(np.dot(rates, units(shape))), 2), "fitted": shape in known}
        for shape in times
    ]  # fmt: skip
    names = ("ms of any step", "ms a GFLOP of the product", "ms a GB of pairs", "ms a GB of Adam")
    rates_by_name = dict(zip(names, rates.round(3).tolist(), strict=True))
    result = {"schema": "saelab/scale/1", "machine": bench.explained(), "dtype": "float32",
              "rates": rates_by_name, "steps": rows}  # fmt: skip
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def main() -> None:
    """Print, renew, or measure."""
    parser = argparse.ArgumentParser(description="The plan to internet scale.")
    parser.add_argument("--write", action="store_true", help="renew the tables of docs/scale.md")
    parser.add_argument("--check", action="store_true", help="measure a step's structure here")
    args = parser.parse_args()
    if args.check:
        check(RESULTS)
    elif args.write:
        DOC.write_text(renewed(DOC.read_text()))
    else:
        for name, make in TABLES.items():
            print(f"\n{name}\n\n{make()}")


if __name__ == "__main__":
    main()
