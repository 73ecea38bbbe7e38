"""Fine-tuning of the image tower under a linear head."""
