"""Peak memory of a report above that of the model: `python benchmarks/eval_memory.py [--out FILE]`.

Held-out contexts of 1,024 tokens, a vocabulary of 152k, every row of a report. Each way of
running a model has a process of its own: the plain Hugging Face model; a bridge whose head is
known; a bridge whose head is not, so that whole logits are compared. More contexts than run at
once (on the CPU 4 of this length, of whole logits 1) take longer and no more memory.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from saelab import SAE, models
from saelab.activations import Cache
from saelab.activations.from_text import from_text
from saelab.evaluation import evaluate
from saelab.models import heads
from saelab.origin import Origin
from saelab.sparsify import Choice

HOOK = "blocks.0.hook_resid_post"
WIDTH, FEATURES = 64, 256
KINDS = {"plain": "Qwen2", "bridge": "Olmo", "bridge, head unknown": "Olmo"}
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 4}  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Peak memory of a report above the model.")
    parser.add_argument("--vocabulary", type=int, default=152_064)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--contexts", type=int, default=16, help="held out")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--kind", choices=KINDS, help="this one alone, in this process")
    return parser.parse_args()


def resident() -> float:
    """GB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def saved(kind: str, args: argparse.Namespace, folder: Path) -> Path:
    """A random model of tiny width, with the bundled model's tokenizer."""
    torch.manual_seed(0)
    family = KINDS[kind]
    sizes = {**SHAPE, "vocab_size": args.vocabulary, "max_position_embeddings": args.context}
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = getattr(transformers, f"{family}Config")(**sizes, **ends)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    models.load("bundled").tokenizer.save_pretrained(folder)
    return folder


def measure(kind: str, args: argparse.Namespace) -> dict:
    """GB above the model of one way of running it, and seconds."""
    with tempfile.TemporaryDirectory() as place:
        model = models.load(saved(kind, args, Path(place) / "model"))
        n_held_out = args.contexts * args.context
        source = from_text(
            model, "stdlib", [HOOK], 2 * n_held_out, context=args.context, n_held_out=n_held_out
        )
        cache = Cache.write(Path(place) / "cache", source)
        sae = SAE(WIDTH, FEATURES, Choice(8))
        sae.origin = Origin(hook=HOOK)
        if kind.endswith("unknown"):
            heads._measured[model.bridge] = None
        assert (heads.head(model) is None) == kind.endswith("unknown")
        before = resident()
        report = evaluate(sae.frozen(), cache, model, n_tokens=n_held_out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "model_gb": round(before, 2),
        "above_gb": round(peak - before, 2),
        "contexts": args.contexts,
        "tokens": report["tokens"],
    }


def main() -> int:
    """Measure, print, and write where asked."""
    args = arguments()
    if args.kind:
        print(json.dumps(measure(args.kind, args)))
        return 0
    rows = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind]
        for name in ("vocabulary", "context", "contexts"):
            command += [f"--{name}", str(getattr(args, name))]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows[kind] = json.loads(ran.stdout.splitlines()[-1])
        print(kind, rows[kind])
    threads = torch.get_num_threads()
    machine = {"processor": platform.machine(), "threads": threads, "torch": torch.__version__}
    shape = {name: getattr(args, name) for name in ("vocabulary", "context")}
    result = {
        "schema": "saelab/bench/1",
        "machine": machine,
        "shape": {**shape, "width": WIDTH, "features": FEATURES},
        "dtype": "float32",
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
