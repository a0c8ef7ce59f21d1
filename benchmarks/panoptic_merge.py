"""Merging whole videos: the streaming merger against the plain formula that holds every mask of every frame.

The plain formula is what the public code does: resize all mask logits, softmax, threshold, then one pass over the volume per
query. It does not fit at 720p and 24 frames (11 GB for one copy of the masks), so both are compared at a quarter of
the size, and the streaming merger runs at the full size by itself.
"""
