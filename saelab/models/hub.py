"""The Hugging Face hub, asked once and briefly: without a network the answer comes within
seconds."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

SECONDS = 1.5  # for the one question; downloads that follow take as long as they take
PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]

Answer = Literal["yes", "no", "offline", "unreachable"]


def _within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """The call's answer, or "unreachable": a name server that never answers obeys no timeout, hence
    the thread."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else "unreachable"


def has(name: str, kind: Literal["model", "dataset"]) -> Answer:
    """Whether the hub has the model or dataset `name`. "offline" when HF_HUB_OFFLINE is set; "no"
    also for a gated one."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        return "offline"

    def ask() -> Answer:
        try:
            HfApi().repo_info(name, repo_type=kind, timeout=SECONDS)
        except (HfHubHTTPError, HFValidationError) as error:
            response = getattr(error, "response", None)
            return "unreachable" if response is not None and response.status_code >= 500 else "no"
        except Exception:  # every transport has its own error types; all mean the same here
            return "unreachable"
        return "yes"

    return _within(SECONDS + 0.3, ask)


def cached(name: str) -> Path | None:
    """The snapshot folder of a model in the local hub cache (its name is the commit), or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def download(name: str) -> Path:
    """Fetch a model's configuration, tokenizer and safetensors into the hub cache; returns the
    snapshot folder."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=PATTERNS))


def refusal(answer: Answer) -> str:
    """The answer in words, for an error message."""
    return {
        "yes": "the hub has it",
        "no": "the hub has none of that name (or not for you)",
        "offline": "the hub is switched off by HF_HUB_OFFLINE",
        "unreachable": "the hub is unreachable",
    }[answer]
