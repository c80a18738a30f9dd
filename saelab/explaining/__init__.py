"""Explanations of features: rules found on training contexts, or a language model's words, scored
by detection on held-out contexts; kept in a run's explanations.db, which `store` reads without
torch."""
