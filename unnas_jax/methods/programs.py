"""The compiled parts of a step of DARTS, and the same programs before they are compiled."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from unnas_jax.methods.adversarial import Adversary
from unnas_jax.methods.base import SearchMethod

Which = Literal["weights", "alphas", "both"]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The parts of `Darts` that are compiled, each a program; see the methods of these names.

    Attributes:
      curved: `curvature.product`.
      of_alphas, of_weights: which gradients the passes of the two steps compute.
    """

    gradients: Any
    unrolled: Any
    update_alphas: Any
    update_weights: Any
    scores: Any
    curved: Any
    of_alphas: Which
    of_weights: Which

    def lower(
        self, method: SearchMethod, adversary: Adversary | None, batch: Any
    ) -> dict[str, list[jax.stages.Lowered]]:
        """The programs of an alpha step and of a weight step; see `SearchMethod.lower`."""

        def lowered(function: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
            program = function.lower(*arguments, **options)
            return program, method.replicated(program.out_info)

        state, purpose = method.shapes(), method.replicated(jax.ShapeDtypeStruct((), jnp.int32))
        perturbing, given = [], None
        if adversary is not None:
            begin, (_, shares) = lowered(adversary.begin, state)
            ascend, (loss, _) = lowered(adversary.ascend, state, batch, shares)
            end, given = lowered(adversary.end, shares, shares, loss, loss)
            perturbing = [ascend, begin, end]
        if method.config.search.order == 2:
            of_alpha, (alpha_grads, _) = lowered(self.unrolled, state, batch, batch)
        else:
            of_alpha, (_, alpha_grads, _, _) = lowered(
                self.gradients, state, batch, purpose, of=self.of_alphas, given=given
            )
        of_weight, (grads, _, batch_stats, _) = lowered(
            self.gradients, state, batch, purpose, of=self.of_weights, given=given
        )
        return {
            "alphas": [of_alpha, lowered(self.update_alphas, state, alpha_grads)[0]],
            "weights": [
                of_weight,
                lowered(self.update_weights, state, grads, batch_stats)[0],
                *perturbing,
            ],
        }
