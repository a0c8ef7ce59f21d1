"""Networks, losses, association and post-processing. Torch and timm only: no file, no Ray, no recipe."""
