"""Evaluate a fine-tuned model: metrics, click prediction and next-item ranking."""
