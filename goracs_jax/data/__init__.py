"""Examples in and out, raw interactions, splits, and the data of the demo."""
