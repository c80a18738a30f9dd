"""Measures the bundled model as stored and writes its card. `python -m training.bundled.model_card
[--model DIR] [--prompts N]`.

Held-out standard-library files, and held-out templates of the four tasks; chance is printed beside
every number.
"""

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab import models, tasks
from saelab.activations.packing import pack
from saelab.bundled import corpus, prompts, templates
from saelab.evaluation.supervised import runs
from saelab.files import write_atomic, write_json
from saelab.models import losses, running
from saelab.tasks.reading import Reader

BATCH = 50
TEXT = """# The bundled model

A small language model of Python source, trained by this project so that everything works without a
download: GPT-2 architecture, 4 layers, d_model 256, 8 heads, context 256, tied embeddings, no
dropout; byte-level BPE of 4096 tokens in which digits split in pairs from the left and 00 to 99 are
single tokens. Every context starts with `<|endoftext|>`, which also separates documents. Stored as
float16, loaded as float32. MIT licence, like the project.

**Data.** The source of the Python standard library and of the packages listed in `../corpus.json`
(permissive licences; read where pip put them, never shipped), at most 6 MB of each package, mixed
with generated task prompts: just under a quarter of the tokens. {n_names} names, {n_nouns} nouns
and {n_arguments} argument names are single tokens. Files whose path's SHA-256 is 0 modulo 20 are
held out, and training files that share more than half of their lines with a held-out one were
dropped. The last four templates of each task (`saelab/bundled/templates.py`) were never trained on.

**Training.** `python -m training.bundled.language_model prepare`, `train`, `export`: 32M tokens,
batches of 8192, Muon and AdamW, bf16 autocast on CPU cores; the log is `train.jsonl`. The schedule
is warm-up, constant rate, linear decay over the last 30%, but this file's run was interrupted:
planned for 27M tokens, then extended to 32M, which raised the rate again at 27M. The set of
training templates grew twice on the way: to composed IOI and docstring templates at 16.4M tokens,
to arbitrary docstring keywords at 27M. The held-out templates were the same throughout.

**Measured on the stored file** by `python -m training.bundled.model_card` ({prompts} prompts per
task, held-out templates):

| task | accuracy | logit difference | chance | accuracy, training templates |
|---|---|---|---|---|
{rows}

IOI: the indirect object's logit above the subject's. Greater-than: more probability on years above
than on years not above; its logit difference is the log ratio of the two. Docstring: the right
argument highest among all of the prompt's; induction: likewise among the sequence's words.

Induction head {layer}.{head}: mean attention {score:.3f} from a repeated random token to the one
after its first occurrence (64 random tokens, twice; even attention: {chance:.3f}).

Held-out standard-library files: {bits_per_byte:.3f} bits per UTF-8 byte ({nats_per_token:.3f} nats
per token, {tokens:,} tokens; uniform bytes: {chance_bits_per_byte:.0f}).

**Limits.** It knows Python's look and these four tasks, little English, and nothing beyond 256
tokens. It is for interpretability work, not for writing code.
"""


def bits_per_byte(model: Any, tokenizer: Any, n_contexts: int) -> dict:
    """Bits per UTF-8 byte of held-out stdlib text, every token after BOS predicted within its
    context."""
    end = tokenizer.eos_token_id
    texts = [d.text for d in corpus.stdlib() if d.held_out]
    ids = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts)
    contexts = np.stack(
        [packed.tokens for packed in pack(enumerate(ids), tokenizer.model_max_length, end, end)]
    )[:n_contexts]
    sizes = torch.zeros(len(tokenizer), dtype=torch.float64)
    for token, number in tokenizer.get_vocab().items():
        sizes[number] = (
            0 if number == end else len(token)
        )  # a byte-level token has one character per byte
    nats = n_bytes = n_tokens = 0.0
    for first in range(0, len(contexts), BATCH):
        tokens_CT = torch.from_numpy(contexts[first : first + BATCH])
        logits_CTV = running.logits(model, tokens_CT)
        nats += float(losses.next_token_loss(logits_CTV, tokens_CT).double().sum())
        n_bytes += float(sizes[tokens_CT[:, 1:]].sum())
        n_tokens += tokens_CT[:, 1:].numel()
    return {
        "bits_per_byte": nats / math.log(2) / n_bytes,
        "nats_per_token": nats / n_tokens,
        "tokens": int(n_tokens),
    }


