"""The options of `saelab capture`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from saelab.ranges import LARGEST, Bytes, Count, OrNone, Range, Several
from saelab.runs import RunFolder

from .common import Folder, OfModel, Place, unsaid

TOKENS = 2_000_000  # positions, where nobody says how many


@dataclass(frozen=True)
class Args(OfModel):
    """Options of `saelab capture`."""

    for_: Annotated[Folder, arg(name="for")] = None
    """run whose SAE is to get a cache, such as an imported one: its model, hook, BOS rule, context,
    mask and, where it is here, text, unless they are given; the run then knows that cache"""
    model: Place = None
    """bundled, a folder in Hugging Face layout, or a hub name (default: bundled; with --for the
    run's)"""
    text: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None
    """stdlib (the default), bundled-mix, a file or folder (plain text, JSON, JSON lines, CSV, TSV,
    Parquet, each compressed or not, or what `save_to_disk` wrote), or a hub dataset"""
    hook: UseAppendAction[tuple[str, ...]] = ()
    """hook point, with * of every layer; may be given several times; with --for of an imported
    transcoder what it reads, then what it explains"""
    arrays: Folder = None
    """one's own activations instead of a model's: a .npy file, [N, D] or [C, T, D], or a
    .safetensors file with an array per hook; all of their rows are taken"""
    ids: Folder = None
    """with --arrays: a .safetensors file with any of tokens, owners (document of each row or
    context) and counted, or a .npy file of tokens"""
    images: Annotated[str | None, arg(metavar="IMAGES")] = None
    """of a vision model: a folder of images, one image, a .zip or .parquet of them, what
    `save_to_disk` wrote, a hub dataset, or `scenes`, which are drawn here with labels; each image
    is a context, its patches count"""
    image_column: str = ""
    """column of a table that holds the images (default: image, img, picture or pixels)"""
    tokens: Annotated[Count | None, unsaid] = None
    """positions to cache, such as 2000000, 500k or 2M; about 5% are held out (default: 2M, or as
    many as --bytes holds)"""
    bytes: Annotated[Bytes | None, Range(1, whole=True), unsaid] = None
    """size of all shards together, such as 500MB, 2GB or 1TB: the cache ends before it, with both
    splits (default: what --tokens take)"""
    held_out: Annotated[OrNone, arg(help_behavior_hint="")] = 0
    """of these, positions to hold out, of as many documents as it takes (default: as the documents
    fall)"""
    out: Folder = None
    """folder of the cache (default: cache; with --for: RUN/cache)"""
    context: Annotated[Several | None, unsaid] = None
    """positions per context (default: the model's, at most 1024; one-per-context: the longest of
    the first 1000 documents)"""
    pack: Literal["documents", "one-per-context"] = "documents"
    """documents: joined and cut into full contexts; one-per-context: each document alone, the rest
    padding that does not count"""
    gradients: bool = False
    """also cache the loss's gradient at each hook point"""
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    """dtype on disk; int8 with a scale for each token is half of float16"""
    shard_mb: Annotated[int | None, Range(1, 4096, whole=True), unsaid] = None
    """megabytes of activations in a shard's file, of which three are in memory at once (default:
    64)"""
    text_field: str = "text"
    """field or column of records that holds the text"""
    strict: bool = False
    """refuse a text of which records (without a text) or files (that cannot be read) would be left
    out"""
    parse_special: bool = False
    """read special and other added tokens, such as <|endoftext|>, where the text spells them; by
    itself all text is text"""
    bos: Annotated[str | None, unsaid] = None
    """id of the token that starts each context, or none (default: the tokenizer's BOS, or its
    end-of-text token where it has no BOS)"""
    uncounted: Annotated[Literal["special", "none"] | None, arg(help_behavior_hint="")] = None
    """special: tokens that stand for no text do not count, as position 0 never does (default:
    none)"""
    dry_run: bool = False
    """print bytes, seconds, peak memory and the first context; write nothing"""
    check: Folder = None
    """print instead what each dtype adds to the FVU and cross-entropy of this run's SAE; write
    nothing"""
    cache: Folder = None
    """with --check: where the run's cache lies now (default: where the run says)"""

    @property
    def place_of_cache(self) -> Path:
        """Where the cache goes."""
        if self.out is None:
            return Path("cache") if self.for_ is None else RunFolder(self.for_).cache
        return self.out

    @property
    def n_tokens(self) -> int:
        """Positions that are asked for, or at most."""
        unsaid = TOKENS if self.bytes is None else LARGEST
        return self.tokens or unsaid
