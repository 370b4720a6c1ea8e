"""Gradients of single examples, of any loss, and their random projections."""
