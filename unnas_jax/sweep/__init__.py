"""Many trainings: samples of architectures, as units of work on one machine or a cluster."""
