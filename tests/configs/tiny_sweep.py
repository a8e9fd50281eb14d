"""The sweep of the measurements of kills: two tasks, two seeds, 16 steps each."""

from tests import tiny_training
from unnas_jax.config import schema as config_lib


def get_config():
    config = config_lib.sample()
    training = tiny_training.config(epochs=4)
    training.dataset.name = "folder"
    training.seeds = 2
    training.log_every_steps = 1
    config.training = training.to_dict()
    config.tasks = ("classification", "rotation")
    config.recipes = {"rotation": {"weights": {"learning_rate": 0.05}}}
    config.sweep.update(cores_per_worker=64, attempts=1000)
    return config
