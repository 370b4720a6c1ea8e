"""What a fine-tuned model is worth: metrics, click prediction, next-item ranking."""
