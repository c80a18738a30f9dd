"""Prompts as people read them."""

from typing import Any

from saelab.tasks.tokens import Task

Written = dict[str, Any]  # clean, corrupted (None without a twin), right and wrong answers


def written(task: Task, tokenizer: Any, n: int = 3) -> list[Written]:
    """The first prompts of a task as text, with twins and answers; the beginning-of-text token in
    front is left out.

    >>> written(task("ioi", model), model.tokenizer)[0]["right"]
    [' Mary']
    """
    return [_prompt(task, tokenizer, row) for row in range(min(n, len(task.clean)))]


def _prompt(task: Task, tokenizer: Any, row: int) -> Written:
    end = int(task.positions["end"][row]) + 1
    texts = {
        name: _text(tokenizer, tokens[row, :end].tolist()) if tokens.numel() else None
        for name, tokens in (("clean", task.clean), ("corrupted", task.corrupted))
    }
    answers = {
        name: [tokenizer.decode([token]) for token in ids[row].tolist() if token >= 0]
        for name, ids in (("right", task.right), ("wrong", task.wrong))
    }
    return {**texts, **answers}


def _text(tokenizer: Any, ids: list[int]) -> str:
    start = getattr(tokenizer, "bos_token_id", None)
    return tokenizer.decode(ids[1:] if ids and ids[0] == start else ids)
