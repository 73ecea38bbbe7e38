"""The mini world: procedural image domains, captions and the pretraining of the miniature CLIP."""
