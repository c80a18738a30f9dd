"""From a folder of images to a browsable page: capture, train and index, each a process of its own.

    python benchmarks/pictures.py --out benchmarks/results/pictures.json

CPU seconds are those of the processes, which machines with other work say truly; wall seconds stand
beside them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from saelab.features.reader import FeatureIndex
from saelab.scenes import scene

LIMIT = 300  # seconds on two cores


def drawn(folder: Path, n: int) -> None:
    """The images, whose making is not timed."""
    folder.mkdir()
    for number in range(n):
        Image.fromarray(scene(number, seed=3).image).save(folder / f"{number:05}.png")


def timed(*words: str) -> dict[str, float]:
    """A command's CPU and wall seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "saelab", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": round(cpu, 1), "wall_seconds": round(time.perf_counter() - start, 1)}


def measured(args: argparse.Namespace, at: Path) -> dict:
    """All steps."""
    drawn(at / "images", args.images)
    cache, run = str(at / "cache"), str(at / "run")
    capture = ["capture", "--model", args.model, "--images", str(at / "images")]
    train = ["train", "--cache", cache, "--out", run, "--features", str(args.features)]
    steps = {
        "capture": timed(*capture, "--hook", args.hook, "--out", cache),
        "train": timed(*train, "--k", "16", "--tokens", args.tokens),
        "index": timed("index", run, "--tokens", "2M"),
    }
    start = time.process_time()
    with FeatureIndex(at / "run" / "features.db") as index:
        example = index.examples(int(index.order("density")[100]))[0]
        opened = {"cpu_seconds": round(time.process_time() - start, 3)}
        patches = index.summary["n_tokens"]
        assert example.picture is not None
    total = round(sum(step["cpu_seconds"] for step in steps.values()), 1)
    return {"indexed_patches": patches, "steps": {**steps, "page": opened}, "cpu_seconds": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled-vision")
    parser.add_argument("--hook", default="blocks.2.hook_resid_post")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--tokens", default="700k", help="training tokens")
    parser.add_argument("--machine", default="", help="what it ran on, in words")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(args, Path(folder))
    shape = {"images": args.images, "features": args.features, "training_tokens": args.tokens}
    whole = {
        "machine": args.machine,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "torch": torch.__version__,
        "dtype": "float32, cache float16",
        **shape,
        **result,
        "limit_cpu_seconds_of_two_cores": 2 * LIMIT,
        "command": "python " + " ".join(sys.argv),
    }
    args.out.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
