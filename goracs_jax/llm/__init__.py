"""Language models on texts: prompts, tokens, losses, embeddings and gradients."""
