"""One's own text: which features fire on it, what each does to the loss and to the next token."""

from saelab.analysis.prompts.ablation import Exact, exact
from saelab.analysis.prompts.attribution import Attribution, attribute
from saelab.analysis.prompts.comparing import Comparison, compare
from saelab.analysis.prompts.errors import ErrorSplit, error_split
from saelab.analysis.prompts.features import (
    ORDERS,
    By,
    Read,
    Table,
    on_token,
    read,
    strongest,
    table,
    traces,
)
from saelab.analysis.prompts.text import Prompt, next_token, prompt

__all__ = [
    "ORDERS",
    "Attribution",
    "By",
    "Comparison",
    "ErrorSplit",
    "Exact",
    "Prompt",
    "Read",
    "Table",
    "attribute",
    "compare",
    "error_split",
    "exact",
    "next_token",
    "on_token",
    "prompt",
    "read",
    "strongest",
    "table",
    "traces",
]
