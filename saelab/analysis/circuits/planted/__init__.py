"""A model whose circuit is known because it was written by hand: a world with truth for methods."""

from saelab.analysis.circuits.planted.compiled import (
    Compiled,
    compile_program,
    compiled_task,
    true_of,
)
from saelab.analysis.circuits.planted.program import Program, induction

__all__ = ["Compiled", "Program", "compile_program", "compiled_task", "induction", "true_of"]
