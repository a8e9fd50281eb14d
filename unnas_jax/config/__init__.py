"""The configs of the experiments: fields, defaults, and what values are possible."""
