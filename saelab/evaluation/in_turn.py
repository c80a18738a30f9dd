"""The model that a cross-layer transcoder makes of a model: every layer's output is what it writes
there, of inputs that are this run's own.

Shapes: C contexts, T positions, N tokens that count, D width in, E width out of all layers.
"""

from torch import Tensor

from saelab import joint, kernels
from saelab.cross_layer import CrossLayerTranscoder
from saelab.evaluation.downstream import Compared, predicting
from saelab.models.losses import compare
from saelab.models.running import Act
from saelab.models.splicing import Splice


def edits(clt: CrossLayerTranscoder, counted_CT: Tensor) -> list[tuple[str, Act]]:
    """What to change in a run, for `models.running`, so that each layer's output at the positions
    that count is what `clt`, in inference form, has written to it by then."""
    width = clt.d_out // clt.n_layers
    written = clt.b_dec.detach().repeat(int(counted_CT.sum()), 1)

    def reading(i: int) -> Act:
        def encode(acts: Tensor) -> None:
            x_ND = acts.flatten(2)[counted_CT].to(clt.b_dec)
            code = clt.choose(x_ND, i, clt.sparsify)
            written[:, i * width :] += kernels.spmm(code, clt.layers[i].W_dec.detach())

        return encode

    def writing(i: int) -> Act:
        def replace(acts: Tensor) -> Tensor:
            new = acts.flatten(2).clone()
            new[counted_CT] = written[:, i * width : (i + 1) * width].to(new)
            return new.view_as(acts)

        return replace

    hooks = zip(*map(joint.parts, clt.origin.hooks), strict=True)
    pairs = [((read, reading(i)), (write, writing(i))) for i, (read, write) in enumerate(hooks)]
    return [edit for pair in pairs for edit in pair]


def compared(splice: Splice, clt: CrossLayerTranscoder, counted_CT: Tensor) -> Compared:
    """Loss and KL, in nats, of that run's predictions made where `predicting` says."""
    counted_CT = counted_CT.to(splice.clean.device)
    endings = {"clean": splice.clean, "replaced": splice.run(edits(clt, counted_CT))}
    return compare(splice.model, endings, splice.tokens_CT, predicting(counted_CT))["replaced"]
