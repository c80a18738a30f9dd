"""One reading of a text: its documents become contexts, and each says what it takes to go on behind
it.

Shapes: T positions.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch

from saelab.activations.packing import PACKERS, Packed, Pieces
from saelab.activations.plan import Plan
from saelab.activations.reading import Reading
from saelab.activations.source import SPLITS, Piece
from saelab.activations.text import is_here, name_of
from saelab.documents import Document, Place
from saelab.errors import FailedRun, UsageError
from saelab.textfiles import Skipped


class TextPieces:
    """Contexts, one by one, until the plan's tokens are reached. `names` and `notes` grow as
    documents are read.

    Train and held-out documents are packed apart, so that a context, and a shard, belongs to one
    split. Documents of a split that is full are passed over. state: what a context's `state()`
    gave, to go on behind it. Raises UsageError for a document of tokens that the model has no
    embedding for, FailedRun if the text is not the one that the state is of.
    """

    def __init__(
        self,
        plan: Plan,
        reading: Reading,
        n_embeddings: int,
        special: Iterable[int] = (),
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.reading, self.n_embeddings = plan, reading, n_embeddings
        self.special = torch.tensor(sorted(special), dtype=torch.long)
        packer = PACKERS[plan.pack]
        self.packers = {split: packer(plan.context, plan.bos, plan.eos) for split in SPLITS}
        self.n_contexts = dict.fromkeys(SPLITS, 0)
        self.names: list[str] = []
        self.notes: dict[str, Any] = {}
        self.without: list[int] = []  # records of a streamed text that gave no document
        self.n_records = 0
        self.digest = Digest() if is_here(plan.text) else None
        self.begun = state
        if state is not None:
            self._restore(state)

    def __iter__(self) -> Iterator[Piece]:
        skipped = Skipped(self.reading.text.strict)
        place = None
        if self.begun is not None:
            place = Place(**self.begun["place"])
            skipped.restore(place.skipped)
        wanted = lambda document: self._room(self._split(document))  # noqa: E731
        n_done = 0 if self.begun is None else self.begun["done"]
        for document, pieces in self.reading.tokenised(skipped, wanted, place):
            if n_done:
                self._check_begun(document)
            before = self._before(document)
            self._name(document, skipped)
            for number, piece in enumerate(self._packed(document, pieces), 1):
                if number > n_done:
                    yield piece._replace(state=before and partial(self._state, before, number))
            n_done = 0
            if not any(self._room(split) for split in SPLITS):
                self._note(ended=False)
                return
        self.notes |= skipped.notes()
        self._note(ended=True)

    def _packed(self, document: Document, pieces: Pieces) -> Iterator[Piece]:
        """The contexts that a document fills."""
        split = self._split(document)
        if not self._room(split):
            return
        for packed in self.packers[split].add(len(self.names) - 1, self._known(document, pieces)):
            if self.plan.pack != "documents":
                self.notes["cut"] = sum(each.n_cut for each in self.packers.values())
            piece = self._piece(split, packed, sum(self.n_contexts.values()))
            self.n_contexts[split] += 1
            yield piece
            if not self._room(split):
                return

    def _name(self, document: Document, skipped: Skipped) -> None:
        self.names.append(document.name)
        if self.digest:
            self.digest.add(document)
        if document.place is None:
            self.notes |= skipped.notes()
            return
        # What was left out behind it, in what was read along with it, is not known of a reading
        # that stops here.
        self.notes |= document.place.skipped
        self.without += range(self.n_records, document.place.record)
        self.n_records = document.place.record + 1

    def _note(self, ended: bool) -> None:
        if self.digest:
            self.notes["documents_read"] = self.digest.note(ended)

    def _split(self, document: Document) -> str:
        return SPLITS[self.reading.text.split.holds_out(document.key)]

    def _known(self, document: Document, pieces: Pieces) -> Pieces:
        """The ids of a document. Raises UsageError for one that the model has no embedding for."""
        for ids in pieces:
            if (largest := max(ids, default=0)) >= self.n_embeddings:
                raise UsageError(
                    f"{document.name} holds token {largest:,}, the model has embeddings for "
                    f"{self.n_embeddings:,}: without --parse-special text is text"
                )
            yield ids

    def _piece(self, split: str, packed: Packed, number: int) -> Piece:
        """One context as a piece."""
        tokens_1T, owners_1T, counted_1T = (torch.from_numpy(column)[None] for column in packed)
        if self.plan.uncounted:
            counted_1T = counted_1T & ~torch.isin(tokens_1T, self.special)
        return Piece(split, tokens_1T, owners_1T, torch.tensor([number]), counted_1T)

    def _room(self, split: str) -> int:
        """How many more contexts a split may have. Of a plan that does not say, all that are left,
        the last of them kept for a split that has nothing yet, however late its first document."""
        plan = self.plan
        n_wanted, n_held_out = (-(-n // plan.context) for n in (plan.n_tokens, plan.n_held_out))
        if n_held_out:
            wanted = {"train": n_wanted - n_held_out, "held_out": n_held_out}
            return wanted[split] - self.n_contexts[split]
        others = sum(self.n_contexts.values()) - self.n_contexts[split]
        return n_wanted - self.n_contexts[split] - max(1, others)

    def _before(self, document: Document) -> dict[str, Any] | None:
        """What it takes to read on from this document; None of a text that begins again."""
        if document.place is None:
            return None
        return {
            "place": document.place._asdict(),
            "document": document.text,
            "n_contexts": dict(self.n_contexts),
            "packers": {split: packer.state() for split, packer in self.packers.items()},
            "without": len(self.without),
            "n_records": self.n_records,
            "notes": dict(self.notes),
        }

    def _state(self, before: Mapping[str, Any], n_done: int) -> dict[str, Any]:
        """What it takes to go on behind the n_done-th context of a document."""
        return {
            **before,
            "document": _sha256(before["document"]),
            "without": self.without[: before["without"]],
            "done": n_done,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.n_contexts |= state["n_contexts"]
        self.notes |= state["notes"]
        for split, packer in self.packers.items():
            packer.restore(state["packers"][split])
        self.without, self.n_records = [*state["without"]], state["n_records"]
        without = set(self.without)
        records = (number for number in range(self.n_records) if number not in without)
        self.names += (name_of(self.plan.text, number) for number in records)

    def _check_begun(self, document: Document) -> None:
        assert self.begun is not None
        if _sha256(document.text) != self.begun["document"]:
            raise FailedRun(
                f"{self.plan.text} is not what it was when this capture was begun: {document.name} "
                "is another text; delete the cache and capture again"
            )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Digest:
    """Of the documents that a reading took: their names, keys and texts, in order."""

    def __init__(self) -> None:
        self.sha, self.n_documents = hashlib.sha256(), 0

    def add(self, document: Document) -> None:
        """Take one more document."""
        self.n_documents += 1
        key = "" if document.key == document.text else document.key
        for part in (document.name, key, document.text):
            written = part.encode("utf-8", "surrogatepass")
            self.sha.update(len(written).to_bytes(8, "big"))
            self.sha.update(written)

    def note(self, ended: bool) -> dict[str, Any]:
        """For a manifest. ended: whether there was no further document."""
        return {"n": self.n_documents, "sha256": self.sha.hexdigest(), "ended": ended}


def unchanged(reading: Reading, notes: Mapping[str, Any]) -> bool:
    """Whether the documents of which `TextPieces` took these notes are surely there as they were,
    so that the same plan makes the same contexts of them."""
    note = notes.get("documents_read")
    if not isinstance(note, Mapping) or not isinstance(note.get("n"), int):
        return False
    documents = reading.text.documents(reading.words, Skipped())
    digest = Digest()
    for document in islice(documents, note["n"]):
        digest.add(document)
    return digest.note(next(documents, None) is None if note.get("ended") else False) == note
