"""What SAEs miss: the error's linear and nonlinear parts, and what each costs the model."""

from saelab.analysis.dark_matter.decomposition import Decomposition, Map, decompose, fit

__all__ = ["Decomposition", "Map", "decompose", "fit"]
