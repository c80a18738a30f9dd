"""Compiles every Triton program for cards that need not be here, at the block sizes it is launched
with, and prints what each takes: `python -m tests.kernels.compiled`.

It is a program of its own because Triton, once told to interpret, does not compile.
"""

import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from saelab.kernels import triton as package
from saelab.kernels.triton import exact, loops, passes, sizes

WIDTH, ROOM = 2304, 512  # of rows; of lists for k = 64
CARDS = {
    "sm_80": (GPUTarget("cuda", 80, 32), sizes.NVIDIA),
    "sm_90a": (GPUTarget("cuda", 90, 32), sizes.NVIDIA),
    "gfx942": (GPUTarget("hip", "gfx942", 64), sizes.AMD),
}
WORDS = {"bytes": "*i8", "words": "*i32", "longs": "*i64", "doubles": "*fp64"}
RATES = "beta1 rest1 beta2 rest2 size inverse epsilon number log_beta1 log_beta2"
BY_FEATURE = {"longs": "starts piece_starts tokens last_step", "words": "extra fired"}
# The types of what is neither a float32 tensor nor an int32 number, by program and argument.
TYPES = {
    "round_rows": {"half": "rows"},
    "select": {
        "half": "product boost",
        "words": "keeps counts items",
        "float": "unit boost_unit rounding beta",
    },
    "trim": {"words": "keeps counts items"},
    "exact_dots": {"longs": "tokens", "words": "features", "doubles": "out"},
    "settle": {
        "bytes": "wins certified",
        "words": "items budgets",
        "longs": "features",
        "doubles": "scores values",
    },
    "segment_sums": {"longs": "begins ends piece_starts rows"},
    "segment_counts": {"longs": "starts fired"},
    "decode_and_grad": {"longs": "starts features", "doubles": "errors", "float": "scale"},
    "pair_sums": {"longs": "starts", "words": "fired"},
    "update_encoder": {"half": "rows", "float": f"{RATES} W_size", **BY_FEATURE},
    "update_decoder": {"float": RATES, **BY_FEATURE},
}
KINDS = {"half": "*fp16", "float": "fp32", **WORDS}
NUMBERS = {"width", "stride", "apart", "at", "first", "step", "k"}


class Launch(NamedTuple):
    """A program, its compile-time constants and how it is launched."""

    program: JITFunction
    constants: dict[str, Any]
    options: dict[str, int]


def launches(s: sizes.Sizes) -> list[Launch]:
    """Every program, as it is launched at WIDTH; `select` plainly and with all that it can do."""
    row, warps = sizes.power(WIDTH), sizes.row_warps(WIDTH, s)
    lists, together = {"ROOM": ROOM, "COLUMNS": s.select_columns}, {"TOGETHER": s.together}
    kinds = ({"SIGNED": on, "BOOSTED": on, "FLOORS": on} for on in (False, True))
    chosen = s.launch(1, sizes.SELECT_REGISTERS)
    rows = {"BLOCK": row, **together}
    row_wise = s.launch(warps, sizes.ROW_REGISTERS)
    updated = s.launch(sizes.update_warps(WIDTH, s), sizes.UPDATE_REGISTERS)
    return [
        Launch(loops.round_rows, {"BLOCK": row}, s.launch(warps)),
        *(Launch(loops.select, {**kind, **lists}, chosen) for kind in kinds),
        Launch(loops.trim, lists, chosen),
        Launch(exact.exact_dots, {"BIASED": True, "PAIRS": s.pairs, "BLOCK": s.block}, s.launch(4)),
        Launch(exact.settle, {"FILL": True, "BLOCK": s.listed}, s.launch(1)),
        Launch(
            passes.segment_sums,
            {"PIECES": True, "BLOCK": s.summed, **together},
            s.launch(s.summed // 256),
        ),
        Launch(passes.segment_counts, {"BLOCK": 128}, s.launch(1)),
        Launch(passes.decode_and_grad, {"BLOCK": row}, row_wise),
        Launch(passes.pair_sums, {"BLOCK": 128}, s.launch(1)),
        *(
            Launch(program, {"EXTRA": on, "WAIT": on, **rows}, updated)
            for program in (passes.update_encoder, passes.update_decoder)
            for on in (False, True)
        ),
    ]


def programs_of_the_package() -> set[str]:
    """The names of all that is launched: what begins with _ is part of another program."""
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    members = (vars(import_module(f"{package.__name__}.{name}")) for name in names)
    return {
        name
        for module in members
        for name, value in module.items()
        if isinstance(value, JITFunction) and not name.startswith("_")
    }


def signature(launch: Launch) -> dict[str, str]:
    """The type of each argument."""
    named = {
        name: KINDS[kind]
        for kind, words in TYPES[launch.program.__name__].items()
        for name in words.split()
    }
    kinds = {}
    for name in launch.program.arg_names:
        number = name in NUMBERS or name.startswith("n_")
        kinds[name] = named.get(name, "i32" if number else "*fp32")
        if name in launch.constants:
            kinds[name] = "constexpr"
    return kinds


def compiled(launch: Launch, target: GPUTarget) -> Any:
    """The program for a card; pointers and widths are multiples of 16, as they are in a run."""
    kinds = signature(launch)
    even = [["tt.divisibility", 16]]
    attributes = {
        (i,): even
        for i, (name, kind) in enumerate(kinds.items())
        if kind.startswith("*") or name.endswith(("width", "stride", "apart", "at", "n_columns"))
    }
    source = ASTSource(launch.program, kinds, launch.constants, attributes)
    return triton.compile(source, target=target, options=launch.options)


def taken(launch: Launch, card: str) -> dict[str, Any]:
    """Registers, spilled bytes (or registers, of AMD) and shared memory of a program."""
    binary = compiled(launch, CARDS[card][0])
    if card.startswith("gfx"):
        text = binary.asm["amdgcn"]
        used, spilled = r"\.vgpr_count:\s*(\d+)", r"\.vgpr_spill_count:\s*(\d+)"
    else:
        text = assembled(binary.asm["ptx"], card)
        used, spilled = r"Used (\d+) registers", r"(\d+) bytes spill stores"
    numbers = [int(found) for p in (used, spilled) for found in re.findall(p, text)[:1]]
    constants = ",".join(name for name, value in launch.constants.items() if value is True)
    return {
        "card": card,
        "program": launch.program.__name__ + (f"[{constants}]" if constants else ""),
        "warps": launch.options["num_warps"],
        "registers": numbers[0],
        "spilled": numbers[1],
        "shared": binary.metadata.shared,
    }


def assembled(ptx: str, card: str) -> str:
    """What the assembler that Triton has for a card says of a program."""
    ptxas = get_ptxas(CARDS[card][0].arch).path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.ptx"
        source.write_text(ptx)
        command = [ptxas, "-v", f"--gpu-name={card}", str(source), "-o", f"{folder}/cubin"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def main() -> None:
    """One JSON row per program and card; with `twin`, of a program whose warp holds a row of 8192
    numbers, which is too wide for its registers."""
    if sys.argv[1:] == ["twin"]:
        wide = Launch(loops.round_rows, {"BLOCK": 8192}, sizes.NVIDIA.launch(1))
        print(json.dumps([taken(wide, "sm_90a")]))
        return
    listed = {launch.program.__name__ for launch in launches(sizes.NVIDIA)}
    rows = [taken(launch, card) for card in CARDS for launch in launches(CARDS[card][1])]
    print(json.dumps({"missing": sorted(programs_of_the_package() - listed), "rows": rows}))


if __name__ == "__main__":
    main()
