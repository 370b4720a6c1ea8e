"""Whether distances and rewards tell anything about the losses of trained models."""
