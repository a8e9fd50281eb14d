"""The experiments that train one thing: searches and trainings, their workdirs and checkpoints."""