def task_score(model: Any, task: templates.Task, n: int, held_out: bool = True) -> dict:
    """Accuracy, mean logit difference and chance of one task on n prompts of its held-out (or
    training) templates."""
    rng = random.Random(1)
    drawn = [prompts.prompt(task, rng, held_out=held_out) for _ in range(n)]
    given = tasks.build(task, model, [one._replace(labels={}) for one in drawn])
    logits_PV = runs.logits(model, given)
    right_PA, wrong_PW = (_at(logits_PV, ids) for ids in (given.right, given.wrong))
    best_P = wrong_PW.logsumexp(1) if task == "greater-than" else wrong_PW.amax(1)
    difference_P = right_PA.logsumexp(1) - best_P
    n_right_P, n_wrong_P = ((ids >= 0).sum(1) for ids in (given.right, given.wrong))
    return {
        "accuracy": float((difference_P > 0).double().mean()),
        "logit_difference": float(difference_P.double().mean()),
        "chance": float((n_right_P / (n_right_P + n_wrong_P)).double().mean()),
        "prompts": n,
    }


def _at(logits_PV: Tensor, ids_PA: Tensor) -> Tensor:
    """The logits [P, A] of answers; minus infinity where there is none."""
    return logits_PV.gather(1, ids_PA.clamp(min=0)).masked_fill(ids_PA < 0, -torch.inf)


def _check_words(tokenizer: Any) -> None:
    """Raise Unfit unless each of the tasks' words is one token after a space."""
    words = templates.NAMES + templates.NOUNS + templates.ARGUMENTS
    Reader(tokenizer).following("to", prompts.spoken(words))


def induction_score(model: Any, n: int = 64, length: int = 64) -> dict:
    """Mean attention of each head from a repeated random token to the one after its first
    occurrence; the best head.

    Olsson et al. 2022. Tokens are drawn from the whole vocabulary. Chance: attention spread evenly
    over all earlier positions.
    """
    generator = torch.Generator().manual_seed(0)
    once = torch.randint(1, model.cfg.d_vocab, (n, length), generator=generator)
    tokens_CT = torch.cat([torch.zeros(n, 1, dtype=torch.int64), once, once], dim=1)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    patterns = running.read(model, tokens_CT, names)
    queries = torch.arange(length + 1, 2 * length + 1)
    scores_LH = torch.stack(
        [patterns[name][:, :, queries, queries - length + 1].mean((0, 2)) for name in names]
    )
    best = int(scores_LH.argmax())
    chance = float((1 / (queries + 1.0)).mean())
    layer, head = divmod(best, scores_LH.shape[1])
    return {"score": float(scores_LH.max()), "layer": layer, "head": head, "chance": chance}


@torch.no_grad()
def measure(name: str, n_prompts: int, n_contexts: int) -> dict:
    """All numbers of the card."""
    model = models.load(name)
    tokenizer: Any = model.tokenizer
    words = {kind: len(set(getattr(templates, kind))) for kind in ("NAMES", "NOUNS", "ARGUMENTS")}
    _check_words(tokenizer)
    return {
        "schema": "saelab/model-card/1",
        "stdlib": {**bits_per_byte(model, tokenizer, n_contexts), "chance_bits_per_byte": 8.0},
        "tasks": {task: task_score(model, task, n_prompts) for task in templates.TASKS},
        "tasks_training_templates": {
            task: task_score(model, task, n_prompts, held_out=False) for task in templates.TASKS
        },
        "induction_head": induction_score(model),
        "single_token_words": words,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--prompts", type=int, default=1000, help="prompts per task")
    parser.add_argument("--contexts", type=int, default=10**9, help="held-out contexts at most")
    parser.add_argument(
        "--out", type=Path, help="folder for card.json and README.md (default: print only)"
    )
    args = parser.parse_args()
    card = measure(args.model, args.prompts, args.contexts)
    print(json.dumps(card, indent=1))
    if args.out:
        write_json(args.out / "card.json", card)
        write_atomic(args.out / "README.md", lambda path: path.write_text(as_text(card)))


def as_text(card: dict) -> str:
    """The card as Markdown."""
    rows = [
        f"| {task} | {row['accuracy']:.3f} | {row['logit_difference']:+.2f} | {row['chance']:.3f} "
        f"| {trained['accuracy']:.3f} |"
        for (task, row), trained in zip(
            card["tasks"].items(), card["tasks_training_templates"].values(), strict=True
        )
    ]
    head, text, words = card["induction_head"], card["stdlib"], card["single_token_words"]
    return TEXT.format(
        rows="\n".join(rows),
        prompts=card["tasks"]["ioi"]["prompts"],
        **text,
        **{f"n_{k.lower()}": v for k, v in words.items()},
        score=head["score"],
        layer=head["layer"],
        head=head["head"],
        chance=head["chance"],
    )


if __name__ == "__main__":
    main()
