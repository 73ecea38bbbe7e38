"""Fine-tuning of both towers, with and without distillation."""
