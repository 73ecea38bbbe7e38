"""LADA: vectors of each class beside a text adapter, in the image-text space of a frozen CLIP."""
