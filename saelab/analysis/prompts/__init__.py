"""One's own text: which features fire on it, what each does to the loss and to the next token."""

from saelab.analysis.prompts.ablation import Exact, exact
from saelab.analysis.prompts.attribution import Attribution, attribute
from saelab.analysis.prompts.comparing import Comparison, compare
from saelab.analysis.prompts.errors import ErrorSplit, error_split
from saelab.analysis.prompts.features import (
    ESTIMATES,
    ORDERS,
    By,
    Estimated,
    Read,
    Table,
    on_token,
    read,
    strongest,
    table,
    traces,
)
from saelab.analysis.prompts.integrated import integrated
from saelab.analysis.prompts.text import Prompt, next_token, prompt

__all__ = [
    "ESTIMATES",
    "ORDERS",
    "Attribution",
    "By",
    "Comparison",
    "ErrorSplit",
    "Estimated",
    "Exact",
    "Prompt",
    "Read",
    "Table",
    "attribute",
    "compare",
    "error_split",
    "exact",
    "integrated",
    "next_token",
    "on_token",
    "prompt",
    "read",
    "strongest",
    "table",
    "traces",
]
