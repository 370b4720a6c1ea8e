"""What other trainers need: gradients of any loss, embeddings, and a chosen subset."""
