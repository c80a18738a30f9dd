"""What the bundled model was made from: its corpus and its prompt templates."""
