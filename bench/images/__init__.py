"""Where images come from: data sets on disk, folders, downloads, decoding, digests."""
