"""What is told people of the prompts that they gave."""

from typing import Any

WHY = {
    "other_lengths": "of another length",
    "unusable": "that this tokenizer does not read as twins with one-token answers",
    "repeated": "given twice",
}


def left_out(given: dict[str, Any]) -> str:
    """How many of the prompts are not used, and why, on a line of its own; "" where all are."""
    told = [f"{given[name]} {words}" for name, words in WHY.items() if given.get(name)]
    return f"\nprompts left out: {', '.join(told)}" if told else ""
