"""A run on disk: its inputs, its stages, its manifest, and what it prints."""
