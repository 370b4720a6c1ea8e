"""Decoders, encoders and adapters: weights in, pure functions out."""
