"""What steering does to a task's metric: measured, and told to people."""

from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError

from . import prompt_source
from .common import cell
from .own_words import left_out

if TYPE_CHECKING:
    from saelab.analysis.steering import Edit
    from saelab.prompting import Bench

RANDOM = 20  # directions of the edit's length, which give the null


def measured(args: Any, bench: "Bench", edits: "list[Edit]") -> dict[str, Any]:
    """The document's part on the prompts of a file or task. Raises UsageError for `--at`, and for
    fewer than two prompts."""
    from saelab.analysis import steering

    if args.at:
        raise UsageError("--at: on prompts of a task every token but the first is edited")
    needs = ("answers",)
    given = prompt_source.given(args.task, args.prompts, bench.model, args.n, args.seed, needs)
    task = given.task
    if len(task.clean) < 2:
        raise UsageError(f"task {task.name}: one prompt is too few for an interval: give two")
    steered = steering.steer(bench.model, task, bench.sae, edits, RANDOM, args.seed)
    estimates = steered.estimates()
    return {
        "name": task.name,
        "metric": task.metric,
        "prompts": len(task.clean),
        "left_out": given.left_out,
        "steered": estimates["metric"].as_dict(),
        "change": estimates["change"].as_dict(),
        "kl": estimates["kl"].as_dict(),
        "random_change": steered.random_change.tolist(),
        "random_kl": steered.random_kl.tolist(),
        "length": steered.length,
    }


def text(result: dict[str, Any], edits: str) -> str:
    """The part for people."""
    task = result["task"]
    metric = task["metric"].replace("_", " ")
    return "\n".join(
        [
            f"{result['run']}, {edits}, on {task['prompts']} prompts of {task['name']}; null: "
            f"{RANDOM} random directions of its length ({task['length']:.2f})"
            + left_out(task["left_out"]),
            f"  {metric}, steered  {cell(task['steered'])}",
            f"  change of it  {cell(task['change'])}, null {task['change']['null']:.4f}",
            f"  KL at the end, nats  {cell(task['kl'])}, null {task['kl']['null']:.4f}",
        ]
    )
