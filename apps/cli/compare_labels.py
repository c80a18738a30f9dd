"""Labels of one's own in `saelab compare`: how often they are absorbed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from saelab.errors import UsageError

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.evaluation.labelled import Labelled
    from saelab.opening import Opened
    from saelab.tasks.labelled_texts import LabelledTexts


class Asked(Protocol):
    """What is asked of the options of `saelab compare`."""

    @property
    def labels(self) -> Path | None:
        """File of texts and labels."""
        ...

    @property
    def seed(self) -> int:
        """Of which half of the texts is scored."""
        ...


def read(path: Path | None) -> "LabelledTexts | None":
    """The texts of a file, if one is named."""
    from saelab.tasks import labelled_texts

    return labelled_texts.read(path) if path else None


def known(opened: "Opened", texts: "LabelledTexts | None") -> "Labelled | None":
    """Activations of the texts, if there are any."""
    from saelab.evaluation.labelled_texts import at_last_token

    if texts is None:
        return None
    if opened.model is None:
        raise UsageError(f"--labels needs the model of {opened.folder.path}: name it with --model")
    bos = opened.cache.plan.asked_bos
    return at_last_token(opened.model, opened.sae.origin.hook, texts, bos)


def absorbed(
    first: "SAE", second: "SAE", labelled: "Labelled | None", args: Asked
) -> dict[str, Any]:
    """The document's part on absorption; none without labels."""
    from saelab.analysis.comparison import absorbing

    if labelled is None:
        return {}
    found = absorbing.compared(first, second, labelled, args.seed)
    return {"absorption": {"labels": str(args.labels), **found}}
