"""Finished runs handed on to other tools: tables for a spreadsheet, TensorBoard, MLflow, Weights & Biases."""
