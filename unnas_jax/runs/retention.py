"""Which checkpoints of a run are kept: the last two, the best, and those that it asks for.

The best is that with the best validation metric.
"""

import json
from collections.abc import Sequence

from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

RANKING = "ranking"
"""The metric by which a checkpoint is ranked, in its `progress`."""


class LastTwoAndBest(policies.PreservationPolicy):
    """The policy of an Orbax manager.

    Its own policy for the best ones forgets the metrics when a run starts again. Here they are read
    from the checkpoints.

    Args:
      directory: of the checkpoints.

    Attributes:
      wanted: steps whose checkpoints are kept besides.
    """

    def __init__(self, directory: str) -> None:
        self._directory = epath.Path(directory)
        self._rankings: dict[int, float | None] = {}
        self.wanted: frozenset[int] = frozenset()

    def rank(self, step: int, ranking: float | None) -> None:
        """Notes the ranking, more is better, of a step about to be saved; None if it has none."""
        self._rankings[step] = ranking

    def _ranking(self, step: int) -> float | None:
        if step not in self._rankings:
            path = self._directory / str(step) / "progress" / "metadata"
            try:
                ranking = json.loads(path.read_text())[RANKING]
            except Exception:  # Many types, or no metric; a restore says what is wrong.
                ranking = None
            self._rankings[step] = ranking if isinstance(ranking, float) else None
        return self._rankings[step]

    def best(self, steps: Sequence[int]) -> int | None:
        """The best of the given steps, the latest among equals; None if none has a ranking."""
        rankings = {step: self._ranking(step) for step in steps}
        ranked = [(ranking, step) for step, ranking in rankings.items() if ranking is not None]
        return max(ranked)[1] if ranked else None

    def obsolete(self, steps: Sequence[int]) -> list[int]:
        """Those of the given steps whose checkpoints are not kept."""
        kept = {*sorted(steps)[-2:], self.best(steps), *self.wanted}
        return [step for step in steps if step not in kept]

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        """Whether each is kept, as Orbax asks."""
        steps = [info.step for info in checkpoints]
        obsolete = self.obsolete(steps)
        return [step not in obsolete for step in steps]
