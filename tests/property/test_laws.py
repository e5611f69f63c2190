"""The laws that every sandbox's `launch` obeys, whatever the command."""

from __future__ import annotations

import builtins
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from anyspawn import Command, ConfigError
from anyspawn._env import Env

modes = pytest.mark.parametrize("mode", sorted(own.sandboxes))


def drawn(data, mode):
    return data.draw(own.sandboxes[mode]), data.draw(own.commands)


@modes
@given(data=st.data())
def test_suffix(mode, data):
    """CMD ARGS is always a verbatim suffix."""
    sandbox, command = drawn(data, mode)
    argv = sandbox.launch(command).argv
    assert argv[len(argv) - len(command.argv) :] == command.argv


@modes
@given(data=st.data())
def test_variables_once(mode, data):
    """Every env name arrives once, with its exact value."""
    sandbox, command = drawn(data, mode)
    arriving = own.variables(sandbox.launch(command))
    assert len({name for name, _ in arriving}) == len(arriving)
    assert dict(arriving).items() >= dict(command.env).items()


@modes
@given(data=st.data())
def test_no_secret_in_argv(mode, data):
    """No argv contains a variable's value or any byte of stdin."""
    sandbox, command = drawn(data, mode)
    words = "\0".join(sandbox.launch(command).argv)
    assert "s3cret-" not in words
    assert "st4in-" not in words


@modes
@given(data=st.data())
def test_no_value_becomes_an_option(mode, data):
    """Changing a value (of a variable, a folder or stdin) changes operands only; the options stay
    the same.
    """
    sandbox, command = drawn(data, mode)
    launch = sandbox.launch(command)
    harmless = sandbox.launch(
        Command(
            command.argv, cwd="/plain" if command.cwd else None, env=dict.fromkeys(command.env, "x")
        )
    )
    flags = [word for word in launch.argv[: -len(command.argv)] if word.startswith("-")]
    plain = [word for word in harmless.argv[: -len(command.argv)] if word.startswith("-")]
    implied = {"--ro-bind-try"}  # a folder of the command may add or remove one
    assert [word for word in flags if word not in implied] == [
        word for word in plain if word not in implied
    ]


@modes
@given(data=st.data())
def test_deterministic(mode, data):
    """The same settings and command give the same launch."""
    sandbox, command = drawn(data, mode)
    assert sandbox.launch(command) == sandbox.launch(command)


class Touched(AssertionError):
    """`launch` read the environment or the disk."""


@modes
@given(data=st.data())
def test_pure(mode, data):
    """`launch` touches neither environment nor disk."""
    sandbox, command = drawn(data, mode)

    def touch(*args, **kwargs):
        raise Touched

    with (
        mock.patch.object(os, "environ", None),
        mock.patch.object(os, "environb", None),
        mock.patch.multiple(
            os, getcwd=touch, stat=touch, lstat=touch, open=touch, listdir=touch, readlink=touch
        ),
        mock.patch.object(builtins, "open", touch),
    ):
        sandbox.launch(command)


@modes
@given(data=st.data())
def test_repr_keeps_secrets(mode, data):
    """`repr` shows names, not values, and no stdin."""
    sandbox, command = drawn(data, mode)
    shown = repr(command) + repr(sandbox.launch(command)) + str(command)
    assert "s3cret" not in shown
    assert "st4in" not in shown


@given(name=st.text(max_size=5).map("-".__add__))
@modes
def test_names_that_look_like_options(mode, name):
    """A sandbox's name with a leading dash is refused, and the message names the field."""
    kind = {"direct": "Direct", "bubblewrap": "Bubblewrap"}[mode]
    with pytest.raises(ConfigError, match="name"):
        getattr(__import__("anyspawn"), kind)(name=name)


@given(entries=own.environments, host=own.environments)
def test_env_is_a_mapping(entries, host):
    """Env equals the mapping that it was made from, in either form. Bare names take the host's
    values, or are dropped.
    """
    assert Env(entries) == entries
    assert Env(f"{name}={value}" for name, value in entries.items()) == entries
    assert Env(Env(entries)) == Env(entries)
    assert hash(Env(entries)) == hash(Env(dict(reversed(entries.items()))))
    assert Env(list(entries)).look_up(host) == {
        name: host[name] for name in entries if name in host
    }
