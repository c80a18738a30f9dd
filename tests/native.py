"""Whether Triton's kernels run as they are or interpreted: decided before Triton is imported; and
how they are interpreted."""

import os
from collections.abc import Callable, MutableMapping

import torch


def natively_where_there_is_a_card(environment: MutableMapping[str, str] = os.environ) -> None:
    """Ask for Triton's interpreter where there is no CUDA device, unless somebody said otherwise;
    with a card nothing is set, and the kernels are compiled for it."""
    if not torch.cuda.is_available():
        environment.setdefault("TRITON_INTERPRET", "1")


def patched_once() -> None:
    """Let the interpreter prepare `triton.language` once for a program: it does so again for every
    function that the program calls, which takes two fifths of the time."""
    from triton import language
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def once(function: Callable) -> interpreter._LangPatchScope:
        modules = [m for m in function.__globals__.values() if m is language or m is language.core]
        if any(language.core.is_builtin(module.load) for module in modules):
            return patch(function)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = once
