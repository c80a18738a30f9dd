"""Other ways to get a dictionary than by training an SAE: pure functions from activations to
weights, which an SAE holds like its own.

>>> fitted = methods.fit("k-svd", x_ND, n_features=512, k=16)
>>> sae = SAE.of(fitted.weights, fitted.sparsify, encoder=fitted.encoder)
"""
