"""Every number's interval: by documents, over seeds, and sums to make them from."""
