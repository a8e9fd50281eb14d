"""The search of the tests of whole runs: 64 images, 12 epochs of 4 steps, a save every 3 steps."""

from tests import tiny


def get_config():
    config = tiny.quick(epochs=12)
    config.dataset.name = "folder"
    config.train.batch_size = 8
    config.log_every_steps = 3
    config.checkpoint_every_steps = 3
    return config
