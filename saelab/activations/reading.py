"""A text read by a tokenizer: its documents with their token ids."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from saelab.activations.packing import Pieces
from saelab.activations.text import DECIDING, Text, words
from saelab.documents import Document, Place
from saelab.errors import UsageError
from saelab.models.tokens import Encoder
from saelab.textfiles import Skipped

AT_ONCE = 1 << 17  # characters that are tokenised together
# A document of more characters is tokenised in pieces that end with a line: the ids of a whole book
# take a hundred times its size.
LONG = 1 << 20

Tokenised = Iterator[tuple[Document, Pieces]]


def _every(document: Document) -> bool:
    return True


class Reading:
    """A text and the tokenizer that reads it, text for text unless parse_special: see `Encoder`."""

    def __init__(self, text: Text, tokenizer: Any, parse_special: bool = False) -> None:
        self.text = text
        self.words = words(tokenizer) if text.name == "bundled-mix" else None
        self.encoder = Encoder(tokenizer, parse_special)

    def tokenised(
        self,
        skipped: Skipped | None = None,
        wanted: Callable[[Document], Any] = _every,
        place: Place | None = None,
    ) -> Tokenised:
        """Each document from a place on with its token ids, none where it is not wanted; many are
        tokenised at once, which uses every core. Pieces are to be read before the next document is
        asked for."""
        for batch in _batches(self.text.documents(self.words, skipped, place)):
            read = [i for i, one in enumerate(batch) if len(one.text) <= LONG and wanted(one)]
            ids = dict(zip(read, self.encoder.ids([batch[i].text for i in read]), strict=True))
            for i, document in enumerate(batch):
                if len(document.text) > LONG:
                    yield document, self._pieces(document.text) if wanted(document) else ()
                else:
                    yield document, [ids[i]] if i in ids else ()

    def _pieces(self, text: str) -> Iterator[list[int]]:
        start = 0
        while start < len(text):
            # Behind the last end of a line; where there is none, wherever it is.
            end = text.rfind("\n", start, start + LONG) + 1 or start + LONG
            yield self.encoder.ids([text[start:end]])[0]
            start = end

    def check_room(self, n_tokens: int) -> None:
        """Raise UsageError where a text of fewer than DECIDING documents has not this many tokens,
        document ends included, for each side of its split."""
        if self.words is not None or self.text.name == "stdlib":
            return
        n_read, n_documents = {False: 0, True: 0}, 0
        for document, pieces in islice(self.tokenised(), DECIDING):
            n_documents += 1
            n_read[self.text.split.holds_out(document.key)] += 1 + sum(map(len, pieces))
            if min(n_read.values()) >= n_tokens:
                return
        if n_documents < DECIDING:
            side = min(n_read, key=lambda side: n_read[side])
            raise UsageError(
                f"the {n_documents} documents of {self.text.name} give {n_read[side]} "
                f"{'held-out' if side else 'training'} tokens, a context takes {n_tokens}: use "
                "more or longer documents, or a smaller --context"
            )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    n_characters = 0
    for document in documents:
        batch.append(document)
        n_characters += len(document.text)
        if n_characters >= AT_ONCE:
            yield batch
            batch, n_characters = [], 0
    if batch:
        yield batch
