"""Trains the bundled language model: tokenizer, token file, model, export. `python -m
training.bundled.language_model --help`.

GPT-2 architecture with tied embeddings, trained with Muon on the hidden matrices and AdamW on the
rest; warm-up, constant rate, linear decay to zero over the last 30% of the run. A killed run goes
on from its last checkpoint.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from .prepare import CONTEXT, END, VOCABULARY, prepare

WIDTH, LAYERS, HEADS = 256, 4, 8
BATCH = 32  # contexts per step
RATE, WARM_UP, DECAY_SHARE, WEIGHT_DECAY = 3e-3, 100, 0.3, 0.1


def new_model(seed: int = 0) -> GPT2LMHeadModel:
    """The untrained architecture: 4 layers, d_model 256, 8 heads, context 256, tied embeddings, no
    dropout."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def next_token_loss(model: GPT2LMHeadModel, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the next token, [B, T] -> scalar, body in bf16, loss in
    float32."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.lm_head(model.transformer(tokens).last_hidden_state[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def optimisers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, biases and norms."""
    hidden = [
        p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n and "wpe" not in n
    ]
    rest = [p for p in model.parameters() if all(p is not h for h in hidden)]
    return [
        torch.optim.Muon(
            hidden, lr=RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate(step: int, n_steps: int) -> float:
    """Learning rate as a share of RATE: warm-up, constant, linear to zero."""
    return min(1.0, (step + 1) / WARM_UP, (n_steps - step) / (DECAY_SHARE * n_steps))


def train(work: Path, n_tokens: int) -> None:
    """Train for n_tokens (one pass in a seeded order; more wraps around), logging to
    train.jsonl."""
    contexts = np.load(work / "train.npy", mmap_mode="r")
    held_out = torch.from_numpy(np.load(work / "held_out.npy")[:96].astype(np.int64))
    order = np.random.default_rng(0).permutation(len(contexts))
    n_steps = n_tokens // (BATCH * CONTEXT)
    model = new_model()
    opts = optimisers(model)
    checkpoint, first = work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimisers"], strict=True):
            opt.load_state_dict(saved)
        first = state["step"]
    start, log = time.time(), (work / "train.jsonl").open("a")
    for step in range(first, n_steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = RATE * rate(step, n_steps)
        rows = order[np.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        loss = next_token_loss(model, torch.from_numpy(contexts[rows].astype(np.int64)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        if (step + 1) % 20 == 0 or step + 1 == n_steps:
            row = {
                "step": step + 1,
                "tokens": (step + 1) * BATCH * CONTEXT,
                "loss": round(loss.item(), 4),
            }
            if (step + 1) % 200 == 0 or step + 1 == n_steps:
                with torch.no_grad():
                    row["held_out_loss"] = round(next_token_loss(model, held_out).item(), 4)
                state = {
                    "model": model.state_dict(),
                    "optimisers": [o.state_dict() for o in opts],
                    "step": step + 1,
                }
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").rename(checkpoint)
            row["tokens_per_second"] = round(
                (step + 1 - first) * BATCH * CONTEXT / (time.time() - start)
            )
            print(json.dumps(row), file=log, flush=True)
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(f"loss is {row['loss']} at step {step + 1}")


def export(work: Path, out: Path) -> None:
    """Write the model as float16 safetensors in Hugging Face layout, with its tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    model = new_model()
    model.load_state_dict(torch.load(work / "checkpoint.pt", weights_only=True)["model"])
    model.half().save_pretrained(out)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(work / "tokenizer.json"),
        bos_token=END,
        eos_token=END,
        unk_token=END,
        model_max_length=CONTEXT,
    )
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["prepare", "train", "export"])
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for token files, checkpoint and log"
    )
    parser.add_argument("--tokens", type=int, default=48_000_000, help="training tokens")
    parser.add_argument(
        "--out", type=Path, default=Path("data/bundled"), help="where export writes"
    )
    args = parser.parse_args()
    match args.step:
        case "prepare":
            prepare(args.work)
        case "train":
            train(args.work, args.tokens)
        case "export":
            export(args.work, args.out)


if __name__ == "__main__":
    main()
