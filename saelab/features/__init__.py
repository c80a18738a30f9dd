"""The feature index: one SQLite file per SAE, written by `index.build`, read by
`query.FeatureIndex` without torch."""
