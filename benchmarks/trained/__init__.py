"""Each package's own way to train an SAE on given batches; a module imports its package alone."""
