"""The layers that every search space and every task is built from."""
