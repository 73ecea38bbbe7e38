"""What is stored of finished runs, and the numbers that follow from it. Nothing here imports torch."""
