"""A run: what it opens, its stages on disk, its manifest, and what it prints."""
