"""What attention does with features: where they come from, what heads are about, why they
attend."""
