"""The features of one layer of a cross-layer transcoder, as a transcoder to all that they write to.

Shapes: L layers, F features per layer, D width in, E width out.
"""

from dataclasses import replace

import torch

from saelab import joint
from saelab.cross_layer import CrossLayerTranscoder
from saelab.origin import Origin
from saelab.sae import SAE


def transcoder(clt: CrossLayerTranscoder, i: int) -> SAE:
    """The features of layer i, with weights that are shared: from its input [B, D] to its own and
    all later outputs side by side [B, (L - i) E].

    What those of all layers decode to adds up to what `clt` does, so that b_dec of an output is
    with the features of its own layer. In inference form. Raises UsageError where `clt` has not
    been calibrated.

    >>> first = transcoder(CrossLayerTranscoder.load("runs/clt"), 0)
    """
    one, clt = clt.layers[i], clt.frozen()
    width = clt.d_out // clt.n_layers
    b_dec = torch.zeros(one.W_dec.shape[1]).to(clt.b_dec)
    b_dec[:width] = clt.b_dec.detach()[i * width : (i + 1) * width]
    weights = {"W_enc": one.W_enc, "b_enc": one.b_enc, "W_dec": one.W_dec, "b_dec": b_dec}
    if one.levels is not None:
        weights["levels"] = one.levels
    sae = SAE.of(weights, clt.sparsify, transcoder=True)
    sae.origin = _origin(clt.origin, i, clt.n_layers)
    return sae


def _origin(whole: Origin, i: int, n_layers: int) -> Origin:
    reads, writes = map(joint.parts, whole.hooks)
    more = {**whole.more, "clt_layer": i, "clt_layers": n_layers}
    if len(reads) != n_layers:  # of unknown places
        return replace(whole, more=more)
    return replace(whole, hook=reads[i], target=joint.joined(writes[i:]), more=more)
