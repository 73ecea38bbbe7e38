"""The search for settings on validation images: which trials, how they are carried out, what comes out."""
