"""The beginning of a program."""

import gc

from unnas_jax.core import starting


def test_only_what_a_program_imported_is_kept_from_collections() -> None:
    before = gc.get_freeze_count()
    starting.imported()  # As in a process that `begin` did not begin, such as this one.
    assert gc.get_freeze_count() == before
    gc.disable()
    try:
        starting.imported()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
        gc.enable()
