"""A bank of learned values for each task, added to the attention of frozen towers and weighed by how familiar an image is."""
