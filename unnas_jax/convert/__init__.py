"""Configs and checkpoints of the method's PyTorch release, to and from the forms used here."""
