"""Read and write examples, clean and split raw interactions, fetch demo data."""
