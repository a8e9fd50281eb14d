"""Flags of XLA for processes that are started."""

from unnas_jax.core import xla_flags


def test_only_known_flags_that_are_not_given_are_added():
    given = "--xla_backend_optimization_level=0"
    wanted = {
        "xla_backend_optimization_level": "1",
        "xla_cpu_enable_fast_math": "false",
        "xla_cpu_enable_fast_mathematics": "true",
    }
    found = xla_flags.added(given, wanted)
    assert found == f"{given} --xla_cpu_enable_fast_math=false"
    assert xla_flags.added("", {}) == ""


def test_a_library_of_another_name_knows_none(monkeypatch, tmp_path):
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(xla_flags.importlib.util, "find_spec", lambda name: spec)
    assert not xla_flags.known("xla_backend_optimization_level")
