"""The training of the tests of whole runs: 64 images, 48 steps of 8, a save every 3 steps."""

from tests import tiny_training


def get_config():
    config = tiny_training.config(epochs=12, batch_size=8)
    config.dataset.name = "folder"
    config.seeds = 2
    config.weights.momentum = 0.9
    config.eval.every_epochs = 2
    config.log_every_steps = 3
    config.checkpoint_every_steps = 3
    return config
