"""Discrete codes on planted heads, where codes can tell, and on shuffled labels, where nothing
can."""

import pytest
import torch

from saelab import SAE, models
from saelab.analysis.circuits import Task, score
from saelab.analysis.circuits.heads import codes
from saelab.analysis.circuits.heads.agreement import agreement
from saelab.errors import UsageError
from saelab.sparsify import Threshold
from tests.analysis.compiled import compile_program, compiled_task

MEMBERS = torch.tensor([True] * 3 + [False] * 9)


def planted(n: int = 40, seed: int = 0, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [n, 12, 32] of clean prompts and of twins: three heads write one of two vectors by
    label, nine regardless of it."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(12, 2, 32, generator=generator)
    either = torch.randint(0, 2, (2, n, 12), generator=generator)
    either[0, :, MEMBERS], either[1, :, MEMBERS] = 0, 1
    clean, corrupted = words[torch.arange(12), either] + noise * torch.randn(
        2, n, 12, 32, generator=generator
    )
    return clean, corrupted


def read(clean: torch.Tensor, corrupted: torch.Tensor, seed: int = 0) -> codes.Codes:
    both = torch.cat([clean, corrupted])
    mean = both.mean(0)
    sae = codes.train(
        (both - mean)[
            torch.randperm(len(both), generator=torch.Generator().manual_seed(seed))[:10]
        ].flatten(0, 1)
    )
    return codes.Codes(codes.code_of(sae, clean - mean), codes.code_of(sae, corrupted - mean))


def test_heads_whose_codes_follow_the_label_are_found():
    found = read(*planted())
    assert agreement(codes.only_in_clean(found), MEMBERS).auc >= 0.95
    assert agreement(codes.votes(codes.pairs_only_in_clean(found)), MEMBERS).auc >= 0.95


def test_shuffled_labels_leave_chance():
    """Codes that noise makes rare appear on one side only by chance, in any head: a score above 0
    is no sign of a circuit."""
    aucs, found = [], read(*planted(seed=1, noise=0.05))
    every = torch.cat([found.clean, found.corrupted])
    for seed in range(40):
        shuffled = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))]
        aucs.append(
            agreement(codes.only_in_clean(codes.Codes(shuffled[:40], shuffled[40:])), MEMBERS).auc
        )
    assert any(auc != 0.5 for auc in aucs)
    assert abs(torch.tensor(aucs).mean() - 0.5) < torch.tensor(aucs).std() < 0.2


def test_a_compiled_circuit_without_decoys_is_found_by_codes(tmp_path):
    compiled = compile_program("selector", tmp_path, decoys=False)
    model = models.load(tmp_path)
    found = codes.of_task(model, compiled_task("selector", model, n=30))
    assert agreement(codes.only_in_clean(found), compiled.heads.flatten()).auc >= 0.95


def test_counting_by_hand():
    """Two heads, codes 0 to 2, three prompts each: head 0 shows 0 1 1 then 1 2 2, head 1 shows 0 0
    0 then 0 0 0."""
    found = codes.Codes(
        torch.tensor([[0, 0], [1, 0], [1, 0]]), torch.tensor([[1, 0], [2, 0], [2, 0]])
    )
    assert codes.only_in_clean(found).tolist() == [1.0, 0.0]
    assert codes.pairs_only_in_clean(found).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert codes.votes(codes.pairs_only_in_clean(found)).tolist() == [2.0, 2.0]


def test_no_active_latent_is_a_code_of_its_own():
    sae = SAE(4, 3, Threshold())
    sae.W_enc.data = torch.eye(3, 4)
    x = torch.tensor([[[1.0, 3, 2, 0]], [[-1.0, -1, -1, 5]], [[0.5, 0, 0, 0]]])
    assert codes.code_of(sae, x).tolist() == [[1], [3], [0]]


def test_head_outputs_are_the_mean_over_positions_of_what_the_heads_add(tiny_model):
    model, tokens = (
        models.load(tiny_model),
        torch.randint(0, 257, (3, 6), generator=torch.Generator().manual_seed(0)),
    )
    model.set_use_attn_result(True)
    seen = {}
    note = ("blocks.1.attn.hook_result", lambda acts, hook: seen.update(a=acts))
    model.run_with_hooks(tokens, return_type="logits", fwd_hooks=[note])
    torch.testing.assert_close(
        codes.head_outputs(model, tokens)[:, 4:], seen["a"].mean(1), rtol=1e-4, atol=1e-5
    )


def test_an_sae_of_another_width_is_refused():
    with pytest.raises(
        UsageError, match=r"reads vectors of width 4, the heads write 32 wide .* hook_attn_out"
    ):
        codes.code_of(SAE(4, 3, Threshold()), torch.zeros(2, 3, 32))
    with pytest.raises(UsageError, match="codes read heads with an SAE, this is a transcoder"):
        codes.code_of(SAE(32, 3, Threshold(), transcoder=True), torch.zeros(2, 3, 32))


def test_any_sae_of_the_streams_width_can_read_the_codes(tiny_model):
    """Raw outputs then: the SAE has its own idea of the mean."""
    model = models.load(tiny_model)
    tokens = torch.randint(0, 257, (2, 6, 5), generator=torch.Generator().manual_seed(0))
    task = Task("random", *tokens, tokens[0, :, :1], tokens[1, :, :1], "logit_difference", {}, {})
    sae = SAE(32, 16, Threshold(), seed=1).requires_grad_(False)
    found = score(model, task, "codes", sae=sae)
    expected = codes.code_of(sae, codes.head_outputs(model, task.clean))
    assert torch.equal(codes.of_task(model, task, sae).clean, expected)
    assert found.heads.shape == (2, 4) and found.edges is not None and len(found.edges) == 16
