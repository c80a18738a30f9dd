"""What opening a published dictionary costs: `python benchmarks/opening.py [--out FILE]`.

The peak of a process of its own (VmHWM) over what it had before, beside the bytes of the SAE that
it opened, for a SAELens folder whose weights all change in reading (scaled inputs, an encoder that
does not centre, [D, F] there). The file is of zeros, and sparse: it takes no room on the disk.
"""

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

BYTES = {"F32": 4, "BF16": 2, "F16": 2}
CFG = {
    "architecture": "standard",
    "apply_b_dec_to_input": False,
    "normalize_activations": "expected_average_only_in",
    "norm_scaling_factor": 2.0,
    "metadata": {"sae_lens_version": "6.0.0", "hook_name": "blocks.1.hook_resid_post"},
}


def sparse(folder: Path, n_features: int, width: int, dtype: str) -> Path:
    """A folder of SAELens with weights of zeros."""
    shapes = {"W_enc": (width, n_features), "W_dec": (n_features, width)}
    header, at = {}, 0
    for name, shape in (shapes | {"b_enc": (n_features,), "b_dec": (width,)}).items():
        size = BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sae_weights.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    cfg = CFG | {"d_in": width, "d_sae": n_features}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def child(folder: Path, keep: bool) -> dict[str, Any]:
    """Open it here, in a process that has done nothing else. keep: pages that were read are not
    given back."""
    from saelab import SAE
    from saelab.formats import matrices, saelens  # noqa: F401  what opening imports

    if keep:
        matrices.forget = lambda part: None
    before, began = peak(), time.process_time()
    sae = SAE.load(folder)
    tensors = sum(value.nbytes for value in sae.state_dict().values())
    seconds = round(time.process_time() - began, 2)
    return {"tensors": tensors, "peak": peak() - before, "cpu_seconds": seconds}


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measured(n_features: int, width: int, dtype: str, keep: bool = False) -> dict[str, Any]:
    """What one size costs, in a process of its own; `ratio` of the peak to the SAE's tensors."""
    with tempfile.TemporaryDirectory() as name:
        folder = sparse(Path(name), n_features, width, dtype)
        line = [sys.executable, __file__, "--child", str(folder), *(["--keep"] if keep else [])]
        run = subprocess.run(line, capture_output=True, text=True, check=True)
        file = (folder / "sae_weights.safetensors").stat().st_size
    costs = json.loads(run.stdout)
    shape = {"features": n_features, "width": width, "dtype": dtype, "file": file}
    return {**shape, **costs, "ratio": round(costs["peak"] / costs["tensors"], 3)}


def main() -> None:
    """Measure the sizes asked for, print a row each."""
    parser = argparse.ArgumentParser(description="Opening a published dictionary.")
    parser.add_argument("--sizes", nargs="+", default=["65536x2304"], help="FEATURESxWIDTH")
    parser.add_argument("--dtypes", nargs="+", default=["F32", "BF16"], choices=BYTES)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.keep)))
        return
    rows = []
    for size in args.sizes:
        n_features, width = map(int, size.split("x"))
        for dtype in args.dtypes:
            rows.append(measured(n_features, width, dtype))
            print(json.dumps(rows[-1]))
    if args.out:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
