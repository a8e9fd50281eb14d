"""The programs of a search step, not compiled: what they need is asked ahead of time."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from unnas_jax.methods.adversarial import Adversary
from unnas_jax.methods.base import SearchState, Setting


class Method(Protocol):
    """What is asked of a search method here; see `unnas_jax.methods.darts.Darts`."""

    setting: Setting
    config: Any
    programs: Any
    adversary: Adversary | None
    of_alphas: Any
    of_weights: Any

    def shapes(self) -> SearchState:
        """The shapes and shardings of the stage's state."""

    def placed(self, tree: Any) -> Any:
        """Shapes with the sharding of what is whole on every device."""


def of_darts(method: Method, batch: Any) -> dict[str, list[jax.stages.Lowered]]:
    """The programs of an alpha step and of a weight step; see `SearchMethod.lower`."""

    def lowered(function: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        program = function.lower(*arguments, **options)
        return program, method.placed(program.out_info)

    programs, state = method.programs, method.shapes()
    purpose = method.placed(jax.ShapeDtypeStruct((), jnp.int32))
    adversary, given = [], None
    if method.adversary is not None:
        begin, (_, shares) = lowered(method.adversary.begin, state)
        ascend, (loss, _) = lowered(method.adversary.ascend, state, batch, shares)
        end, given = lowered(method.adversary.end, shares, shares, loss, loss)
        adversary = [ascend, begin, end]
    if method.config["search"]["order"] == 2:
        of_alpha, (alpha_grads, _) = lowered(programs.unrolled, state, batch, batch)
    else:
        of_alpha, (_, alpha_grads, _, _) = lowered(
            programs.gradients, state, batch, purpose, of=method.of_alphas, given=given
        )
    of_weight, (grads, _, batch_stats, _) = lowered(
        programs.gradients, state, batch, purpose, of=method.of_weights, given=given
    )
    return {
        "alphas": [of_alpha, lowered(programs.update_alphas, state, alpha_grads)[0]],
        "weights": [
            of_weight,
            lowered(programs.update_weights, state, grads, batch_stats)[0],
            *adversary,
        ],
    }
