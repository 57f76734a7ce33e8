"""A trace as a tree on the terminal, or as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from jobs.trace import trace

_HIDDEN = {"settings"}
"""Too long for a tree, which shows how they differ from the defaults."""
_ON_A_LINE = {"versions", "measured", "traits", "place", "settings_beside_defaults"}


def show_trace(root: str, name: str, *, as_json: bool, console: Console) -> None:
    """Print where something comes from. Raises `ConfigError` for an unknown name."""
    found = trace(root, name)
    if as_json:
        text = json.dumps(found, ensure_ascii=False, indent=1, default=str)
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return
    tree = Tree(Text(name, style="bold"))
    _grow(tree, found)
    console.print(tree)


def _grow(tree: Tree, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in _HIDDEN or value is None:
            continue
        if name in _ON_A_LINE:
            tree.add(_line(name, _flat(value)))
        elif name == "thresholds" and all(isinstance(one, dict) for one in value.values()):
            branch = tree.add(_label(name))
            for reason, rule in value.items():
                branch.add(_line(reason, _flat(rule)))
        elif isinstance(value, Mapping) and value:
            _grow(tree.add(_label(name)), value)
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            branch = tree.add(_label(name))
            for number, one in enumerate(value, 1):
                if all(not isinstance(x, (Mapping, list)) for x in one.values()):
                    branch.add(Text(_flat(one)))
                else:
                    _grow(branch.add(Text(str(number), style="cyan")), one)
        else:
            tree.add(_line(name, _told(value)))


def _told(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_told(one) for one in value[:8])
        return f"{shown} and {len(value) - 8} more" if len(value) > 8 else shown
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any]) -> str:
    told = (f"{name} {_told(one)}" for name, one in values.items() if one is not None)
    return ", ".join(told) or "none"


def _label(name: str) -> Text:
    return Text(name.replace("_", " "), style="bold cyan")


def _line(name: str, value: str) -> Text:
    return Text.assemble((f"{name.replace('_', ' ')}: ", "cyan"), value)
