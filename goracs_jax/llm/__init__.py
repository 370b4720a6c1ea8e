"""What a language model says of texts: tokens, losses, embeddings and gradients."""
