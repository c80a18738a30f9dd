"""What codes activations: an SAE, or a cross-layer transcoder, which codes those of many layers."""

from saelab.cross_layer import CrossLayerTranscoder
from saelab.sae import SAE

Coder = SAE | CrossLayerTranscoder
