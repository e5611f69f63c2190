"""Keys of a hook that are accepted, refused, or warned about when the file is read."""

from __future__ import annotations

import logging

import pytest

from anyspawn.config import InvalidConfigError, load_config, parse_config

HEAD = (
    "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\nspec:\n  hooks:\n    h: "
)


def hook(entry, **environ):
    return parse_config(HEAD + entry, environ=environ).hooks["h"]


def test_what_the_new_keys_mean():
    """The keys reach the hook."""
    made = hook("{command: x, hook: tool, rewrites: true, names: snake}")
    assert (made.rewrites, made.names) == (True, "snake")
    made = hook(
        "{command: x, hook: agent, protocol: claude, phases: [Stop], on_failure: as_claude, project: .}"
    )
    assert (made.phases, made.on_failure, made.kind) == (("Stop",), "as_claude", "agent")
    assert made.project.startswith("/")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{command: x, hook: tool, timeout_ms: .inf}", "h.timeout_ms: must be at most"),
        ("{command: x, hook: tool, timeout_ms: 1e300}", "h.timeout_ms: must be at most"),
        ("{command: x, hook: tool, timeout_ms: ${T}}", 'in quotes: "${NAME}"'),
        ("{command: x, hook: session, rewrites: true}", "h.rewrites: needs a filter"),
        ("{command: x, hook: tool, on_failure: as_claude}", "not of protocol 'exec'"),
        ("{command: x, hook: agent}", "no event for agent hooks"),
        (
            "{command: x, hook: agent, protocol: codex, phases: [Notification]}",
            "not a phase of this",
        ),
        ("{command: x, hook: tool, protocol: cursor, names: snake}", "protocol 'exec' alone"),
        ("{command: x, hook: tool, project: /p}", "h.project: is of the protocols"),
        (
            "{command: x, hook: tool, protocol: claude, matcher: 'Bash(git *)'}",
            "spelling of permission rules",
        ),
        (
            "{command: x, hook: session, protocol: claude, phases: [session_update], matcher: x}",
            "h.matcher: ",
        ),
    ],
)
def test_what_is_refused(entry, words):
    """The error names the place and says what to do."""
    with pytest.raises(InvalidConfigError) as caught:
        hook(entry, T="5")
    assert words in str(caught.value)


def test_eval_hooks_with_a_mode_and_phases_load(caplog):
    """The reference implementation ignores both keys, so this only warns."""
    with caplog.at_level(logging.WARNING, "anyspawn"):
        made = hook("{command: x, hook: eval, mode: filter, phases: [before_call]}")
    assert made.mode == "observe"
    assert "mode and phases have no effect for eval hooks" in caplog.text


def test_an_argument_that_names_a_file_beside_the_configuration(tmp_path, caplog):
    """The program will not find the file in its working directory, so a warning says so."""
    (tmp_path / "guard.py").write_text("")
    file = tmp_path / "agent.yaml"
    file.write_text(HEAD + "{command: python3, args: [-u, guard.py, other.py], hook: tool}")
    with caplog.at_level(logging.WARNING, "anyspawn"):
        load_config(file)
    assert "spec.hooks.h: args[1]: 'guard.py' is a file beside" in caplog.text
    assert "other.py" not in caplog.text
