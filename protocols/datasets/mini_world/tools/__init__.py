"""Programs for those who change the mini world: pretrain its CLIP, measure it, pin its pixels. No run needs them."""
