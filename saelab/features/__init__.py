"""The feature index: one SQLite file per SAE, written by `build.build`, read by
`reader.FeatureIndex` without torch."""
