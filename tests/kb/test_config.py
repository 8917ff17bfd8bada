"""Settings: precedence, origins, unknown keys, bad values."""

import logging
from pathlib import Path

import pytest

from ingest.loaders.base import ParseLimits
from kb.config import load_settings
from kb.errors import ConfigError


def test_flags_win_over_environment_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kb.toml").write_text("port = 1111\ntop_k = 7\nmax_pages = 3\n")
    monkeypatch.setenv("KB_PORT", "2222")
    monkeypatch.setenv("KB_TOP_K", "8")

    settings, origins = load_settings({"home": tmp_path, "port": 3333, "host": None})

    assert (settings.port, settings.top_k, settings.max_pages) == (3333, 8, 3)
    assert origins["port"] == "--port"
    assert origins["top_k"] == "KB_TOP_K"
    assert origins["max_pages"] == str(tmp_path / "kb.toml")
    assert origins["host"] == "default"


def test_an_unknown_key_in_the_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "kb.toml").write_text("topk = 3\n")

    with pytest.raises(ConfigError, match="did you mean 'top_k'"):
        load_settings({"home": tmp_path})


def test_an_unknown_variable_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KB_PROT", "1")

    with caplog.at_level(logging.WARNING):
        load_settings({"home": tmp_path})

    assert "KB_PROT" in caplog.text
    assert "'port'" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("KB_PORT", "abc"), ("KB_TOP_K", "0"), ("KB_TRACE_DAYS", "9999999")]
)
def test_a_value_that_does_not_fit_names_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=name):
        load_settings({"home": tmp_path})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "kb.toml").write_text("= nonsense")

    with pytest.raises(ConfigError, match=r"kb\.toml"):
        load_settings({"home": tmp_path})


def test_keys_are_not_printed(tmp_path: Path) -> None:
    settings, _ = load_settings({"home": tmp_path, "api_key": "sesame"})

    assert "sesame" not in repr(settings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sesame"


def test_passwords_come_as_a_list_or_one_per_line_and_are_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kb.toml").write_text('passwords = ["open sesame", "dakai"]\n')
    from_file, _ = load_settings({"home": tmp_path})
    monkeypatch.setenv("KB_PASSWORDS", "open sesame\ndakai\n")
    from_environment, origins = load_settings({"home": tmp_path})

    for settings in (from_file, from_environment):
        assert ParseLimits.of(settings).passwords == ("open sesame", "dakai")
        assert "sesame" not in repr(settings) + str(settings.passwords)
    assert origins["passwords"] == "KB_PASSWORDS"
