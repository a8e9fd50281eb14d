"""The search methods: how a supernet's weights and alphas are trained."""
