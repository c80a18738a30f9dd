"""What the bundled language model is trained on: its tokenizer, the record of its corpus, and files
of tokens."""

import hashlib
import importlib.metadata
import json
import platform
import random
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from saelab.activations.packing import pack
from saelab.activations.text import words
from saelab.bundled import corpus, prompts, templates

VOCABULARY, CONTEXT = 4096, 256
END = "<|endoftext|>"


def train_tokenizer(
    documents: list[corpus.Document], n_characters: int = 60_000_000, seed: int = 0
) -> Tokenizer:
    """Byte-level BPE on the training source and prompts; digits split in pairs from the left before
    anything else."""
    rng = random.Random(seed)
    task_words = templates.NAMES + templates.NOUNS + templates.ARGUMENTS

    def texts():
        n_read = 0
        for document in documents:
            if not document.held_out and n_read < n_characters:
                n_read += len(document.text)
                yield document.text
        n_made = 0
        while n_made < n_characters // 5:
            text = prompts.document(rng, task_words)
            n_made += len(text)
            yield text
        yield " ".join(f"{pair:02d}" for pair in range(100))

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def corpus_record(documents: list[corpus.Document]) -> dict:
    """What the corpus was: per package its version, number of files, bytes and one SHA-256 over
    names and texts."""
    standard = {d.name for d in corpus.stdlib()}
    groups: dict[str, list[corpus.Document]] = {}
    for document in documents:
        group = "stdlib" if document.name in standard else document.name.split("/")[0]
        groups.setdefault(group, []).append(document)
    distribution = {"sklearn": "scikit-learn", "transformer_lens": "transformer-lens"}
    packages = []
    for group, members in sorted(groups.items()):
        digest = hashlib.sha256()
        for document in sorted(members):
            digest.update(document.name.encode() + b"\0" + document.text.encode() + b"\0")
        packages.append(
            {
                "package": group,
                "version": platform.python_version()
                if group == "stdlib"
                else importlib.metadata.version(distribution.get(group, group)),
                "files": len(members),
                "held_out_files": sum(d.held_out for d in members),
                "bytes": sum(len(d.text.encode()) for d in members),
                "sha256": digest.hexdigest(),
            }
        )
    return {
        "schema": "saelab/corpus/1",
        "prompt_share_of_characters": corpus.PROMPT_SHARE,
        "packages": packages,
    }


def prepare(work: Path) -> None:
    """Write tokenizer.json (kept if there), corpus.json, train.npy and held_out.npy ([contexts,
    CONTEXT] uint16) into `work`."""
    work.mkdir(parents=True, exist_ok=True)
    documents = corpus.source()
    (work / "corpus.json").write_text(json.dumps(corpus_record(documents), indent=1) + "\n")
    path = work / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else train_tokenizer(documents)
    tokenizer.save(str(path))
    mixed = list(corpus.mixture(words(tokenizer), documents=documents))
    end = tokenizer.token_to_id(END) or 0
    for name, side in (("train", False), ("held_out", True)):
        texts = [d.text for d in mixed if d.held_out == side]
        ids = (e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        contexts = np.stack(
            [packed.tokens for packed in pack(enumerate(ids), CONTEXT, end, end)]
        ).astype(np.uint16)
        np.save(work / f"{name}.npy", contexts)
        print(name, len(texts), "documents", contexts.size, "tokens", flush=True)
