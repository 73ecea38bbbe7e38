"""CLAP4CLIP and its variants."""
